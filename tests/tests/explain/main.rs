//! `teredo explain` and `teredo status` name the cause of a fault in one sentence, and do not name it
//! while all is well; and explaining changes nothing.

mod faults;
mod pure;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use teredo::explain::{Explanation, Verdict};
use teredo_lab::{Namespace, Teredo, teredo::binary, wait_until};

/// The time within which a cause is told: bubbles are repeated after two seconds and more.
const PATIENCE: Duration = Duration::from_secs(30);

/// The explanation of a subject, asked for in the daemon's network namespace.
fn explain(namespace: &Namespace, teredo: &Teredo, arguments: &[&str]) -> Result<Explanation> {
    let mut command = namespace.command(binary()?)?;
    command
        .args(["explain", "--json", "--config"])
        .arg(teredo.file());
    let told = command.args(arguments).output()?;
    serde_json::from_slice(&told.stdout)
        .with_context(|| format!("{arguments:?}: {}", String::from_utf8_lossy(&told.stderr)))
}

/// The first line of `teredo status`.
fn headline(teredo: &Teredo) -> Result<String> {
    let mut command = std::process::Command::new(binary()?);
    let told = command
        .args(["status", "--config"])
        .arg(teredo.file())
        .output()?;
    let told = String::from_utf8(told.stdout)?;
    Ok(told.lines().next().unwrap_or_default().to_owned())
}

/// Whether a sentence has all of these words.
fn has(sentence: &str, words: &[&str]) -> bool {
    words.iter().all(|word| sentence.contains(word))
}

/// Checks that an explanation does not find a fault, and has not these words in any step.
fn is_well(namespace: &Namespace, teredo: &Teredo, subject: &[&str], words: &[&str]) -> Result<()> {
    let told = explain(namespace, teredo, subject)?;
    ensure!(told.verdict != Verdict::Fault, "{told:#?}");
    let mut steps = told.steps.iter();
    ensure!(!steps.any(|step| has(&step.text, words)), "{told:#?}");
    Ok(())
}

/// Waits until the cause is told in a sentence with these words.
fn is_told(namespace: &Namespace, teredo: &Teredo, subject: &[&str], words: &[&str]) -> Result<()> {
    let mut last = None;
    let waited = wait_until("the cause is told", PATIENCE, || {
        let told = explain(namespace, teredo, subject)?;
        let is_told = told.verdict == Verdict::Fault && has(&told.cause, words);
        if is_told {
            println!("{}", told.cause);
        }
        last = Some(told);
        Ok(is_told)
    });
    waited.with_context(|| format!("{words:?} in {last:#?}"))
}

/// Waits until the first line of `teredo status` has these words.
fn is_in_status(teredo: &Teredo, words: &[&str]) -> Result<()> {
    let waited = wait_until("status tells the cause", PATIENCE, || {
        let line = headline(teredo)?;
        let is_told = has(&line, words);
        if is_told {
            println!("{line}");
        }
        Ok(is_told)
    });
    waited.with_context(|| format!("{words:?}: {:?}", headline(teredo)))
}
