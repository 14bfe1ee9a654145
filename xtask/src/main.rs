//! `cargo xtask`: commands for developers of this repository. Users of the daemon need none of them.

mod bench;
mod build;
mod dist;
mod faults;
mod fuzz;
mod guide;
mod install;
mod lint;
mod mutants;
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
    /// Install the eBPF toolchain and system packages that are missing
    Setup {
        /// Only print what is missing
        #[arg(long)]
        check: bool,
    },
    /// Build the daemon
    Build {
        /// With optimisation
        #[arg(long)]
        release: bool,
    },
    /// Check formats, the specification against code and tests, and clippy, for the eBPF program too
    Lint,
    /// Write docs/conformance.md, and report where specification, code and tests disagree
    Conformance(specification::Arguments),
    /// Run every test, from unit tests to end-to-end
    Test {
        /// Only tests with this in their names
        filter: Option<String>,
    },
    /// Show relay, server and client at work in network namespaces, or run the daemon on this host
    Run(run::Arguments),
    /// Measure relay, server and client against Miredo and the bare XDP redirect of this machine
    Bench(bench::Arguments),
    /// Search for inputs that break a rule, or replay those that are known
    Fuzz(fuzz::Arguments),
    /// Change the data path, one place at a time, and report the changes that no test notices
    Mutants(mutants::Arguments),
    /// Inject random faults under load, after each of which the daemons have to recover
    Faults(faults::Faults),
    /// Run mixed traffic with churn, restarts and faults, and account for every packet
    Soak(faults::Soak),
    /// Measure the share of honest traffic that gets through while relay and server are flooded
    Attack(bench::Arguments),
    /// Count the packets that are lost while the relay's process is replaced under load
    Restarts(bench::Arguments),
    /// Make packages, static binaries and the list of dependencies, in target/dist
    Dist(dist::Arguments),
    /// Build the daemon and install it on this host, with its unit, pages and completions
    Install(install::Arguments),
    /// Remove what `install` has installed
    Uninstall(install::Arguments),
    /// Run a command in a virtual machine with one of Debian's kernels, or try the daemon on each
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
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Faults(arguments) => faults::faults(&arguments),
        Command::Soak(arguments) => faults::soak(&arguments),
        Command::Bench(arguments) => bench::run("bench", &arguments),
        Command::Attack(arguments) => bench::run("attack", &arguments),
        Command::Restarts(arguments) => bench::run("restarts", &arguments),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Install(arguments) => install::install(&arguments),
        Command::Uninstall(arguments) => install::uninstall(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
    }
}
