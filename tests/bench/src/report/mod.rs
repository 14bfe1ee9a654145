//! The results: as a table, as JSON, and compared with the limits.

pub mod case;
pub mod compare;
pub mod document;
pub mod limits;
pub mod plot;
pub mod spread;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    cases::{CLIENTS, Case, Direction, Solicitations, Stream, Tunnel, Variant},
    churn,
    loss::LossReport,
    machine::Machine,
    memory::Memory,
    test_run::Cost,
};

pub use case::{CaseReport, Series};
pub use limits::{Criterion, Limits};
pub use spread::Spread;

/// The rounds of the XDP program alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestRunReport {
    /// The direction of the packets.
    pub direction: Direction,
    /// Number of clients that took turns.
    pub clients: u32,
    /// Nanoseconds per packet.
    pub nanoseconds: Spread,
}

impl TestRunReport {
    /// Summarises rounds of the same direction and number of clients.
    #[must_use]
    pub fn of(costs: &[Cost]) -> Option<Self> {
        let first = costs.first()?;
        Some(Self {
            direction: first.direction,
            clients: first.clients,
            nanoseconds: Spread::of(costs.iter().map(|cost| cost.nanoseconds))?,
        })
    }

    /// The line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "XDP program alone, {}, {} clients: {} ns/packet",
            self.direction.word(),
            self.clients,
            self.nanoseconds.text(1.0, 0)
        )
    }
}

/// The name of the format.
const FORMAT: &str = "teredo-bench";
/// The version of the format, which changes when a field changes its meaning or goes.
const VERSION: u32 = 2;
/// What the fields mean, for readers of the file.
const LEGEND: &str = "Rates in packets per second (streams: kilobytes per second) of the time that the \
    core was available. of_bare and of_miredo: rate divided by that of the bare XDP redirect \
    (solicitations: XDP_TX), or of Miredo, in the same round. cpu_nanoseconds: CPU time per packet \
    (streams: kilobyte), for variants that run inline with the generator that beyond the variant \
    \"none\". samples: one for each round. lossless: packets per second without loss, by bisection \
    (RFC 2544). latency: nanoseconds from generator to sink at half of that rate. Memory in octets.";

/// The complete results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// "teredo-bench".
    pub format: String,
    /// The version of the format.
    pub version: u32,
    /// What the fields mean.
    pub legend: String,
    /// The program's revision in the version control, if it is known.
    pub revision: Option<String>,
    /// The command line.
    pub command: Vec<String>,
    /// Seconds since 1970 at the start.
    pub time: u64,
    /// The machine.
    pub machine: Machine,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Rounds of each case.
    pub rounds: usize,
    /// Parts that this machine cannot measure, with the reasons.
    pub skipped: Vec<String>,
    /// The XDP program alone.
    pub test_runs: Vec<TestRunReport>,
    /// The XDP program alone, while routes change.
    pub churn: Vec<churn::Cost>,
    /// Packets per second through the relays.
    pub cases: Vec<CaseReport<Case>>,
    /// Packets per second without loss, and latency.
    pub losses: Vec<LossReport>,
    /// Solicitations per second that servers answer.
    pub solicitations: Vec<CaseReport<Solicitations>>,
    /// Packets per second through clients.
    pub tunnels: Vec<CaseReport<Tunnel>>,
    /// TCP through clients, in kilobytes instead of packets.
    pub streams: Vec<CaseReport<Stream>>,
    /// Memory with many clients.
    pub memory: Vec<Memory>,
    /// The limits.
    pub criteria: Vec<Criterion>,
}

