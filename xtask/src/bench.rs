//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{build, setup, shell};

/// The arguments of the benchmark, which parses them itself.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Arguments of the benchmark, such as `--quick`; `cargo xtask bench -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds everything with optimisation and measures.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    build::packages(&["teredo-userspace", "teredo-bench"], true)?;
    let mut command = shell::as_root(build::directory(true).join("bench"));
    command.arg(format!(
        "--output={}",
        shell::target().join("bench").display()
    ));
    shell::become_command(command.args(&arguments.arguments))
}
