//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{build, setup, shell};

/// The choice of measurements, and their length.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Take less time: fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement
    #[arg(long)]
    seconds: Option<f64>,
    /// Rounds; each measures every relay once
    #[arg(long)]
    rounds: Option<usize>,
    /// Choose measurements, by words with commas between them: test-run, throughput, solicitations, client, memory; none,
    /// bare, xdp, userspace, miredo; encap, decap; 64, 1280; 1, 10000
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
}

impl Arguments {
    fn forward(&self) -> Vec<String> {
        let mut arguments = vec![format!(
            "--output={}",
            shell::target().join("bench").display()
        )];
        if self.quick {
            arguments.push("--quick".to_owned());
        }
        let seconds = self.seconds.map(|seconds| format!("--seconds={seconds}"));
        let rounds = self.rounds.map(|rounds| format!("--rounds={rounds}"));
        let only = self.only.as_ref().map(|only| format!("--only={only}"));
        arguments.extend([seconds, rounds, only].into_iter().flatten());
        arguments
    }
}

/// Builds everything with optimisation and measures.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    build::packages(&["teredo-userspace", "teredo-bench"], true)?;
    let mut command = shell::as_root(build::directory(true).join("bench"));
    shell::become_command(command.args(arguments.forward()))
}
