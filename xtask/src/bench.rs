//! `cargo xtask bench`, `attack` and `restarts`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{build, setup, shell};

/// The arguments of a benchmark, which parses them itself.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Arguments of the benchmark, such as `--quick`; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds everything with optimisation and measures with this program of the benchmarks.
pub fn run(program: &str, arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    build::packages(&["teredo-userspace", "teredo-bench"], true)?;
    let mut command = shell::as_root(build::directory(true).join(program));
    command.arg(format!(
        "--output={}",
        shell::target().join(program).display()
    ));
    shell::become_command(command.args(&arguments.arguments))
}
