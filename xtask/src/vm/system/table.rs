//! The tables of releases of Debian.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::vm::document::Document;

/// The place of the tables.
pub const DOCUMENT: Document = Document {
    path: "docs/reliability.md",
    begin: "<!-- begin of the systems -->\n",
    end: "<!-- end of the systems -->",
};
/// The steps of the script, in their order, and what they try.
const STEPS: [(&str, &str); 24] = [
    (
        "walk",
        "the commands of [install.md](install.md), literally, to the first relayed packet",
    ),
    ("rights", "rights of the daemon"),
    ("sandbox", "sandbox of the unit"),
    ("security", "`systemd-analyze security`, below 2.5"),
    ("store", "descriptors in systemd's store"),
    ("quiet", "traffic alone"),
    ("restart", "`systemctl restart`"),
    ("kill", "`kill -9`"),
    ("reload", "`systemctl reload`, another `max-peers`"),
    ("watched", "the new process reports to the watchdog"),
    (
        "refused",
        "`systemctl reload` with a wrong file, which is refused",
    ),
    ("upgrade", "`apt upgrade` to the next version"),
    ("roll-back", "back to the earlier package, as in install.md"),
    (
        "upgrade-by-hand",
        "the next package again, as in install.md",
    ),
    ("userspace", "a reload switches the fast path off"),
    (
        "userspace-restart",
        "`systemctl restart`, without fast path",
    ),
    ("userspace-kill", "`kill -9`, without fast path"),
    (
        "fast-path",
        "a reload to switch it on is refused, with the reason; a restart does it",
    ),
    (
        "stop",
        "`systemctl stop` leaves no interface, route, program, map or link",
    ),
    (
        "supervised",
        "systemd noticed the end of each process, and killed none",
    ),
    ("late", "boot without a network, which comes later"),
    ("again", "traffic after that"),
    ("remove", "`apt remove`, as in install.md"),
    ("purge", "`apt purge`, as in install.md"),
];

/// The names of all steps.
pub fn steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|(name, _)| *name)
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    is_ok: bool,
    detail: String,
}

/// What happened to the packets of one direction in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loss {
    step: String,
    /// How often the process was replaced.
    times: u64,
    direction: String,
    sent: u64,
    lost: u64,
    repeated: u64,
    overtaken: u64,
    /// The longest time between two arrivals, milliseconds.
    gap: u64,
}

/// The results of one release.
#[derive(Debug)]
pub struct Report {
    suite: &'static str,
    steps: BTreeMap<String, Step>,
    figures: BTreeMap<String, String>,
    losses: Vec<Loss>,
    /// Why the machine did not come to its end.
    failure: Option<String>,
    /// Seconds from the first boot to power-off.
    seconds: u64,
}

impl Report {
    /// Reads the lines of a log that the script prints: `step`, name, result, details; `figure`, name, value;
    /// `loss`, step, times, direction, and the numbers of [`Loss`].
    pub fn new(suite: &'static str, log: &str, failure: Option<String>, seconds: u64) -> Self {
        let mut report = Self {
            suite,
            steps: BTreeMap::new(),
            figures: BTreeMap::new(),
            losses: Vec::new(),
            failure,
            seconds,
        };
        for line in log.lines() {
            report.read(line.trim_end());
        }
        report
    }

    /// Reads a line; others than those of the script are of no interest.
    fn read(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "step" => {
                let mut words = rest.splitn(3, ' ');
                let name = words.next()?.to_owned();
                let is_ok = match words.next()? {
                    "ok" => true,
                    "failed" => false,
                    _ => return None,
                };
                let detail = words.next().unwrap_or_default().trim().to_owned();
                self.steps.insert(name, Step { is_ok, detail });
            }
            "figure" => {
                let (name, value) = rest.split_once(' ')?;
                self.figures.insert(name.to_owned(), value.to_owned());
            }
            "loss" => self.losses.push(loss(rest)?),
            _ => (),
        }
        Some(())
    }

    /// Whether every step was done and succeeded.
    pub fn is_green(&self) -> bool {
        let is_ok = |name| self.steps.get(name).is_some_and(|step: &Step| step.is_ok);
        self.failure.is_none() && steps().all(is_ok)
    }

    /// Returns one line for the terminal.
    pub fn summary(&self) -> String {
        let state = match (self.is_green(), &self.failure) {
            (true, _) => "green".to_owned(),
            (false, None) => "RED".to_owned(),
            (false, Some(failure)) => format!("RED: {failure}"),
        };
        format!("{}: {state} after {} s", self.suite, self.seconds)
    }

    fn figure(&self, name: &str) -> &str {
        self.figures.get(name).map_or("unknown", String::as_str)
    }

    fn cell(&self, name: &str) -> String {
        match self.steps.get(name) {
            Some(Step { is_ok, detail }) => {
                let result = if *is_ok { "ok" } else { "FAILED" };
                // A bar would begin another cell.
                let detail = detail.replace('|', "/");
                match detail.is_empty() {
                    true => result.to_owned(),
                    false => format!("{result}: {detail}"),
                }
            }
            None => "not done".to_owned(),
        }
    }
}