impl Report {
    /// Makes a report without measurements.
    ///
    /// # Errors
    ///
    /// Fails when the machine cannot be examined.
    pub fn new(time: Duration, rounds: usize) -> Result<Self> {
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            legend: LEGEND.to_owned(),
            revision: revision(),
            command: std::env::args().skip(1).collect(),
            time: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            machine: Machine::this()?,
            seconds: time.as_secs_f64(),
            rounds,
            skipped: Vec::new(),
            test_runs: Vec::new(),
            churn: Vec::new(),
            cases: Vec::new(),
            losses: Vec::new(),
            solicitations: Vec::new(),
            tunnels: Vec::new(),
            streams: Vec::new(),
            memory: Vec::new(),
            criteria: Vec::new(),
        })
    }

    /// Reads a report that was saved.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, or is no report of this version.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            format: String,
            #[serde(default)]
            version: u32,
        }
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let wrong = || format!("{} is no report of the benchmark", path.display());
        let head: Head = serde_json::from_str(&text).with_context(wrong)?;
        ensure!(head.format == FORMAT, wrong());
        ensure!(
            head.version == VERSION,
            "{} has version {} of the format, this program needs {VERSION}: measure again with \
             the program of that time, or compare by hand",
            path.display(),
            head.version
        );
        serde_json::from_str(&text).with_context(wrong)
    }

    /// Compares the results with the limits.
    ///
    /// # Errors
    ///
    /// Fails when the machine cannot be examined.
    pub fn conclude(&mut self) -> Result<()> {
        self.machine.conclude()?;
        self.criteria = Vec::new();
        for direction in Direction::ALL {
            let case = Case::demanding(direction);
            if let Some(report) = self.cases.iter().find(|report| report.case == case) {
                let limits = Limits::RELAY;
                self.criteria.extend(limits.hold_against(report));
            }
        }
        let usual = self.solicitations.iter();
        for report in usual.filter(|report| !report.case.are_scattered) {
            self.criteria.extend(Limits::SERVER.hold_against(report));
        }
        for report in &self.tunnels {
            self.criteria.extend(Limits::CLIENT.hold_against(report));
        }
        for report in &self.streams {
            self.criteria.extend(Limits::CLIENT.hold_against(report));
        }
        for memory in &self.memory {
            if memory.variant == Variant::Xdp {
                self.criteria.extend(limits::of_memory(memory));
            }
        }
        Ok(())
    }

    /// All tables.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            text += &case.table();
        }
        if !self.losses.is_empty() {
            text += &(LossReport::heading() + "\n");
        }
        for loss in &self.losses {
            text += &(loss.line() + "\n");
        }
        for test_run in &self.test_runs {
            text += &(test_run.line() + "\n");
        }
        for line in self.churn_lines() {
            text += &(line + "\n");
        }
        for case in &self.solicitations {
            text += &case.table();
        }
        for case in &self.tunnels {
            text += &case.table();
        }
        for case in &self.streams {
            text += &case.table();
        }
        text + &self.conclusion()
    }

    /// The lines about the limits and the machine.
    #[must_use]
    pub fn conclusion(&self) -> String {
        let mut text = String::from("\n");
        for memory in &self.memory {
            text += &format!(
                "{}, {} clients: {:.1} MiB resident, {:.1} MiB of maps\n",
                memory.variant.title(),
                super::memory::CLIENTS,
                mebibytes(memory.resident),
                mebibytes(memory.maps)
            );
        }
        for criterion in &self.criteria {
            text += &criterion.line();
        }
        for reason in &self.skipped {
            text += &format!("skipped: {reason}\n");
        }
        text + &self.machine.text()
    }

    /// The lines of the table of costs during changes: one for each kind and rate, compared with the cost
    /// without changes in the same round.
    #[must_use]
    pub fn churn_lines(&self) -> Vec<String> {
        let of = |kind: churn::Kind, rate: u32| {
            let costs = self.churn.iter();
            costs.filter(move |cost| cost.kind == kind && cost.rate == rate)
        };
        let line = |kind: churn::Kind, rate| {
            let costs = Spread::of(of(kind, rate).map(|cost| cost.nanoseconds))?;
            let changes = Spread::of(of(kind, rate).map(|cost| cost.changes))?;
            let rounds = of(kind, rate).zip(of(kind, 0));
            let ratios = rounds.map(|(cost, still)| cost.nanoseconds / still.nanoseconds);
            Some(format!(
                "XDP program alone, {} clients, {}, {:.0} a second: {} ns/packet ({:+.1} %)",
                CLIENTS[1],
                kind.title(),
                changes.median,
                costs.text(1.0, 0),
                (Spread::of(ratios)?.median - 1.0) * 100.0,
            ))
        };
        let rates = |kind| churn::RATES.map(|rate| line(kind, rate));
        let lines = churn::Kind::ALL.into_iter().flat_map(rates);
        lines.flatten().collect()
    }

    /// Writes the report to `directory`: under a name of its own, as `latest.json`, and its curves as
    /// pictures beside it.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(self)?;
        fs::create_dir_all(directory)
            .with_context(|| format!("make the directory {}", directory.display()))?;
        let path = directory.join(format!("bench-{}.json", self.time));
        for path in [&path, &directory.join("latest.json")] {
            fs::write(path, &text).with_context(|| format!("write {}", path.display()))?;
        }
        for (name, picture) in plot::curves(self) {
            let path = directory.join(name);
            fs::write(&path, picture).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(path)
    }
}

/// The revision of the sources that this program was probably made from.
fn revision() -> Option<String> {
    let git = std::process::Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
        ])
        .output();
    let output = git.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Octets in units of 2^20.
#[must_use]
pub fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}
