//! `cargo xtask`: everything a developer does with this repository. Users of the daemon need none
//! of it.

mod bench;
mod build;
mod lint;
mod run;
mod setup;
mod shell;
mod specification;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Gets the eBPF toolchain and the system packages; silent when nothing is missing
    Setup {
        /// Only say what is missing
        #[arg(long)]
        check: bool,
    },
    /// Builds the daemon
    Build {
        /// Optimised
        #[arg(long)]
        release: bool,
    },
    /// Format and clippy, of the eBPF program too; specification, code and tests agree
    Lint,
    /// Writes docs/conformance.md, and says where specification, code and tests do not agree
    Conformance(specification::Arguments),
    /// Every test, unit tests to end-to-end
    Test {
        /// Only tests whose name holds this
        filter: Option<String>,
    },
    /// Shows relay and server at work between network namespaces; or runs the daemon on this host
    Run(run::Arguments),
    /// Measures relay and server against Miredo's and what bare XDP does on this machine
    Bench(bench::Arguments),
    /// Runs a command in a virtual machine with a kernel of Debian's
    Vm(vm::Arguments),
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup { check: true } => setup::check(),
        Command::Setup { check: false } => setup::ensure().map(|()| ExitCode::SUCCESS),
        Command::Build { release } => {
            setup::ensure_build()?;
            build::daemon(release).map(|_| ExitCode::SUCCESS)
        }
        Command::Lint => {
            setup::ensure_build()?;
            lint::run().map(|()| ExitCode::SUCCESS)
        }
        Command::Conformance(arguments) => specification::run(&arguments),
        Command::Test { filter } => {
            setup::ensure()?;
            test::run(filter.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Run(arguments) => run::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
    }
}
