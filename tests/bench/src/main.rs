//! The benchmark's command line; `cargo xtask bench -- --help` prints it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use teredo_bench::{cases::Selection, guard, run::run, throughput::LONGEST};

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
    /// Count the instructions, look-ups and helper calls of the XDP program for a fixed set of packets
    /// instead, and hold them against the recorded figures
    #[arg(long)]
    guard: bool,
    /// Write the counted figures into the source tree as the new record
    #[arg(long, requires = "guard")]
    record: bool,
    /// List the lines of the source that take the instructions of this packet
    #[arg(long, requires = "guard", value_name = "PACKET")]
    explain: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.guard {
        true => stand_guard(&arguments),
        false => measure(&arguments).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
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

/// Returns whether everything is within its margins.
fn stand_guard(arguments: &Arguments) -> Result<bool> {
    let reports = guard::measure()?;
    print!("{}", guard::table(&reports));
    if let Some(packet) = &arguments.explain {
        print!("{}", guard::explain(&reports, packet)?);
    }
    if arguments.record {
        println!("\n{}", guard::record::write(&reports)?.display());
        return Ok(true);
    }
    let faults = guard::record::check(&reports)?;
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(faults.is_empty())
}
