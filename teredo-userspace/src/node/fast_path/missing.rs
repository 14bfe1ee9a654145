//! The search for trusted peers that the map lacks.
//!
//! The relay's events put peers into the map and take them out. Events can be lost, and a new map is
//! empty, so a sweep counts the peers in the map once a second and looks for those that are missing. Peers
//! that the map had no room for are missing, too, for as long as they live, and must not cost a pass over
//! all peers each second.

use std::ops::Range;

/// Slots of the relay's list of peers that one sweep looks at while no more peers are missing than were
/// refused. About two milliseconds.
const STEP: usize = 1024;

/// The peers that are known to be missing.
#[derive(Debug, Default)]
pub struct Missing {
    /// Peers that the last pass over all left missing, or were refused since.
    known: u64,
    /// The slot of the relay's list at which the next step begins.
    next: usize,
}

/// The peers that a sweep compares with the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    /// None.
    Nothing,
    /// Those in these slots of the relay's list.
    Slots(Range<usize>),
    /// All.
    Everything,
}

impl Missing {
    /// Notes that the map had no room for a peer.
    pub fn refused(&mut self) {
        self.known += 1;
    }

    /// Returns whether peers are missing that were refused.
    pub fn has_refused(&self) -> bool {
        self.known > 0
    }

    /// Returns the peers to compare when `missing` peers are missing and the relay's list has this many
    /// slots.
    pub fn pass(&mut self, missing: u64, slots: usize) -> Pass {
        if missing == 0 {
            self.known = 0;
            return Pass::Nothing;
        }
        if missing > self.known {
            // Those that are refused now are counted anew.
            self.known = 0;
            return Pass::Everything;
        }
        self.known = missing;
        let start = if self.next < slots { self.next } else { 0 };
        self.next = start + STEP;
        Pass::Slots(start..start + STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_peers_cost_no_pass_over_all_peers() {
        let mut missing = Missing::default();
        assert_eq!(missing.pass(0, 100_000), Pass::Nothing);
        for count in 1..100 {
            // One more is refused each second, and those before stay.
            missing.refused();
            assert!(matches!(missing.pass(count, 100_000), Pass::Slots(_)));
            assert!(missing.has_refused());
        }
        // Peers go, and others are refused several times.
        for _ in 0..100 {
            missing.refused();
            missing.refused();
            assert!(matches!(missing.pass(50, 100_000), Pass::Slots(_)));
        }
    }

    #[test]
    fn peers_that_nobody_refused_are_looked_for_at_once() {
        let mut missing = Missing::default();
        assert_eq!(missing.pass(1, 100_000), Pass::Everything);
        // The pass was refused one.
        missing.refused();
        assert!(matches!(missing.pass(1, 100_000), Pass::Slots(_)));
        assert_eq!(missing.pass(2, 100_000), Pass::Everything);
    }

    #[test]
    fn steps_cover_all_slots_in_turn() {
        let mut missing = Missing::default();
        let slots = 10 * STEP + 7;
        let mut covered = vec![0; slots];
        for _ in 0..22 {
            missing.refused();
            match missing.pass(1, slots) {
                Pass::Slots(range) => {
                    for count in &mut covered[range.start..range.end.min(slots)] {
                        *count += 1;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(covered.iter().all(|&count| count == 2));
    }
}
