//! The results: as a table and as JSON.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{flood::Attack, people::Newcomer, plot, target::State};
use crate::machine::Machine;

/// Some of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Number of all.
    pub of: u64,
    /// Number of those that arrived.
    pub arrived: u64,
}

impl Count {
    /// The share that arrived, in percent; all of nothing.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.of == 0 {
            return 100.0;
        }
        100.0 * self.arrived as f64 / self.of as f64
    }
}

/// The results of one attack at one rate.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The attack.
    #[serde(flatten)]
    pub attack: Attack,
    /// The intended rate, in packets per second.
    pub intended: u32,
    /// The rate, in packets per second.
    pub rate: f64,
    /// Packets of trusted clients.
    pub trusted: Count,
    /// Newcomers, and those that got a packet.
    pub new: Count,
    /// Every newcomer.
    pub newcomers: Vec<Newcomer>,
    /// Share of a core that the daemon used.
    pub cpu: f64,
    /// Memory of the daemon and its maps at the end, in octets.
    pub memory: u64,
    /// Frames per second that the host sent to machines that are not honest.
    pub side_effects: f64,
    /// Frames and packets that were dropped or passed to the daemon per second, by reason.
    pub frames: BTreeMap<String, f64>,
}

impl Point {
    /// Computes the results from the counters before and after.
    #[must_use]
    pub fn between(
        attack: Attack,
        intended: u32,
        before: &State,
        after: &State,
        newcomers: Vec<Newcomer>,
    ) -> Self {
        let seconds = (after.at - before.at).as_secs_f64();
        let frames = after.frames.iter().filter_map(|(reason, count)| {
            let earlier = before.frames.get(reason).copied().unwrap_or_default();
            let rate = count.saturating_sub(earlier) as f64 / seconds;
            (rate >= 1.0).then(|| (reason.clone(), rate.round()))
        });
        let arrived = newcomers.iter().filter(|new| new.seconds.is_some());
        Self {
            attack,
            intended,
            rate: (after.attack - before.attack) as f64 / seconds,
            trusted: Count {
                of: after.trusted.of - before.trusted.of,
                arrived: after.trusted.arrived - before.trusted.arrived,
            },
            new: Count {
                of: newcomers.len() as u64,
                arrived: arrived.count() as u64,
            },
            cpu: after.cpu.since(&before.cpu).as_secs_f64() / seconds,
            memory: after.memory,
            side_effects: (after.side_effects - before.side_effects) as f64 / seconds,
            frames: frames.collect(),
            newcomers,
        }
    }

    /// The newcomers with this time to answer.
    #[must_use]
    pub fn at_distance(&self, round_trip: u64) -> Count {
        let near = self.newcomers.iter();
        let near = near.filter(|new| new.round_trip == round_trip);
        Count {
            of: near.clone().count() as u64,
            arrived: near.filter(|new| new.seconds.is_some()).count() as u64,
        }
    }

    /// The three most frequent reasons, with their rates in thousands.
    fn fates(&self) -> String {
        let mut reasons: Vec<_> = self.frames.iter().collect();
        reasons.sort_by(|one, other| other.1.total_cmp(one.1));
        let reasons = reasons.iter().take(3);
        let texts = reasons.map(|(reason, rate)| format!("{reason} {:.0}k", *rate / 1e3));
        texts.collect::<Vec<_>>().join(", ")
    }
}

/// Heading of the lines of points.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<15} {:<9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>7}  most frequent fates, per second",
        "attack", "sources", "packets/s", "trusted %", "new %", "100 ms", "300 ms", "CPU %", "MiB"
    )
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:<15} {:<9} {:>9.0} {:>9.2} {:>7.1} {:>7.1} {:>7.1} {:>6.0} {:>7.1}  {}",
            self.attack.packets.word(),
            self.attack.sources.word(),
            self.rate,
            self.trusted.percent(),
            self.new.percent(),
            self.at_distance(100).percent(),
            self.at_distance(300).percent(),
            100.0 * self.cpu,
            self.memory as f64 / f64::from(1 << 20),
            self.fates()
        )
    }
}

/// The points of one configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// What distinguishes it from others, such as "defence off".
    pub label: String,
    /// The measurements.
    pub points: Vec<Point>,
}

/// The complete results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// The configurations.
    pub curves: Vec<Curve>,
}

impl Report {
    /// Writes the report to `directory`, as JSON and as a picture.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        fs::create_dir_all(directory)
            .with_context(|| format!("make the directory {}", directory.display()))?;
        let path = directory.join(format!("attack-{now}.json"));
        let picture = path.with_extension("svg");
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))?;
        let series: Vec<(&str, &[Point])> = self
            .curves
            .iter()
            .map(|curve| (curve.label.as_str(), curve.points.as_slice()))
            .collect();
        fs::write(&picture, plot::draw(&series))
            .with_context(|| format!("write {}", picture.display()))?;
        Ok(path)
    }
}
