//! Faults under load, and the soak run: `cargo xtask faults`, `cargo xtask soak`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use teredo_faults::{load::Rates, soak};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
