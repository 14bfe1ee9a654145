//! `cargo xtask faults` and `cargo xtask soak`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{build, setup, shell};

/// The arguments of a run of faults.
#[derive(Args, Debug)]
pub struct Faults {
    /// How long
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// The seed of the sequence of faults, which a run prints [default: the time]
    #[arg(long)]
    seed: Option<u64>,
}

/// The arguments of a soak run.
#[derive(Args, Debug)]
pub struct Soak {
    /// How long
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// The seed of the sequence of events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of load between two quiet moments
    #[arg(long, default_value_t = 40.0)]
    stretch: f64,
}

/// Injects faults.
pub fn faults(arguments: &Faults) -> Result<ExitCode> {
    let mut words = vec!["faults".to_owned()];
    words.push(format!("--minutes={}", arguments.minutes));
    words.extend(arguments.seed.map(|seed| format!("--seed={seed}")));
    run(&words)
}

/// Runs the soak.
pub fn soak(arguments: &Soak) -> Result<ExitCode> {
    let directory = shell::target().join("soak");
    run(&[
        "soak".to_owned(),
        format!("--minutes={}", arguments.minutes),
        format!("--seed={}", arguments.seed),
        format!("--stretch={}", arguments.stretch),
        format!("--output={}", directory.join("soak.json").display()),
    ])
}

fn run(words: &[String]) -> Result<ExitCode> {
    setup::ensure()?;
    build::packages(&["teredo-userspace", "teredo-faults"], false)?;
    let mut command = shell::as_root(build::directory(false).join("faults"));
    shell::become_command(command.args(words))
}
