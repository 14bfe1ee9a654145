//! Conditions: the named ways in which a role does not do its whole job.
//!
//! A condition shows for as long as it is true, and ends by itself. The command `status`, the health
//! pages, the metrics and the log all show the same set.

mod kind;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use teredo_common::time::Instant;

use crate::metrics::Role;
pub use kind::Kind;

/// The severity of a condition.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The role works, but slower or not completely.
    Degraded,
    /// The role does not do its job.
    Down,
}

/// A condition that is true now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its kind.
    pub kind: Kind,
    /// The role that it concerns.
    pub role: Role,
    /// The interface, address, prefix or file that it concerns. With kind and role it identifies the
    /// condition.
    pub subject: String,
    /// A sentence for the user: the reason and the remedy.
    pub text: String,
}

/// A condition with the time since when it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// The condition.
    pub condition: Condition,
    /// The beginning.
    pub since: Instant,
}

/// The conditions that are true now.
#[derive(Debug, Default)]
pub struct Conditions(BTreeMap<(Role, Kind, String), Lasting>);

/// The difference between two sets of conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// The conditions that have begun.
    pub begun: Vec<Condition>,
    /// The conditions that have ended.
    pub ended: Vec<Condition>,
}

impl Conditions {
    /// Replaces the set. A condition that was true before keeps its beginning and gets its new text.
    pub fn replace(&mut self, now: Instant, conditions: Vec<Condition>) -> Transition {
        let mut old = std::mem::take(&mut self.0);
        let mut transition = Transition::default();
        for condition in conditions {
            let key = (condition.role, condition.kind, condition.subject.clone());
            if self.0.contains_key(&key) {
                continue;
            }
            let since = match old.remove(&key) {
                Some(before) => before.since,
                None => {
                    transition.begun.push(condition.clone());
                    now
                }
            };
            self.0.insert(key, Lasting { condition, since });
        }
        transition.ended = old.into_values().map(|lasting| lasting.condition).collect();
        transition
    }

    /// Iterates over the conditions, by role and kind.
    pub fn iter(&self) -> impl Iterator<Item = &Lasting> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn condition(kind: Kind, text: &str) -> Condition {
        Condition {
            kind,
            role: Role::Relay,
            subject: "eth0".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_documentation_describes_each_kind() {
        const TEXT: &str = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/conditions.md"
        ));
        let rows = TEXT.lines().filter(|line| line.starts_with("| `"));
        let described: Vec<_> = rows
            .map(|row| {
                let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
                [1, 0].map(|skipped| cells.nth(skipped).unwrap_or_default())
            })
            .collect();
        let kinds: Vec<_> = Kind::ALL
            .iter()
            .map(|kind| match kind.severity() {
                Severity::Degraded => [kind.name(), "degraded"],
                Severity::Down => [kind.name(), "down"],
            })
            .collect();
        assert_eq!(described, kinds, "in this order, with their severities");
    }

    #[test]
    fn a_condition_begins_once_and_keeps_its_beginning() {
        let mut conditions = Conditions::default();
        let start = Instant::ZERO + Duration::from_secs(5);
        let first = condition(Kind::FastPathOff, "no program");
        let transition = conditions.replace(start, vec![first.clone(), first.clone()]);
        assert_eq!(transition.begun, [first]);
        let second = condition(Kind::FastPathOff, "still no program");
        let other = condition(Kind::Route, "no route");
        let later = start + Duration::from_secs(9);
        let transition = conditions.replace(later, vec![second.clone(), other.clone()]);
        assert_eq!(transition.begun, [other]);
        assert!(transition.ended.is_empty());
        let lasting: Vec<_> = conditions.iter().collect();
        assert_eq!(lasting.len(), 2);
        assert!(
            lasting
                .iter()
                .any(|lasting| lasting.since == start && lasting.condition == second)
        );
        let transition = conditions.replace(later, Vec::new());
        assert_eq!(transition.ended.len(), 2);
        assert_eq!(conditions.iter().count(), 0);
    }
}
