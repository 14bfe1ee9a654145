//! The table of kernels.

use std::fmt::Write as _;

use super::document::Document;

/// The place of the table.
pub const DOCUMENT: Document = Document {
    path: "docs/kernels.md",
    begin: "<!-- begin of the table -->\n",
    end: "<!-- end of the table -->",
};
/// The steps of a supported kernel, in the order of the columns.
const STEPS: [&str; 6] = [
    "load",
    "fixtures",
    "differential",
    "native",
    "generic",
    "devices",
];

/// One step of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    name: String,
    is_ok: bool,
    seconds: u64,
}

/// The results of one kernel.
#[derive(Debug)]
pub struct Row {
    /// The kernel's suite.
    pub suite: &'static str,
    /// The version of its package.
    pub version: String,
    /// Whether the product is to run on it. Otherwise it is to be refused with the true reason.
    pub is_supported: bool,
    /// The steps that were done.
    pub steps: Vec<Step>,
    /// Why the machine did not come to its end.
    pub failure: Option<String>,
    /// Seconds from boot to power-off.
    pub seconds: u64,
}

impl Row {
    /// Whether every step was done and succeeded.
    pub fn is_green(&self) -> bool {
        let wanted: &[&str] = match self.is_supported {
            true => &STEPS,
            false => &["refusal"],
        };
        self.failure.is_none() && wanted.iter().all(|name| self.result(name) == "ok")
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

    fn result(&self, name: &str) -> &'static str {
        match self.steps.iter().find(|step| step.name == name) {
            Some(step) if step.is_ok => "ok",
            Some(_) => "failed",
            None => "not done",
        }
    }
}

/// Reads the lines of a log that the script prints: `step`, name, result, seconds.
pub fn steps(text: &str) -> Vec<Step> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("step ")?.split(' ');
            Some(Step {
                name: words.next()?.to_owned(),
                is_ok: words.next()? == "ok",
                seconds: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// Returns the table as Markdown.
pub fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "| kernel | suite | loads | fixtures | differential | scene, native | scene, generic, one \
         arm | bonds, VLANs, VRFs | seconds |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.version, row.suite);
        if row.is_supported {
            for name in STEPS {
                let _ = write!(text, " {} |", row.result(name));
            }
        } else {
            let told = match row.result("refusal") {
                "ok" => "refused, with the reason",
                _ => "failed",
            };
            let _ = write!(text, " {told} |{}", " |".repeat(STEPS.len() - 1));
        }
        let _ = writeln!(text, " {} |", row.seconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(steps_done: &str) -> Row {
        Row {
            suite: "trixie",
            version: "6.12.117-1".to_owned(),
            is_supported: true,
            steps: steps(steps_done),
            failure: None,
            seconds: 90,
        }
    }

    const ALL: &str = "step load ok 2\nstep fixtures ok 40\nstep differential ok 20\n\
                       step native ok 12\nstep generic ok 12\nstep devices ok 30\n";

    #[test]
    fn a_kernel_is_green_when_every_step_was_done() {
        assert!(row(ALL).is_green());
        assert!(!row(&ALL.replace("native ok", "native failed")).is_green());
        assert!(!row("step load ok 2\n").is_green());
        let mut dead = row(ALL);
        dead.failure = Some("the machine was not ready".to_owned());
        assert!(!dead.is_green());
        assert!(dead.summary().contains("RED: the machine"));
    }

    #[test]
    fn an_old_kernel_is_green_when_it_is_refused() {
        let mut old = row("step refusal ok 3\n");
        old.is_supported = false;
        assert!(old.is_green());
        assert!(render(&[old]).contains("| refused, with the reason |"));
    }

    #[test]
    fn a_table_has_a_column_for_each_step() {
        let table = render(&[row(&ALL.replace("generic ok", "generic failed"))]);
        let columns = |line: &str| line.matches('|').count();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines.iter().all(|line| columns(line) == columns(lines[0])));
        let expected = "| 6.12.117-1 | trixie | ok | ok | ok | ok | failed | ok | 90 |";
        assert_eq!(lines[2], expected);
    }

    #[test]
    fn broken_lines_are_no_steps() {
        assert_eq!(
            steps("step load ok\n\nstep native failed x\nload ok 2\n"),
            []
        );
    }
}
