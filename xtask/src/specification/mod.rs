//! The specification in `docs/protocol`, held against the code and the tests; and
//! `docs/conformance.md`, which is written from the three.

mod attacks;
mod checks;
mod citations;
mod conformance;
mod failure;
mod markdown;
mod number;
mod register;
#[cfg(test)]
mod tests;
mod usage;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::shell;
use checks::TestCode;
use failure::{Failure, Place};
use register::Register;
use usage::Usage;

/// The document that is written.
const CONFORMANCE: &str = "docs/conformance.md";
/// The folder of the specification.
const SPECIFICATION: &str = "docs/protocol/";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write nothing: fail if the document is out of date, too, as lint does
    #[arg(long)]
    check: bool,
}

/// Writes the document, and prints everything that does not hold.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let files = Files::read(shell::root())?;
    let outcome = Outcome::of(&files.0);
    let mut failures = outcome.failures;
    let path = shell::root().join(CONFORMANCE);
    if !arguments.check {
        fs::write(&path, &outcome.document).with_context(|| format!("{}", path.display()))?;
    } else if !is_current(&path, &outcome.document) {
        failures.push(outdated());
    }
    Ok(report(&failures))
}

/// Fails unless everything holds and the document is up to date.
pub fn check() -> Result<()> {
    let arguments = Arguments { check: true };
    if run(&arguments)? != ExitCode::SUCCESS {
        bail!("the specification, the code and the tests do not agree");
    }
    Ok(())
}

fn is_current(path: &Path, document: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == document)
}

fn outdated() -> Failure {
    let place = Place {
        file: CONFORMANCE.to_owned(),
        line: 1,
    };
    Failure::new(&place, "is out of date; run `cargo xtask conformance`")
}

fn report(failures: &[Failure]) -> ExitCode {
    for failure in failures {
        eprintln!("{failure}");
    }
    match failures {
        [] => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The paths and texts of the files that may cite a number.
struct Files(Vec<(String, String)>);

impl Files {
    /// Reads the files that git tracks or would add.
    fn read(root: &Path) -> Result<Self> {
        let mut command = Command::new("git");
        command.current_dir(root);
        command.args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ]);
        let paths =
            shell::output(&mut command).context("`git ls-files` failed: is this a clone?")?;
        let mut files = Vec::new();
        for path in paths.split('\0').filter(|path| !path.is_empty()) {
            // A file may be deleted and still tracked.
            if citations::Kind::of(path).is_none() || !root.join(path).is_file() {
                continue;
            }
            let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
            files.push((path.to_owned(), text));
        }
        files.sort();
        files.dedup();
        Ok(Self(files))
    }
}

/// The result of reading all files.
struct Outcome {
    failures: Vec<Failure>,
    document: String,
}

impl Outcome {
    fn of(files: &[(String, String)]) -> Self {
        let files = || {
            files
                .iter()
                .map(|(path, text)| (path.as_str(), text.as_str()))
        };
        let register = Register::read(files().filter(|(path, _)| path.starts_with(SPECIFICATION)));
        let cited = files().flat_map(|(path, text)| citations::citations(path, text));
        let cited: Vec<_> = cited.collect();
        let test_code = files().map(|(path, text)| (path, citations::test_code(path, text)));
        let test_code: TestCode<'_> = test_code.collect();
        let usage = Usage::of(&cited);
        let all: Vec<_> = files().collect();
        let mut failures = checks::check(&register, &cited, &usage, &test_code);
        failures.extend(attacks::check(&all));
        Self {
            failures,
            document: conformance::render(&register, &usage),
        }
    }
}
