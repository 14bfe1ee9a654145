//! `teredo check`: what would run, and what is in the way.

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::{
    Start,
    output::{Table, print, print_json},
    start_runtime,
};
use crate::{
    check::{self, Report, Verdict},
    config::secrets,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    start: Start,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The report with its summary.
#[derive(Serialize)]
struct Summary<'a> {
    /// Whether `teredo run` would start.
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Prints what was found; trouble is an error.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Start { file, after_sunset } = &arguments.start;
    let config = file.load()?;
    let secrets = secrets::load(&config);
    let examination = check::examine(&config, secrets.as_ref(), *after_sunset);
    let report = start_runtime()?.block_on(examination);
    let troubles = report.troubles().count();
    if arguments.json {
        let ok = troubles == 0;
        print_json(&Summary {
            ok,
            report: &report,
        })?;
    } else {
        print(&text(&report))?;
    }
    first_trouble(&report)
}

/// The first trouble as an error.
pub fn first_trouble(report: &Report) -> Result<()> {
    match report.troubles().next() {
        Some(first) => bail!("{}", first.text),
        None => Ok(()),
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::default();
    for finding in &report.findings {
        let verdict = match finding.verdict {
            Verdict::Fine => "ok",
            Verdict::Note => "note",
            Verdict::Trouble => "TROUBLE",
        };
        table.row(&[verdict, finding.subject, &finding.text]);
    }
    table.render("")
}
