//! Deadlines of peers, earliest first.

use std::{cmp::Reverse, collections::BinaryHeap};

use teredo_common::time::Instant;

/// A heap from which nothing is taken out of turn: deadlines that no longer hold are recognised by
/// the owner when they come up, or swept out when they are many.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Instant, u32)>>);

impl Timers {
    /// Adds a deadline for the entry at `index`.
    pub fn push(&mut self, deadline: Instant, index: u32) {
        self.0.push(Reverse((deadline, index)));
    }

    /// The earliest deadline and its entry.
    pub fn first(&self) -> Option<(Instant, u32)> {
        self.0.peek().map(|&Reverse(first)| first)
    }

    /// Takes the earliest deadline, if it has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, u32)> {
        self.first().filter(|&(deadline, _)| deadline <= now)?;
        self.0.pop().map(|Reverse(first)| first)
    }

    /// Sweeps out what `holds` denies when there are more than twice as many deadlines as
    /// `entries`; costs O(1) for each deadline added.
    pub fn compact(&mut self, entries: usize, holds: impl Fn(Instant, u32) -> bool) {
        if self.0.len() > 2 * entries + 64 {
            self.0
                .retain(|&Reverse((deadline, index))| holds(deadline, index));
        }
    }
}
