//! The days on which roles end.

use std::time::SystemTime;

use super::Report;
use crate::{
    config::Config,
    sunset::{Phase, phase},
};

/// Examines whether a role's day has come, or comes soon (requirement Z-03).
pub fn examine(config: &Config, now: SystemTime, is_over_bearable: bool, report: &mut Report) {
    let relay = config.relay.as_ref().and_then(|relay| relay.sunset);
    let server = config.server.as_ref().and_then(|server| server.sunset);
    for (role, date) in [("relay", relay), ("server", server)] {
        let Some(date) = date else {
            continue;
        };
        match phase(date, now) {
            Phase::Far => report.fine("sunset", format!("the {role} ends on {date}")),
            Phase::Near { days } => {
                report.note(
                    "sunset",
                    format!("the {role} ends on {date}, in {days} days"),
                );
            }
            Phase::Over if is_over_bearable => {
                report.note("sunset", format!("the {role} was to end on {date}"));
            }
            Phase::Over => {
                let text = format!(
                    "the {role} was to end on {date}: remove {role}.sunset or set a later date, or \
                     start with --after-sunset"
                );
                report.trouble("sunset", text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        time::{Duration, UNIX_EPOCH},
    };

    use super::*;
    use crate::{
        check::{Verdict, memory::Memory},
        sunset::Date,
    };

    #[test]
    fn z03_nobody_starts_after_the_day_unless_told() {
        let text = "[relay]\nsunset = \"2030-06-30\"";
        let config = Config::parse(text, Path::new("test")).unwrap();
        let day: Date = "2030-06-30".parse().unwrap();
        let midnight = UNIX_EPOCH + Duration::from_secs(day.timestamp());
        let before = |days: u64| midnight - Duration::from_secs(days * 86_400);
        for (now, is_over_bearable, expected) in [
            (before(91), false, Verdict::Fine),
            (before(90), false, Verdict::Note),
            (before(0), false, Verdict::Trouble),
            (before(0), true, Verdict::Note),
        ] {
            let mut report = Report::new(Memory::of(&config));
            examine(&config, now, is_over_bearable, &mut report);
            let [finding] = &*report.findings else {
                panic!("{:?}", report.findings);
            };
            assert_eq!(finding.verdict, expected, "{finding:?}");
        }
    }
}
