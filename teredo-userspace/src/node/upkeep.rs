//! The upkeep of the host: looks at the kernel's network, and the conditions that they find.
//!
//! A look takes place soon after the kernel reports a change, and at a slow pace besides. It runs beside
//! the packets, and rarely enough that it takes little of the processor's time however many routes the
//! kernel has.

use std::time::{Duration, Instant as Clock};

use teredo_common::time::Instant;
use tokio::task::JoinHandle;

use super::{clock, timer::Timer};
use crate::{
    condition::{Condition, Conditions, Kind, Transition},
    datapath::route::Routes,
    host::{LookError, Scope, Snapshot},
    metrics::Role,
    plan::{Notice, Reconciler},
};

/// The time for which changes are collected before a look.
const SETTLE: Duration = Duration::from_millis(20);
/// The shortest interval between two looks.
const SHORTEST: Duration = Duration::from_millis(100);
/// The interval between looks without changes, since the kernel does not report those of its settings.
const SLOW: Duration = Duration::from_secs(1);
/// A look that takes much of the processor's time is repeated after this many times of it, without changes. The time for
/// which it waited does not count: on a busy machine that says nothing about its cost.
const PATIENCE: u32 = 100;
/// As [`PATIENCE`], after changes.
const HASTE: u32 = 4;

/// The state of the upkeep.
#[derive(Debug)]
pub struct Upkeep {
    /// The last snapshot.
    pub snapshot: Snapshot,
    /// The time when the look for it began.
    pub snapshot_began: Clock,
    /// The part of the network that the next look covers.
    pub scope: Scope,
    pub reconciler: Reconciler,
    conditions: Conditions,
    look: Option<JoinHandle<Look>>,
    next: Instant,
    /// The earliest time of a look after a change.
    earliest: Instant,
    /// The processor's time that the last look took.
    took: Duration,
    timer: Timer,
    /// Why the last look failed.
    failure: Option<String>,
}

/// What a look found, when it began, and the processor's time that it took.
#[derive(Debug)]
struct Look {
    snapshot: Result<Snapshot, LookError>,
    began: Clock,
    took: Duration,
}

impl Look {
    /// Looks at the network.
    async fn at(source: &Routes, scope: &Scope) -> Self {
        let began = Clock::now();
        let (snapshot, took) = timed(Snapshot::read(source, scope)).await;
        Self {
            snapshot,
            began,
            took,
        }
    }
}

/// Does the work of a look, in a thread that does hardly anything else, and returns what it yields and the processor's time
/// that it took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let before = clock::of_this_thread();
    let outcome = work.await;
    (outcome, clock::of_this_thread().saturating_sub(before))
}

impl Upkeep {
    /// Returns the state before the first look, which is due. Needs a tokio runtime.
    pub fn new(scope: Scope) -> Self {
        let now = clock::now();
        Self {
            snapshot: Snapshot::default(),
            snapshot_began: Clock::now(),
            scope,
            reconciler: Reconciler::default(),
            conditions: Conditions::default(),
            look: None,
            next: now,
            earliest: now,
            took: Duration::ZERO,
            timer: Timer::new(),
            failure: None,
        }
    }

    /// Makes the next look take place soon, since something has changed.
    pub fn look_soon(&mut self) {
        self.look_after(SETTLE);
    }

    /// Makes the next look take place soon, since this daemon has changed something itself. It waits for no more than the
    /// time that a look takes: the reconciler sees to it that acts which do not last are rare.
    pub fn look_at_acts(&mut self) {
        let due = clock::now() + SETTLE.max(self.took);
        self.next = self.next.min(due);
    }

    /// Makes the next look take place after this time at the latest.
    pub fn look_after(&mut self, wait: Duration) {
        let due = (clock::now() + wait).max(self.earliest);
        self.next = self.next.min(due);
    }

    /// Waits for the next look and returns its outcome: whether there is a new snapshot. Cancelling loses
    /// nothing.
    pub async fn looked(&mut self, routes: &Routes) -> bool {
        if self.look.is_none() {
            self.timer.set(Some(self.next));
            self.timer.expired().await;
            let (source, scope) = (routes.clone(), self.scope.clone());
            self.look = Some(routes.spawn(async move { Look::at(&source, &scope).await }));
            // A change from now on may not be in the snapshot.
            self.next = clock::now() + SLOW;
        }
        let Some(look) = &mut self.look else {
            return false;
        };
        let outcome = look.await;
        self.look = None;
        // The runtime ends.
        let Ok(Look {
            snapshot,
            began,
            took,
        }) = outcome
        else {
            return false;
        };
        let now = clock::now();
        self.took = took;
        self.earliest = now + SHORTEST.max(took * HASTE);
        self.next = self
            .next
            .max(self.earliest)
            .min(now + SLOW.max(took * PATIENCE));
        match snapshot {
            Ok(snapshot) => {
                self.snapshot = snapshot;
                self.snapshot_began = began;
                self.failure = None;
                true
            }
            Err(error) => {
                self.failure = Some(format!("{:#}", anyhow::Error::from(error)));
                self.look_after(SHORTEST);
                false
            }
        }
    }

    /// Logs the observations of the reconciler.
    pub fn log_notices(&mut self) {
        for notice in self.reconciler.take_notices() {
            match notice {
                Notice::Lost(item) => {
                    tracing::warn!("{item} was removed by somebody else: it is put back");
                }
                Notice::Contested(item) => tracing::warn!(
                    "{item} is removed again and again by somebody else, and put back each time"
                ),
            }
        }
    }

    /// Sets the conditions that are true now, besides those of the upkeep itself, and logs those that
    /// have begun and ended, which it returns. `role` is a role of this node.
    pub fn set_conditions(
        &mut self,
        now: Instant,
        role: Role,
        mut conditions: Vec<Condition>,
    ) -> Transition {
        conditions.extend(self.reconciler.conditions(now));
        if let Some(failure) = &self.failure {
            conditions.push(Condition {
                kind: Kind::Resources,
                role,
                subject: "netlink".to_owned(),
                text: format!(
                    "the host cannot be looked at: {failure}; raise the limits of memory and open files of \
                     the service"
                ),
            });
        }
        let transition = self.conditions.replace(now, conditions);
        for Condition {
            kind, role, text, ..
        } in &transition.begun
        {
            tracing::warn!(condition = kind.name(), role = role.name(), "{text}");
        }
        for Condition {
            kind,
            role,
            subject,
            ..
        } in &transition.ended
        {
            let of = if subject.is_empty() {
                String::new()
            } else {
                format!(" of {subject}")
            };
            tracing::info!(
                condition = kind.name(),
                role = role.name(),
                "the condition {}{of} has ended",
                kind.name()
            );
        }
        transition
    }

    /// Returns the conditions that are true now.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_time_for_which_a_look_waits_does_not_put_off_the_next() {
        let wait = Duration::from_millis(200);
        // As on a machine whose processor is busy with something else.
        let (_, took) = timed(async { std::thread::sleep(wait) }).await;
        assert!(SHORTEST > took * HASTE, "{took:?}");
        let (_, took) = timed(tokio::time::sleep(wait)).await;
        assert!(SHORTEST > took * HASTE, "{took:?}");
    }
}
