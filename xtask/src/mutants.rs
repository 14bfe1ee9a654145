//! `cargo xtask mutants`: changes the data path, one place at a time, and reports the changes that no test
//! notices.

use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::Args;

use crate::shell;

/// The version that `.cargo/mutants.toml` is written for.
const VERSION: &str = "27.1.0";

/// The packages and tests of `.cargo/mutants.toml`.
const PACKAGES: [&str; 2] = ["--package=teredo-datapath", "--package=teredo-differential"];
const TESTS: [&str; 7] = [
    "--lib",
    "--test=relay",
    "--test=server",
    "--test=budget",
    "--test=next_hops",
    "--test=decisions",
    "--test=classes",
];
/// The files that are changed unless others are named.
const FILES: &str = "teredo-datapath/src/**/*.rs";
/// Seconds after which the tests have noticed a change because they do not end.
const LONGEST: u32 = 180;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Random frames of each comparison of the fast path with the slow path
    #[arg(long, default_value_t = 20_000)]
    frames: u32,
    /// Further arguments of `cargo mutants`, such as `--file teredo-datapath/src/sum.rs`
    #[arg(last = true)]
    further: Vec<String>,
}

/// Runs the tests without a change, then cargo-mutants, which is compiled first if it is missing.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !is_installed() {
        eprintln!("mutants: compiling cargo-mutants {VERSION}, which takes some minutes");
        let package = format!("cargo-mutants@{VERSION}");
        shell::run(shell::cargo().args(["install", "--locked", "--quiet", &package]))?;
    }
    let frames = arguments.frames.to_string();
    // By itself, it would look for the named tests in the changed package alone.
    let mut tests = shell::cargo();
    tests.args(["test", "--quiet"]).args(PACKAGES).args(TESTS);
    shell::run(tests.env("PROPTEST_CASES", &frames))?;
    let mut command = shell::cargo();
    command
        .args(["mutants", "--baseline=skip"])
        .args(["--timeout", &LONGEST.to_string()])
        .arg("--output")
        .arg(shell::target())
        .args(&arguments.further)
        .args(files(&arguments.further))
        .env("PROPTEST_CASES", frames);
    shell::become_command(&mut command)
}

/// Returns the arguments that name files, unless there are some.
fn files(further: &[String]) -> Vec<String> {
    let names_files =
        |argument: &String| argument.starts_with("--file") || argument.starts_with("-f");
    match further.iter().any(names_files) {
        true => Vec::new(),
        false => vec![format!("--file={FILES}")],
    }
}

fn is_installed() -> bool {
    let version = shell::output(Command::new("cargo-mutants").args(["mutants", "--version"]));
    version.is_some_and(|text| text.trim().ends_with(VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_files_take_the_place_of_all() {
        let of =
            |further: &[&str]| files(&further.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["--shard", "1/40"]), [format!("--file={FILES}")]);
        assert!(of(&["--file", "teredo-datapath/src/sum.rs"]).is_empty());
        assert!(of(&["-f=teredo-datapath/src/sum.rs"]).is_empty());
    }
}
