//! The privileges that a running daemon has left, and what its sandbox lets through.

mod access;
#[path = "../host/mod.rs"]
mod host;
mod pins;
mod reload;
mod status;
mod successor;
mod unit;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use teredo_lab::{Daemon, teredo::binary};

use host::Host;

/// Longest time that a daemon may take for any step.
const PATIENCE: Duration = Duration::from_secs(30);
/// The user nobody, and its group.
const NOBODY: u32 = 65534;

/// Starts `teredo run` and waits until its API answers.
fn start(host: &Host, file: &Path) -> Result<Daemon> {
    let command = host.namespace.command(binary()?)?;
    start_command(command, file)
}

/// Starts the daemon with a command that has no arguments yet.
fn start_command(mut command: Command, file: &Path) -> Result<Daemon> {
    command.args(["run", "--config"]).arg(file);
    let mut daemon = Daemon::start("teredo", command, Daemon::directory("daemon")?)?;
    daemon.wait_for("its API answers", PATIENCE, || {
        let mut status = Command::new(binary()?);
        let status = status.args(["status", "--config"]).arg(file).output()?;
        Ok(status.status.success().then_some(()))
    })?;
    Ok(daemon)
}

/// Returns a directory of this workspace.
fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
