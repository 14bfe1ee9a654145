//! The code of the protocol that the inputs in the repository reach.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{host, llvm::Tools};
use crate::shell;

/// A part of the code, the start of its files' paths, and the percentage of their lines that the inputs
/// reach at least.
struct Part {
    name: &'static str,
    path: &'static str,
    least: f64,
}

/// What tests alone use.
const OTHERS: &str = "teredo-proto/src/testing.rs";

const PARTS: &[Part] = &[
    Part {
        name: "wire formats",
        path: "teredo-proto/src/wire/",
        least: 97.0,
    },
    Part {
        name: "machines",
        path: "teredo-proto/src/",
        least: 95.0,
    },
    Part {
        name: "data path",
        path: "teredo-datapath/src/",
        least: 80.0,
    },
];

/// The test that replays them.
const TEST: &str = "every_input_of_the_corpora_passes";

/// Replays the inputs, and prints the coverage of each file.
pub fn run() -> Result<ExitCode> {
    let tools = Tools::ensure()?;
    let program = build()?;
    let profile = replay(&program, &tools)?;
    let files = measure(&program, &tools, &profile)?;
    Ok(if report(&files) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn directory() -> PathBuf {
    shell::target().join("coverage")
}

/// Builds the test with counters, without the targets of the daemon.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let mut command = shell::cargo();
    command
        // Otherwise functions that the compiler drops count as lines that nothing reaches.
        .env("CARGO_INCREMENTAL", "1")
        .args(["test", "--package=teredo-fuzz", "--test=corpus", "--no-run"])
        .args(["--no-default-features", "--target", &host, "--target-dir"])
        .arg(directory())
        .args(["--config", "profile.dev.opt-level=1"])
        .args([
            "--config",
            &format!("target.{host}.rustflags=[\"-Cinstrument-coverage\"]"),
        ])
        .arg("--message-format=json-render-diagnostics");
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        shell::line(&command),
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs =
        messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next().context("cargo names no program")
}

/// Runs the test, and returns the file with what its counters say.
fn replay(program: &Path, tools: &Tools) -> Result<PathBuf> {
    let raw = directory().join("corpus.profraw");
    let profile = directory().join("corpus.profdata");
    let mut command = Command::new(program);
    command.arg(TEST).env("LLVM_PROFILE_FILE", &raw);
    shell::run(&mut command)?;
    let mut command = Command::new(&tools.profdata);
    command
        .args(["merge", "-sparse", "-o"])
        .arg(&profile)
        .arg(&raw);
    shell::run_quietly(&mut command)?;
    fs::remove_file(raw)?;
    Ok(profile)
}

/// A source file of the protocol.
struct File {
    path: String,
    lines: u64,
    covered: u64,
}

fn measure(program: &Path, tools: &Tools, profile: &Path) -> Result<Vec<File>> {
    let mut command = Command::new(&tools.cov);
    command
        .args(["export", "-summary-only", "-instr-profile"])
        .arg(profile)
        .arg(program);
    let text = shell::output(&mut command).context("llvm-cov fails")?;
    let document: Value = serde_json::from_str(&text)?;
    let files = document["data"][0]["files"]
        .as_array()
        .context("llvm-cov lists no files")?;
    let root = format!("{}/", shell::root().display());
    let files = files.iter().filter_map(|file| {
        let lines = &file["summary"]["lines"];
        Some(File {
            path: file["filename"].as_str()?.strip_prefix(&root)?.to_owned(),
            lines: lines["count"].as_u64()?,
            covered: lines["covered"].as_u64()?,
        })
    });
    Ok(files.collect())
}

/// Prints the files of each part, and returns whether enough is reached.
fn report(files: &[File]) -> bool {
    let mut is_enough = true;
    let mut rest: Vec<&File> = files.iter().filter(|file| file.path != OTHERS).collect();
    for part in PARTS {
        let is_in = |file: &&File| file.path.starts_with(part.path);
        let (own, others) = rest.into_iter().partition::<Vec<_>, _>(is_in);
        rest = others;
        println!("{}:", part.name);
        for file in &own {
            let percentage = percentage(file.covered, file.lines);
            println!("  {percentage:5.1} %  {} ({} lines)", file.path, file.lines);
        }
        let covered = own.iter().map(|file| file.covered).sum();
        let lines = own.iter().map(|file| file.lines).sum();
        let percentage = percentage(covered, lines);
        println!(
            "  {percentage:5.1} %  of {lines} lines; at least {:.1} %\n",
            part.least
        );
        if percentage < part.least {
            eprintln!("fuzz: the inputs reach too little of the {}", part.name);
            is_enough = false;
        }
    }
    is_enough
}

fn percentage(covered: u64, lines: u64) -> f64 {
    100.0 * covered as f64 / lines.max(1) as f64
}
