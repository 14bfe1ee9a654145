//! The recorded figures, and their margins.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{HostReport, kernel::Size, time::Time};
use crate::report::Spread;

/// The figures of the last record.
const RECORDED: &str = include_str!("recorded.txt");
/// The file with them.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guard/recorded.txt");
const HEADING: &str = "\
# The work of the XDP program, as `cargo xtask bench --guard --record` has written it.
# For a host: instructions loaded, octets compiled, octets of stack; instructions that the verifier followed.
# For a packet: instructions executed, look-ups in maps, calls of other helpers.
# For a time: thousandths of the reference program's.
";
/// The row of the program itself.
const PROGRAM: &str = "program";
/// The row of the verifier's work on it.
const VERIFIER: &str = "verifier";

/// Names of figures, with the margins within which they may exceed the record: a share, and a number.
/// Another compiler or kernel makes a little more or less of the same source.
const OF_PROGRAM: [(&str, f64, f64); 3] = [
    ("instructions loaded", 0.5, 0.0),
    ("octets compiled", 0.5, 0.0),
    ("octets of stack", 0.0, 64.0),
];
/// Kernels differ in what they remember of a state. Code that is followed for two states instead of one doubles the number.
const OF_VERIFIER: [(&str, f64, f64); 1] = [("instructions followed", 0.5, 0.0)];
const OF_PACKET: [(&str, f64, f64); 3] = [
    ("instructions executed", 0.2, 10.0),
    ("look-ups", 0.0, 1.0),
    ("calls of helpers", 0.0, 1.0),
];

const OF_TIME: [(&str, f64, f64); 1] = [("thousandths of the reference program's time", 1.0, 0.0)];
/// The host of times.
pub const TIME: &str = "time";

/// Figures by host and packet.
pub type Figures = BTreeMap<(String, String), [u64; 3]>;

/// The figures of these reports.
#[must_use]
pub fn figures(reports: &[HostReport]) -> Figures {
    let mut figures = Figures::new();
    for report in reports {
        let row = |name: &str| (report.host.to_owned(), name.to_owned());
        let Size {
            translated,
            compiled,
            verified,
            stack,
        } = &report.size;
        let stack = stack.iter().copied().map(u64::from).sum();
        let size = [u64::from(*translated), u64::from(*compiled), stack];
        figures.insert(row(PROGRAM), size);
        figures.insert(row(VERIFIER), [u64::from(*verified), 0, 0]);
        for packet in &report.packets {
            let work = &packet.work;
            let work = [work.instructions, work.lookups, work.helpers];
            figures.insert(row(packet.packet), work);
        }
    }
    figures
}

/// A ratio in thousandths.
#[must_use]
pub fn permille(ratio: Spread) -> u64 {
    (ratio.median * 1000.0).round() as u64
}

fn times_as_figures(times: &[Time]) -> Figures {
    let rows = times.iter().map(|time| {
        let row = (TIME.to_owned(), time.name.clone());
        (row, [permille(time.ratio), 0, 0])
    });
    rows.collect()
}

/// Returns a sentence for each figure that exceeds the record by more than its margin, and for each row
/// that only one of the two has.
///
/// # Errors
///
/// Fails when the record is damaged.
pub fn check(reports: &[HostReport]) -> Result<Vec<String>> {
    let (_, recorded) = recorded()?;
    Ok(compare(&recorded, &figures(reports)))
}

/// Checks times as [`check`] does counts. They depend on the machine.
///
/// # Errors
///
/// Fails when the record is damaged.
pub fn check_times(times: &[Time]) -> Result<Vec<String>> {
    let (recorded, _) = recorded()?;
    Ok(compare(&recorded, &times_as_figures(times)))
}

/// The recorded times, and the recorded counts.
fn recorded() -> Result<(Figures, Figures)> {
    let rows = parse(RECORDED)?.into_iter();
    Ok(rows.partition(|((host, _), _)| host == TIME))
}

