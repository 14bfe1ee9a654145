//! The `teredo` command.
//!
//! Trouble is one sentence on standard error and exit code 1; a command line that makes no sense is
//! clap's message and exit code 2.

mod address;
mod ask;
mod check;
mod output;
mod probe;
mod run;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{ApiAddress, Config, DEFAULT_PATH};

/// Teredo (RFC 4380): relay and server with their data path in XDP, client, and a probe of NATs.
#[derive(Debug, Parser)]
#[command(name = "teredo", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon, in the foreground
    Run(run::Arguments),
    /// Whether the configuration can run on this host: what would run, and what is in the way
    Check(check::Arguments),
    /// What a running daemon does: the fast path, traffic, drops, peers
    Status(Asking),
    /// The peers that a running daemon knows
    Peers(Asking),
    /// Has a running daemon take no new peers and clients, so that it can be stopped softly
    Drain(Daemon),
    /// What a client would meet here: whether a server answers, and what the NAT is like
    Probe(probe::Arguments),
    /// Calculates with Teredo addresses
    #[command(subcommand)]
    Address(address::Command),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }
}

/// What a daemon is started with.
#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    file: ConfigFile,
    /// Start although the day has come that `sunset` in the configuration names
    #[arg(long)]
    after_sunset: bool,
}

/// Which daemon is meant.
#[derive(Debug, Args)]
struct Daemon {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the daemon's API is, as in node.api; otherwise the configuration tells
    #[arg(long, value_name = "ADDRESS")]
    api: Option<ApiAddress>,
}

/// Which daemon to ask, and how to show the answer.
#[derive(Debug, Args)]
struct Asking {
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command that the process was called with.
#[must_use]
pub fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let result = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments).map(done),
        Command::Check(arguments) => check::run(&arguments).map(done),
        Command::Status(asking) => ask::status(&asking).map(done),
        Command::Peers(asking) => ask::peers(&asking).map(done),
        Command::Drain(daemon) => ask::drain(&daemon).map(done),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Address(command) => address::run(command).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("teredo: {}", output::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn start_runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
