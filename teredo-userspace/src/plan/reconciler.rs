//! The reconciler: it compares a plan with the host, and decides on the acts that bring the host to the
//! plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use teredo_common::time::Instant;

use super::{Plan, item::Item};
use crate::condition::{Condition, Kind};

/// The first and the longest wait after a failure, and after the second loss of an item in a row. The
/// longest is short enough that the host is as planned within two seconds after the reason has gone.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(800)];
/// The first and the longest wait after the kernel has refused the XDP program, which costs more.
/// The reasons that can be seen from outside are part of the item, so they end the wait.
const PROGRAM_WAITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];
/// An item that is lost sooner after it was placed than this is contested by somebody else.
const CALM: Duration = Duration::from_secs(60);
/// The number of losses in a row from which an item is reported as contested.
const CONTESTED: u32 = 4;
/// The time after a loss for which a contest lasts: the next loss would have come.
const CONTEST: Duration = Duration::from_millis(1_000);

/// An act that changes the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sets an item up.
    Place(Item),
    /// Removes an item that is no longer wanted.
    Remove(Item),
}

/// An observation for the log. Each is reported once until the item was calm for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody else removed the item; it is placed again.
    Lost(Item),
    /// Somebody else removes the item again and again.
    Contested(Item),
}

/// The history of an item that is not there, or was not lately.
#[derive(Clone, Debug, Default)]
struct Trial {
    /// The failures in a row.
    failures: u32,
    /// The reason of the last failure, until it succeeds.
    error: Option<String>,
    /// The losses in a row.
    losses: u32,
    /// The time of the last loss.
    lost: Instant,
    /// The time of the last success.
    placed: Instant,
    /// The earliest time of the next attempt.
    next: Instant,
}

impl Trial {
    fn is_contested(&self, now: Instant) -> bool {
        self.losses >= CONTESTED && now.saturating_since(self.lost) < CONTEST
    }
}

/// The state of the reconciler.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// The items that this daemon has placed or found.
    placed: BTreeSet<Item>,
    trials: BTreeMap<Item, Trial>,
    notices: Vec<Notice>,
}

impl Reconciler {
    /// Returns the acts that bring the host nearer to the plan, in the order of dependence. The
    /// outcome of each is to be reported to [`Self::finish`], and the host to be looked at again
    /// when there were any. `is_held` returns whether the host has an item.
    pub fn acts(&mut self, now: Instant, plan: &Plan, is_held: impl Fn(&Item) -> bool) -> Vec<Act> {
        let unwanted = plan.unwanted.iter().filter(|item| is_held(item));
        self.placed.extend(unwanted.cloned());
        let plan = &*plan.items;
        let mut acts = self.removals(now, plan, &is_held);
        self.trials.retain(|item, trial| {
            plan.contains(item)
                || trial.error.is_some() && acts.contains(&Act::Remove(item.clone()))
        });
        for item in plan {
            if is_held(item) {
                self.note_held(now, item);
                continue;
            }
            self.note_missing(now, item);
            let is_due = self.trials.get(item).is_none_or(|trial| trial.next <= now);
            if is_due && !is_blocked(item, plan, &is_held) {
                acts.push(Act::Place(item.clone()));
            }
        }
        // A route is removed after another has taken its place.
        acts.sort_by_key(|act| matches!(act, Act::Remove(Item::Route { .. })));
        acts
    }

    /// Returns the removals of placed items that are not planned any more, dependent items first.
    fn removals(
        &mut self,
        now: Instant,
        plan: &[Item],
        is_held: &impl Fn(&Item) -> bool,
    ) -> Vec<Act> {
        self.placed
            .retain(|item| plan.contains(item) || is_held(item));
        let is_replaced = |item: &Item| plan.iter().any(|other| other.replaces(item));
        let unwanted = self.placed.iter().rev();
        let unwanted = unwanted.filter(|item| !plan.contains(item) && !is_replaced(item));
        let due =
            unwanted.filter(|item| self.trials.get(item).is_none_or(|trial| trial.next <= now));
        due.cloned().map(Act::Remove).collect()
    }

