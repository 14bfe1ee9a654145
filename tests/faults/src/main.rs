//! Faults under load, and the soak run: `cargo xtask faults`, `cargo xtask soak`.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use teredo_faults::{load::Rates, runner, soak};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Random faults under load, after each of which the daemons have to recover
    Faults {
        /// How long
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// The seed of the sequence of faults [default: the time]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Mixed traffic with churn, expiry, restarts and faults, every packet of which is accounted for
    Soak {
        /// How long
        #[arg(long, default_value_t = 60.0)]
        minutes: f64,
        /// The seed of the sequence of events
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Seconds of load between two quiet moments
        #[arg(long, default_value_t = 60.0)]
        stretch: f64,
        /// The file of the report
        #[arg(long, default_value = "soak.json")]
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Faults { minutes, seed } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let seed = seed.unwrap_or(now.as_secs());
            runner::run(seed, Duration::from_secs_f64(minutes * 60.0))?;
        }
        Command::Soak {
            minutes,
            seed,
            stretch,
            output,
        } => {
            let plan = soak::Plan {
                duration: Duration::from_secs_f64(minutes * 60.0),
                stretch: Duration::from_secs_f64(stretch),
                seed,
                rates: Rates::default(),
                output,
            };
            soak::run(&plan)?;
        }
    }
    Ok(())
}
