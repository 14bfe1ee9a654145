//! Builds that do not depend on the directory, the home directory and the time.

use std::{env, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::directory;
use crate::shell;

/// Makes a build of cargo independent of paths and time.
///
/// A wrapper adds the compiler's options, since flags in the environment do not reach the build of the
/// eBPF program, which is another cargo with flags of its own.
pub fn prepare(command: &mut Command) -> Result<()> {
    let wrapper = directory().join("rustc");
    let script = format!("#!/bin/sh\nexec \"$@\" {}\n", remapping()?);
    // Cargo looks at the time of a wrapper.
    if fs::read_to_string(&wrapper).ok().as_deref() != Some(&script) {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(directory())?;
            fs::write(&wrapper, &script)?;
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("cannot write {}", wrapper.display()))?;
    }
    command.env("RUSTC_WRAPPER", wrapper);
    command.env("SOURCE_DATE_EPOCH", epoch()?);
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_INCREMENTAL"] {
        command.env_remove(variable);
    }
    // Debug information is part of what is compared.
    for (variable, _) in env::vars_os() {
        if variable.to_string_lossy().starts_with("CARGO_PROFILE_") {
            command.env_remove(variable);
        }
    }
    Ok(())
}

/// Returns the time of the last commit, in seconds since 1970, unless the environment names another.
pub fn epoch() -> Result<String> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    if let Ok(text) = env::var(VARIABLE) {
        if text.parse::<u64>().is_err() {
            bail!("{VARIABLE}={text} is not a number of seconds since 1970; unset it, or set one");
        }
        return Ok(text);
    }
    let mut git = Command::new("git");
    git.current_dir(shell::root())
        .args(["log", "-1", "--format=%ct"]);
    let text = shell::output(&mut git).unwrap_or_default();
    match text.trim() {
        "" => bail!("this is no checkout of git; set {VARIABLE} to the time of the release"),
        text => Ok(text.to_owned()),
    }
}

/// Returns the options that replace the paths of this machine, as words of a shell.
fn remapping() -> Result<String> {
    let target = shell::target();
    let (cargo, rustup) = (shell::cargo_home()?, shell::rustup_home()?);
    // The compiler takes the last one that fits.
    let paths: [(&Path, &str); 4] = [
        (&rustup, "/rustup"),
        (&cargo, "/cargo"),
        (shell::root(), "/teredo"),
        (&target, "/teredo/target"),
    ];
    let mut words = Vec::new();
    for (path, name) in paths {
        let path = path
            .to_str()
            .with_context(|| format!("{} is not UTF-8; build elsewhere", path.display()))?;
        let option = format!("--remap-path-prefix={path}={name}");
        words.push(format!("'{}'", option.replace('\'', "'\\''")));
    }
    Ok(words.join(" "))
}
