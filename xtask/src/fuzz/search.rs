//! The search for new inputs, with libFuzzer.
//!
//! libFuzzer needs counters at every edge of the code. The stable compiler adds them when it is told
//! so as LLVM would be; only what a sanitizer finds besides needs another compiler.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use super::{Arguments, host};
use crate::{
    setup::{self, Tool},
    shell,
};

/// libFuzzer is written in C++.
const COMPILER: &[Tool] = &[Tool {
    program: "c++",
    package: "g++",
}];

/// Counters and comparisons of every edge.
const COUNTERS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// The longest input in octets, and the longest time and most memory (MiB) for one.
const LIMITS: [&str; 4] = [
    "-max_len=4000",
    "-len_control=20",
    "-timeout=10",
    "-rss_limit_mb=2048",
];

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let names = match &arguments.target {
        Some(name) => vec![name.clone()],
        None => targets()?,
    };
    setup::ensure_build()?;
    setup::ensure_tools(COMPILER)?;
    let program = build()?;
    let mut is_fine = true;
    for name in names {
        let target = Target::new(&program, name)?;
        if arguments.reduce {
            target.reduce()?;
        } else {
            is_fine &= target.search(arguments.minutes)?;
        }
    }
    Ok(if is_fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the names of all targets: those of the folders with their inputs.
fn targets() -> Result<Vec<String>> {
    let folder = corpora();
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn corpora() -> PathBuf {
    shell::root().join("tests/fuzz/corpus")
}

fn directory() -> PathBuf {
    shell::target().join("fuzz")
}

/// Builds the program with all targets.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let flags = COUNTERS.map(|flag| format!("{flag:?}")).join(",");
    let mut command = shell::cargo();
    command
        .args(["build", "--package=teredo-fuzz", "--bin=fuzz"])
        .args(["--features=libfuzzer", "--target", &host, "--target-dir"])
        .arg(directory())
        .args(["--config", "profile.dev.opt-level=2"])
        .args(["--config", &format!("target.{host}.rustflags=[{flags}]")]);
    shell::run(&mut command)?;
    Ok(directory().join(host).join("debug/fuzz"))
}

/// A target and where its inputs are.
struct Target<'a> {
    program: &'a Path,
    name: String,
    /// The inputs in the repository.
    corpus: PathBuf,
    /// Those that were found.
    work: PathBuf,
}

impl<'a> Target<'a> {
    fn new(program: &'a Path, name: String) -> Result<Self> {
        let target = Self {
            corpus: corpora().join(&name),
            work: directory().join("work").join(&name),
            program,
            name,
        };
        fs::create_dir_all(&target.work)?;
        fs::create_dir_all(directory().join("found"))?;
        Ok(target)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env("TEREDO_FUZZ_TARGET", &self.name).args(LIMITS);
        command
    }

    /// Searches, and returns whether no input broke a rule.
    fn search(&self, minutes: f64) -> Result<bool> {
        let found = directory().join("found").join(format!("{}-", self.name));
        // Whole seconds, at least one: zero would be for ever.
        let seconds = (minutes * 60.0).ceil().max(1.0) as u64;
        eprintln!("fuzz: {} for {seconds} s", self.name);
        let mut command = self.command();
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}", found.display()))
            .arg("-print_final_stats=1")
            .arg(&self.work)
            // A new target has none yet.
            .args(self.corpus.is_dir().then_some(&self.corpus));
        let status = command.status().context("the fuzzer cannot be started")?;
        if !status.success() {
            eprintln!(
                "fuzz: {} breaks a rule; to run it again: TEREDO_FUZZ_TARGET={} {} {}...",
                self.name,
                self.name,
                self.program.display(),
                found.display()
            );
        }
        Ok(status.success())
    }

    /// Replaces the inputs in the repository by the fewest that reach the same code, except for those
    /// that broke a rule once.
    fn reduce(&self) -> Result<()> {
        fs::create_dir_all(&self.corpus)?;
        let fewest = tempfile::tempdir()?;
        let mut command = self.command();
        command
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .arg(fewest.path())
            .arg(&self.corpus)
            .arg(&self.work);
        shell::run_quietly(&mut command)?;
        for entry in fs::read_dir(&self.corpus)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(BROKE) {
                fs::remove_file(entry.path())?;
            }
        }
        let (mut number, mut octets) = (0, 0);
        for entry in fs::read_dir(fewest.path())? {
            let entry = entry?;
            octets += fs::copy(entry.path(), self.corpus.join(entry.file_name()))?;
            number += 1;
        }
        ensure!(number > 0, "{}: no input is left", self.name);
        eprintln!("fuzz: {}: {number} inputs, {octets} octets", self.name);
        Ok(())
    }
}

/// How the names of inputs begin that broke a rule.
const BROKE: &str = "broke-";
