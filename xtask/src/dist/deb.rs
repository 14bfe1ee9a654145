//! The package for Debian and Ubuntu. Its metadata is in teredo-userspace/Cargo.toml.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::tools;
use crate::shell;

/// Makes the package of the staged files. `version` is for tests of upgrades; otherwise it is the version of
/// the daemon.
pub fn make(directory: &Path, version: Option<&str>) -> Result<PathBuf> {
    let mut command = tools::DEB.command()?;
    // Everything was built and stripped before.
    command.args(["--no-build", "--no-strip", "--locked"]);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    command.args(["--package", "teredo-userspace", "--quiet", "--output"]);
    // It prints the name of the file.
    let output = command
        .arg(directory)
        .stderr(std::process::Stdio::inherit());
    let output = output.output().context("cargo-deb cannot be started")?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        shell::line(&command),
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let name = text.trim().lines().next_back().unwrap_or_default();
    Ok(PathBuf::from(name))
}