    fn note_held(&mut self, now: Instant, item: &Item) {
        self.placed.insert(item.clone());
        if let Some(trial) = self.trials.get_mut(item) {
            trial.failures = 0;
            trial.error = None;
            if now.saturating_since(trial.placed) >= CALM {
                self.trials.remove(item);
            }
        }
    }

    /// Records the loss of an item that was there.
    fn note_missing(&mut self, now: Instant, item: &Item) {
        if !self.placed.remove(item) {
            return;
        }
        let trial = self.trials.entry(item.clone()).or_default();
        trial.losses += 1;
        trial.lost = now;
        match trial.losses {
            1 => self.notices.push(Notice::Lost(item.clone())),
            CONTESTED => self.notices.push(Notice::Contested(item.clone())),
            _ => {}
        }
        // The first loss is repaired at once.
        let wait = match trial.losses {
            1 => Duration::ZERO,
            losses => backoff(losses - 1, WAITS),
        };
        trial.next = now + wait;
    }

    /// Records the outcome of an act; an error is a clause for the user.
    pub fn finish(&mut self, now: Instant, act: &Act, outcome: Result<(), String>) {
        match (act, outcome) {
            (Act::Place(item), Ok(())) => {
                self.placed.insert(item.clone());
                let trial = self.trials.entry(item.clone()).or_default();
                trial.placed = now;
                trial.failures = 0;
                trial.error = None;
                // If it does not last, the kernel accepted it in vain.
                trial.next = now + WAITS[0];
            }
            (Act::Remove(item), Ok(())) => {
                self.placed.remove(item);
                self.trials.remove(item);
            }
            (Act::Place(item) | Act::Remove(item), Err(error)) => {
                let trial = self.trials.entry(item.clone()).or_default();
                trial.failures += 1;
                trial.error = Some(error);
                let waits = match item {
                    Item::FastPath(_) => PROGRAM_WAITS,
                    _ => WAITS,
                };
                trial.next = now + backoff(trial.failures, waits);
            }
        }
    }

    /// Returns the time of the next attempt that waits, or of the end of a condition, if any is due
    /// after `now`.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let waiting = self.trials.iter().filter(|(item, trial)| {
            trial.error.is_some() || trial.losses > 0 && !self.placed.contains(item)
        });
        let contested = self
            .trials
            .values()
            .filter(|trial| trial.is_contested(now))
            .map(|trial| trial.lost + CONTEST);
        waiting.map(|(_, trial)| trial.next).chain(contested).min()
    }

    /// Iterates over the items that are in place.
    pub fn placed(&self) -> impl Iterator<Item = &Item> {
        self.placed.iter()
    }

    /// Returns the observations since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Returns the conditions of items that are missing or contested.
    pub fn conditions(&self, now: Instant) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (item, trial) in &self.trials {
            let mut add = |kind, text| {
                conditions.push(Condition {
                    kind,
                    role: item.role(),
                    subject: item.subject(),
                    text,
                });
            };
            if let Some(error) = &trial.error {
                add(item.kind(), error.clone());
            }
            if trial.is_contested(now) {
                add(
                    Kind::Contested,
                    format!(
                        "{item} is removed again and again by another program, and put back each time: \
                         let that program leave it alone"
                    ),
                );
            }
        }
        conditions
    }
}

/// Returns whether the item needs another that is planned, but missing: its tunnel, or the setting that
/// permits IPv6 there.
fn is_blocked(item: &Item, plan: &[Item], is_held: &impl Fn(&Item) -> bool) -> bool {
    let Some(needed) = item.tunnel() else {
        return false;
    };
    let is_setting = matches!(item, Item::Setting { .. });
    plan.iter().any(|other| {
        let is_needed = match other {
            Item::Tunnel { role, .. } => *role == needed,
            Item::Setting { role, setting, .. } => {
                !is_setting && *role == needed && setting.name == "disable_ipv6"
            }
            _ => false,
        };
        is_needed && !is_held(other)
    })
}

/// Returns the wait after this number of failures in a row, at least one: it doubles up to a limit.
fn backoff(failures: u32, [first, longest]: [Duration; 2]) -> Duration {
    let doubled = first.saturating_mul(1 << (failures - 1).min(16));
    doubled.min(longest)
}
