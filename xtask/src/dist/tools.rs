//! Cargo's subcommands that make packages, in a directory of their own.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::reproducible;
use crate::shell;

/// A subcommand of cargo.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The crate and its program.
    name: &'static str,
    version: &'static str,
}

/// Makes Debian packages.
pub const DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
};
/// Makes RPM packages.
pub const RPM: Tool = Tool {
    name: "cargo-generate-rpm",
    version: "0.21.1",
};
/// Lists dependencies.
pub const CYCLONEDX: Tool = Tool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
};

impl Tool {
    /// Returns a command that runs it in the repository's directory. It is built before, if it is missing.
    pub fn command(self) -> Result<Command> {
        let mut command = Command::new(self.ensure()?);
        command.current_dir(shell::root());
        if let Some(word) = self.name.strip_prefix("cargo-") {
            command.arg(word);
        }
        command.env("SOURCE_DATE_EPOCH", reproducible::epoch()?);
        Ok(command)
    }

    fn ensure(self) -> Result<PathBuf> {
        let directory = shell::cargo_home()?.join("teredo-dist");
        let program = directory.join("bin").join(self.name);
        let command = |program: &PathBuf| {
            let word = self.name.trim_start_matches("cargo-");
            shell::output(Command::new(program).args([word, "--version"]))
        };
        // A tool of another version may make other packages.
        if command(&program).is_some_and(|text| text.trim().ends_with(self.version)) {
            return Ok(program);
        }
        eprintln!("dist: building {} {}", self.name, self.version);
        let mut install = shell::cargo();
        install.args(["install", self.name, "--version", self.version]);
        install.args(["--locked", "--quiet", "--force", "--root"]);
        install.arg(&directory).env_remove("CARGO_TARGET_DIR");
        shell::run(&mut install)?;
        Ok(program)
    }
}
