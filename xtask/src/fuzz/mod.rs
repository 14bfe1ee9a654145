//! `cargo xtask fuzz`.

mod coverage;
mod llvm;
mod search;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::shell;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Only this target; by default all, one after the other
    target: Option<String>,
    /// Time to search for each target, in minutes
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Search no more: reduce the inputs that were found, and those of the repository, to the fewest
    /// that reach the same code, and put them into the repository
    #[arg(long, conflicts_with = "minutes")]
    reduce: bool,
    /// Replay the inputs of the repository for the protocol, and fail if they reach less of its code
    /// than they should
    #[arg(long, conflicts_with_all = ["target", "minutes", "reduce"])]
    replay: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.replay {
        return coverage::run();
    }
    search::run(arguments)
}

/// Returns the triple of this machine, as the compiler names it.
fn host() -> Result<String> {
    version("host")
}

/// Returns a line of what the compiler says about itself.
fn version(key: &str) -> Result<String> {
    let text = shell::output(shell::rustc().arg("-vV")).context("rustc -vV fails")?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    Ok(value
        .with_context(|| format!("rustc -vV prints no {key}"))?
        .to_owned())
}
