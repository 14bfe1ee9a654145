//! Deadlines of peers, earliest first.

use std::{cmp::Reverse, collections::BinaryHeap};

use teredo_common::time::Instant;

/// Deadlines that tolerate delay are rounded up to a multiple of this (2^28 ns, a quarter of a
/// second), so that many peers do not wake the daemon one by one.
const COARSE: u64 = 1 << 28;

/// Rounds up a deadline that tolerates delay.
pub fn coarse(deadline: Instant) -> Instant {
    let nanoseconds = deadline.as_nanos();
    Instant::from_nanos(nanoseconds.saturating_add(COARSE - 1) & !(COARSE - 1))
}

/// A heap of deadlines. Those that no longer hold stay in it until the owner recognises them when
/// they come up, or sweeps them out when there are many.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Instant, u32)>>);

impl Timers {
    /// Adds a deadline for the entry at `index`.
    pub fn push(&mut self, deadline: Instant, index: u32) {
        self.0.push(Reverse((deadline, index)));
    }

    /// Returns the earliest deadline and its entry.
    pub fn first(&self) -> Option<(Instant, u32)> {
        self.0.peek().map(|&Reverse(first)| first)
    }

    /// Removes and returns the earliest deadline, if it has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, u32)> {
        self.first().filter(|&(deadline, _)| deadline <= now)?;
        self.0.pop().map(|Reverse(first)| first)
    }

    /// Removes the deadlines for which `holds` is false when there are more than twice as many
    /// deadlines as `entries`; costs O(1) for each deadline added.
    pub fn compact(&mut self, entries: usize, holds: impl Fn(Instant, u32) -> bool) {
        if self.0.len() > 2 * entries + 64 {
            self.0
                .retain(|&Reverse((deadline, index))| holds(deadline, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: u64) -> Instant {
        Instant::from_nanos(nanoseconds)
    }

    #[test]
    fn earliest_first_and_not_before_time() {
        let mut timers = Timers::default();
        for (deadline, index) in [(30, 3), (10, 1), (20, 2)] {
            timers.push(at(deadline), index);
        }
        assert_eq!(timers.first(), Some((at(10), 1)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(20)), Some((at(10), 1)));
        assert_eq!(timers.pop_due(at(20)), Some((at(20), 2)));
        assert_eq!(timers.pop_due(at(20)), None);
    }

    #[test]
    fn deadlines_that_no_longer_hold_do_not_pile_up() {
        let mut timers = Timers::default();
        for deadline in (0..100_000).rev() {
            timers.push(at(deadline), 7);
            timers.compact(1, |other, index| (other, index) == (at(deadline), 7));
            assert!(timers.0.len() <= 67);
        }
        assert_eq!(timers.pop_due(at(0)), Some((at(0), 7)));
    }
}
