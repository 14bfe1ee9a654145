//! `teredo check`: whether the configuration would run on this host.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use super::{
    Start,
    output::{Table, print, print_json},
    start_runtime,
};
use crate::{
    check::{self, Access, Purpose, Report, Verdict},
    config::Config,
    plan,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    start: Start,
    /// Judge the configuration file alone, without a look at the host
    #[arg(long, conflicts_with_all = ["json", "fix", "verbose", "after_sunset"])]
    file_only: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show the safe changes of the host that end some of the findings, and make them until the next boot
    #[arg(long, conflicts_with = "json")]
    fix: bool,
    /// If the kernel refuses the XDP program, print its verifier's whole log
    #[arg(long)]
    verbose: bool,
}

/// The report with its summary.
#[derive(Serialize)]
struct Summary<'a> {
    /// Whether everything that the configuration asks for would run.
    ok: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Prints the findings. A finding that contradicts the configuration is an error.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Start { file, after_sunset } = &arguments.start;
    let config = file.load()?;
    if arguments.file_only {
        return print(&format!("{} is valid\n", file.path().display()));
    }
    let access = Access::of(&config, file.path());
    let purpose = Purpose {
        after_sunset: *after_sunset,
        is_thorough: true,
        access: Some(&access),
        has_api: false,
        inherits: false,
        program: None,
    };
    let runtime = start_runtime()?;
    let examination =
        || runtime.block_on(check::examine(&config, access.secrets.as_ref(), purpose));
    let mut report = examination();
    if arguments.fix && !report.fixes.is_empty() {
        for fix in &report.fixes {
            print(&format!("# {fix}\n"))?;
            let fixed = runtime.block_on(check::fix(fix));
            fixed.with_context(|| format!("{fix}"))?;
        }
        report = examination();
    }
    // A name server that does not answer must not delay the end.
    runtime.shutdown_background();
    if arguments.json {
        let ok = report.defects().next().is_none();
        print_json(&Summary {
            ok,
            report: &report,
        })?;
    } else {
        print(&text(&report))?;
        if arguments.verbose && !report.verifier_log.is_empty() {
            print(&format!(
                "\nThe verifier's log:\n{}\n",
                report.verifier_log.trim_end()
            ))?;
        }
    }
    match report.defects().next() {
        Some(first) => bail!("{}", first.text),
        None => Ok(()),
    }
}

/// Returns the first trouble as an error.
pub fn first_trouble(report: &Report) -> Result<()> {
    match report.troubles().next() {
        Some(first) => bail!("{}", first.text),
        None => Ok(()),
    }
}

/// Returns the first condition that keeps a start from succeeding at once, as an error.
pub fn first_required(report: &Report, config: &Config) -> Result<()> {
    let mut findings = report.findings.iter();
    let is_required = |kind| plan::is_required(config, kind);
    match findings.find(|finding| finding.condition.is_some_and(is_required)) {
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
            Verdict::Degraded => "DEGRADED",
            Verdict::Waiting => "WAITING",
            Verdict::Trouble => "TROUBLE",
        };
        table.row(&[verdict, finding.subject, &finding.text]);
    }
    table.render("")
}
