//! Writes the manual pages and completions of the `teredo` command, which `cargo xtask dist` packs.
//!
//! Pages of commands and completions come from the command line's definition, teredo.toml(5) from
//! docs/configuration.md, so that neither can lag behind.

mod commands;
mod configuration;

use std::{
    env,
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, Result};
use clap_complete::{Shell, generate};

/// The guide to the configuration.
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let directory = arguments.next().context("usage: teredo-pages DIRECTORY")?;
    write(Path::new(&directory))
}

/// Writes everything below the directory: `man/man8`, `man/man5`, and a folder for each shell.
fn write(directory: &Path) -> Result<()> {
    let manual = directory.join("man");
    for (name, page) in commands::pages()? {
        put(&manual.join("man8").join(name), &page)?;
    }
    let page = configuration::page(CONFIGURATION);
    put(&manual.join("man5/teredo.toml.5"), page.as_bytes())?;
    for (shell, path) in [
        (Shell::Bash, "bash/teredo"),
        (Shell::Zsh, "zsh/_teredo"),
        (Shell::Fish, "fish/teredo.fish"),
    ] {
        let mut script = Vec::new();
        generate(shell, &mut teredo::cli::command(), "teredo", &mut script);
        put(&directory.join("completions").join(path), &script)?;
    }
    Ok(())
}

fn put(path: &Path, contents: &[u8]) -> Result<()> {
    use std::io::Write as _;

    let parent = path.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let file = File::create(path).and_then(|mut file| file.write_all(contents));
    file.with_context(|| format!("write {}", path.display()))
}
