//! The package for Fedora and others. Its metadata is in teredo-userspace/Cargo.toml.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::tools;
use crate::shell;

/// Makes the package of the staged files.
pub fn make(directory: &Path) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("teredo-{version}-1.{}.rpm", std::env::consts::ARCH);
    let file = directory.join(name);
    let mut command = tools::RPM.command()?;
    // `auto` would follow this machine's RPM, if it has one.
    command.args(["--package", "teredo-userspace", "--auto-req", "builtin"]);
    shell::run(command.arg("--output").arg(&file))?;
    Ok(file)
}
