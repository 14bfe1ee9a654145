//! The benchmark's command line; `cargo xtask bench -- --help` prints it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use teredo_bench::{cases::Selection, run::run, throughput::LONGEST};

/// Compares our relay, server and client with Miredo's and with the bare XDP redirect of this
/// machine
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Run fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement
    #[arg(long)]
    seconds: Option<f64>,
    /// Number of rounds; every variant runs once in each
    #[arg(long)]
    rounds: Option<usize>,
    /// Cases to measure, separated by commas: test-run, churn, throughput, peers, hosts, solicitations, client, memory;
    /// none, bare, xdp, userspace, miredo; encap, decap; 64, 1280; 1, 10000
    #[arg(long, default_value = "")]
    only: Selection,
    /// Directory for the results as JSON
    #[arg(long, default_value = "target/bench", overrides_with = "output")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let (seconds, rounds) = if arguments.quick { (0.3, 3) } else { (1.0, 7) };
    let seconds = arguments.seconds.unwrap_or(seconds);
    let rounds = arguments.rounds.unwrap_or(rounds);
    let time = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    ensure!(
        (Duration::from_millis(10)..=LONGEST).contains(&time),
        "--seconds {seconds}: a measurement takes from 0.01 to {} seconds",
        LONGEST.as_secs()
    );
    ensure!(rounds > 0, "--rounds 0 would measure nothing");
    let report = run(&arguments.only, time, rounds)?;
    println!("{}", report.save(&arguments.output)?.display());
    Ok(())
}