/// Reads a line about lost packets.
fn loss(text: &str) -> Option<Loss> {
    let mut words = text.split(' ');
    let step = words.next()?.to_owned();
    let times = words.next()?.parse().ok()?;
    let direction = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    Some(Loss {
        step,
        times,
        direction,
        sent: number()?,
        lost: number()?,
        repeated: number()?,
        overtaken: number()?,
        gap: number()?,
    })
}

/// Returns the tables as Markdown.
pub fn render(reports: &[Report]) -> String {
    let mut text = String::from("| |");
    for report in reports {
        let _ = write!(
            text,
            " {}, Linux {}, systemd {}, fast path {}: {} s |",
            report.suite,
            report.figure("kernel"),
            report.figure("systemd"),
            report.figure("path"),
            report.seconds
        );
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(reports.len()));
    for (name, title) in STEPS {
        let _ = write!(text, "| {title} |");
        for report in reports {
            let _ = write!(text, " {} |", report.cell(name));
        }
        text.push('\n');
    }
    text.push_str(
        "\n| under traffic | system | times | direction | sent | lost | repeated | overtaken | longest pause |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, title) in STEPS {
        for report in reports {
            for loss in report.losses.iter().filter(|loss| loss.step == name) {
                let _ = writeln!(
                    text,
                    "| {title} | {} | {} | {} | {} | {} | {} | {} | {} ms |",
                    report.suite,
                    loss.times,
                    loss.direction.replace('-', " "),
                    loss.sent,
                    loss.lost,
                    loss.repeated,
                    loss.overtaken,
                    loss.gap
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(log: &str) -> Report {
        Report::new("trixie", log, None, 300)
    }

    fn all() -> String {
        steps().map(|name| format!("step {name} ok\n")).collect()
    }

    #[test]
    fn a_release_is_green_when_every_step_was_done() {
        assert!(report(&all()).is_green());
        for name in steps() {
            let line = format!("step {name} ok\n");
            assert!(!report(&all().replace(&line, "")).is_green(), "{name}");
            let failed = format!("step {name} failed because\n");
            assert!(!report(&all().replace(&line, &failed)).is_green(), "{name}");
        }
        let dead = Report::new(
            "trixie",
            &all(),
            Some("the machine was not ready".to_owned()),
            3,
        );
        assert!(!dead.is_green());
        assert!(dead.summary().contains("RED: the machine"));
    }

    #[test]
    fn a_table_has_a_column_for_each_release() {
        let one =
            report("figure kernel 6.12\nfigure systemd 257.9-1\nstep store ok 12 descriptors\r\n");
        let other = report("step store failed a|b\n");
        let text = render(&[one, other]);
        let columns = |line: &str| line.matches('|').count();
        let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert!(lines.iter().all(|line| columns(line) == 4), "{text}");
        assert!(lines[0].contains("trixie, Linux 6.12, systemd 257.9-1, fast path unknown: 300 s"));
        let store = "| descriptors in systemd's store | ok: 12 descriptors | FAILED: a/b |";
        assert!(lines.contains(&store), "{text}");
    }

    #[test]
    fn a_table_has_a_line_for_each_direction() {
        let text = render(&[report(
            "loss restart 3 to-client 4000 1 2 3 250\nloss restart 3 to-host 4001 0 0 0 90\n",
        )]);
        let title = "`systemctl restart`";
        for line in [
            format!("| {title} | trixie | 3 | to client | 4000 | 1 | 2 | 3 | 250 ms |"),
            format!("| {title} | trixie | 3 | to host | 4001 | 0 | 0 | 0 | 90 ms |"),
        ] {
            assert!(text.lines().any(|other| other == line), "{text}");
        }
    }

    #[test]
    fn other_lines_are_of_no_interest() {
        let report = report(
            "step store\nstep store maybe\nfigure kernel\nloss restart 3 x 4000\nlosses\n\n",
        );
        assert!(report.steps.is_empty() && report.figures.is_empty() && report.losses.is_empty());
    }
}
