//! The comparison of two reports, case by case.

use super::{CaseReport, Report, Spread};
use crate::cases::{Variant, Workload};

/// A variant in a case that both reports have.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The case.
    pub case: String,
    /// The variant.
    pub variant: Variant,
    /// The compared figure.
    pub figure: &'static str,
    /// The figure of the earlier report.
    pub before: Spread,
    /// The figure of the later report.
    pub after: Spread,
}

impl Pair {
    /// The later median divided by the earlier one.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.after.median / self.before.median
    }

    /// Whether every round of one report is above every round of the other.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.after.minimum > self.before.maximum || self.after.maximum < self.before.minimum
    }

    fn line(&self) -> String {
        let (unit, decimals) = match self.figure {
            "million/s" => (1e6, 3),
            _ => (1.0, 3),
        };
        let remark = if self.is_clear() {
            ""
        } else {
            "  within the spread"
        };
        format!(
            "  {:<18} {:<10} {:>24} {:>24} {:>7.3}{remark}\n",
            self.variant.title(),
            self.figure,
            self.before.text(unit, decimals),
            self.after.text(unit, decimals),
            self.ratio()
        )
    }
}

/// Pairs the figures of two reports: of each variant the ratio to the bare program, which depends least on
/// the machine's state, or else the rate.
#[must_use]
pub fn pairs(before: &Report, after: &Report) -> Vec<Pair> {
    let mut pairs = of(&before.cases, &after.cases);
    pairs.extend(of(&before.solicitations, &after.solicitations));
    pairs.extend(of(&before.tunnels, &after.tunnels));
    pairs.extend(of(&before.streams, &after.streams));
    for after in &after.losses {
        let same = |before: &&crate::loss::LossReport| {
            before.name == after.name && before.variant == after.variant
        };
        if let Some(before) = before.losses.iter().find(same) {
            pairs.push(Pair {
                case: format!("{}, without loss", after.name),
                variant: after.variant,
                figure: "million/s",
                before: before.lossless,
                after: after.lossless,
            });
        }
    }
    pairs
}

fn of<W: Workload>(before: &[CaseReport<W>], after: &[CaseReport<W>]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for after in after {
        let Some(before) = before
            .iter()
            .find(|before| before.part == after.part && before.name == after.name)
        else {
            continue;
        };
        for result in &after.results {
            let Some(earlier) = before.result(result.variant) else {
                continue;
            };
            let name = &after.name;
            let (figure, before, after) = match (earlier.of_bare, result.of_bare) {
                (Some(before), Some(after)) if result.variant != Variant::Bare => {
                    ("of bare", before, after)
                }
                _ => ("million/s", earlier.rate, result.rate),
            };
            pairs.push(Pair {
                case: name.clone(),
                variant: result.variant,
                figure,
                before,
                after,
            });
        }
    }
    pairs
}

/// The table of two reports, of which the first is the earlier one.
#[must_use]
pub fn table(before: &Report, after: &Report) -> String {
    let pairs = pairs(before, after);
    let mut text = format!(
        "\n{:<31} {:>24} {:>24} {:>7}\n",
        "compared with", "before", "now", "ratio"
    );
    let mut case = "";
    for pair in &pairs {
        if pair.case != case {
            case = &pair.case;
            text += &format!("{case}\n");
        }
        text += &pair.line();
    }
    if pairs.is_empty() {
        text += "  the two reports have no case in common\n";
    }
    if before.machine.line() != after.machine.line() {
        text += &format!(
            "The machines differ: {} before, {} now\n",
            before.machine.line(),
            after.machine.line()
        );
    }
    text
}
