//! The `teredo` command.
//!
//! A failure is one sentence on standard error and exit code 1; an invalid command line is clap's
//! message and exit code 2.

mod address;
mod ask;
mod capture;
mod check;
mod explain;
mod import;
mod log;
mod output;
mod probe;
mod run;
mod top;

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
pub use output::{print, sentence};
use tokio::runtime::{Builder, Runtime};

use crate::{
    config::{ApiAddress, Config, DEFAULT_PATH},
    datapath::xdp::capture::guard::{COMMAND as RESTORE, keep_watch},
};

/// Teredo (RFC 4380) relay and server with an XDP fast path, client, and a probe of NATs.
#[derive(Debug, Parser)]
#[command(name = "teredo", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon in the foreground
    Run(run::Arguments),
    /// Checks whether the configuration can run on this host
    Check(check::Arguments),
    /// Shows the status of a running daemon: fast path, traffic, drops, peers
    Status(ask::StatusArguments),
    /// Lists the peers of a running daemon
    Peers(ask::PeersArguments),
    /// Explains what a running daemon would do with packets of an address, an endpoint or a flow, or with
    /// one packet, and why
    Explain(explain::Arguments),
    /// Writes packets of a running daemon to a file, each with the reason for its fate
    Capture(capture::Arguments),
    /// Puts the usual XDP program back when the daemon has ended; for the daemon's own use
    #[command(name = RESTORE, hide = true)]
    Restore {
        /// Numbers of descriptors
        descriptors: Vec<i32>,
    },
    /// Shows a running daemon live in the terminal: rates, peers, drops, conditions
    Top(top::Arguments),
    /// Makes a running daemon accept no new peers and clients, so that it can be stopped gracefully
    Drain(Daemon),
    /// Makes a running daemon withdraw its route before it is stopped, and waits until routers have followed
    Withdraw(Daemon),
    /// Makes a running daemon use its configuration as it is now
    Reload(Daemon),
    /// Makes a running daemon hand over to the program as it is now
    Upgrade(Daemon),
    /// Probes the network as a client would see it: whether a server answers, and the type of NAT
    Probe(probe::Arguments),
    /// Encodes and decodes Teredo addresses
    #[command(subcommand)]
    Address(address::Command),
    /// Turns the configuration of another program into one for this daemon
    #[command(subcommand)]
    Import(import::Command),
}

/// The option that names the configuration.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl ConfigFile {
    fn path(&self) -> &Path {
        &self.config
    }

    fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }
}

/// The options of a start.
#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    file: ConfigFile,
    /// Start even if the date of `sunset` in the configuration has come
    #[arg(long)]
    after_sunset: bool,
}

/// The options that select a daemon.
#[derive(Debug, Args)]
struct Daemon {
    #[command(flatten)]
    file: ConfigFile,
    /// Address of the daemon's API, as in node.api [default: that in the configuration]
    #[arg(long, value_name = "ADDRESS")]
    api: Option<ApiAddress>,
}

/// The options of a query: the daemon, and the format of the answer.
#[derive(Debug, Args)]
struct Query {
    #[command(flatten)]
    daemon: Daemon,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Returns the definition of the command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was called with.
#[must_use]
pub fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return refuse(&error),
    };
    let prefix = match &command {
        Command::Run(_) => log::error_prefix(),
        _ => "",
    };
    let result = match command {
        Command::Run(arguments) => run::run(&arguments).map(done),
        Command::Check(arguments) => check::run(&arguments).map(done),
        Command::Status(query) => ask::status(&query).map(done),
        Command::Peers(query) => ask::peers(&query).map(done),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Capture(arguments) => capture::run(&arguments).map(done),
        Command::Restore { descriptors } => keep_watch(&descriptors).map_err(Into::into).map(done),
        Command::Top(arguments) => top::run(&arguments).map(done),
        Command::Drain(daemon) => ask::drain(&daemon).map(done),
        Command::Withdraw(daemon) => ask::withdraw(&daemon).map(done),
        Command::Reload(daemon) => ask::reload(&daemon).map(done),
        Command::Upgrade(daemon) => ask::upgrade(&daemon).map(done),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Address(command) => address::run(command).map(done),
        Command::Import(command) => import::run(&command).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            log::explain(&format!("{prefix}teredo: {}", sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Explains why the command line is invalid, or prints the help that it asks for.
fn refuse(error: &clap::Error) -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let is_probe = words.first().is_some_and(|word| word == "probe");
    let is_json = words.iter().any(|word| word == "--json");
    match error.use_stderr() && is_probe && is_json {
        true => probe::refuse(error),
        false => error.exit(),
    }
}

/// Pairs of descriptors that a runtime takes at its start, or more.
const SPARE: usize = 4;

fn start_runtime() -> Result<Runtime> {
    // The runtime panics when it finds no descriptors for its signals.
    let spare: io::Result<Vec<_>> = (0..SPARE).map(|_| UnixStream::pair()).collect();
    drop(spare.context("cannot start")?);
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