/// Writes these figures as the record of the source tree.
///
/// # Errors
///
/// Fails when the file cannot be written.
pub fn write(reports: &[HostReport], times: &[Time]) -> Result<&'static Path> {
    let mut text = HEADING.to_owned();
    let mut all = figures(reports);
    all.extend(times_as_figures(times));
    for ((host, row), [a, b, c]) in all {
        text += &format!("{host:<28} {row:<24} {a:>6} {b:>6} {c:>4}\n");
    }
    let path = Path::new(FILE);
    fs::write(path, text).with_context(|| format!("write {FILE}"))?;
    Ok(path)
}

/// Returns how much each executed or loaded instruction count differs from the record, for the table.
#[must_use]
pub fn change(host: &str, row: &str, now: u64) -> Option<f64> {
    let recorded = parse(RECORDED).ok()?;
    let [before, ..] = recorded.get(&(host.to_owned(), row.to_owned()))?;
    Some(now as f64 / *before as f64 - 1.0)
}

fn parse(text: &str) -> Result<Figures> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let [host, row, a, b, c] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("\"{line}\" is no row of the record");
        };
        let figures = [a.parse()?, b.parse()?, c.parse()?];
        Ok(((host.to_owned(), row.to_owned()), figures))
    });
    rows.collect()
}

fn compare(recorded: &Figures, now: &Figures) -> Vec<String> {
    let mut faults = Vec::new();
    for ((host, row), figures) in now {
        let Some(before) = recorded.get(&(host.clone(), row.clone())) else {
            faults.push(format!("{host}, {row}: not recorded"));
            continue;
        };
        let names = match (host.as_str(), row.as_str()) {
            (TIME, _) => OF_TIME.as_slice(),
            (_, PROGRAM) => &OF_PROGRAM,
            (_, VERIFIER) => &OF_VERIFIER,
            _ => &OF_PACKET,
        };
        for ((name, share, number), (figure, before)) in
            names.iter().zip(figures.iter().zip(before))
        {
            let most = (*before as f64 * (1.0 + share) + number).floor();
            if *figure as f64 > most {
                faults.push(format!(
                    "{host}, {row}: {figure} {name}, recorded {before}, at most {most}"
                ));
            }
        }
    }
    let gone = recorded.keys().filter(|row| !now.contains_key(*row));
    faults.extend(gone.map(|(host, row)| format!("{host}, {row}: recorded, but not measured")));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures_of(rows: &[(&str, [u64; 3])]) -> Figures {
        let rows = rows.iter();
        rows.map(|(row, figures)| (("relay".to_owned(), (*row).to_owned()), *figures))
            .collect()
    }

    #[test]
    fn figures_within_their_margins_pass_and_others_are_named() {
        let recorded = figures_of(&[
            ("decap", [600, 5, 3]),
            ("program", [5000, 20_000, 400]),
            ("verifier", [30_000, 0, 0]),
        ]);
        let same = compare(&recorded, &recorded);
        assert_eq!(same, Vec::<String>::new());
        let more = figures_of(&[
            ("decap", [730, 6, 4]),
            ("program", [7500, 30_000, 464]),
            ("verifier", [45_000, 0, 0]),
        ]);
        assert_eq!(compare(&recorded, &more), Vec::<String>::new());
        let most = figures_of(&[
            ("decap", [731, 7, 5]),
            ("program", [7501, 30_001, 465]),
            ("verifier", [45_001, 0, 0]),
        ]);
        assert_eq!(compare(&recorded, &most).len(), 7);
    }

    #[test]
    fn rows_that_only_one_has_are_named() {
        let one = figures_of(&[("decap", [1, 1, 1])]);
        let other = figures_of(&[("encap", [1, 1, 1])]);
        assert_eq!(compare(&one, &other).len(), 2);
    }

    #[test]
    fn the_record_of_the_source_tree_is_intact() {
        let recorded = parse(RECORDED).unwrap();
        assert!(recorded.contains_key(&("relay".to_owned(), "decap".to_owned())));
    }
}
