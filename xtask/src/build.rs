//! `cargo xtask build`.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell;

/// Builds the daemon and returns its path.
pub fn daemon(release: bool) -> Result<PathBuf> {
    packages(&["teredo-userspace"], release)?;
    Ok(directory(release).join("teredo"))
}

/// Builds the binaries of these packages.
pub fn packages(packages: &[&str], release: bool) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["build", "--bins"]);
    if release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    shell::run(&mut command)
}

/// Returns cargo's directory of binaries.
pub fn directory(release: bool) -> PathBuf {
    shell::target().join(if release { "release" } else { "debug" })
}
