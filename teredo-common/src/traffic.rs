//! The traffic of each peer, which the program counts beside the table of peers.
//!
//! Behind its slots, the map of [peers](crate::peers) has words that count the packets of each place in one
//! direction, and their octets: one such word for each of the first CPUs, as CPUs that write to one line wait for each
//! other, and so that an addition need not be atomic; one for all other CPUs together, if there are more; and first, one with the
//! sum that the daemon has taken from the others already. The program only adds, and the daemon takes the
//! difference once a second.
//!
//! Words of neighbouring places are in one line, so that those of the peers in two sets share it. The daemon
//! collects what was counted at a place before another peer gets it.

use core::ops::AddAssign;

use bytemuck::{Pod, Zeroable};

use crate::peers::{FIRST_SET, LINE, PLACES, SLOTS};

/// CPUs that have words of their own, at most.
pub const OWN_CPUS_MAX: u16 = 16;

/// The destination of a packet, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// The peer: the packet is encapsulated.
    Peer,
    /// A native host: the packet is decapsulated.
    Native,
}

impl Towards {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Peer, Self::Native];
}

/// Packets and their octets, as IPv6 packets: without encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Number of octets.
    pub octets: u64,
}

impl Count {
    /// Returns the count of one packet.
    #[must_use]
    pub const fn of(octets: usize) -> Self {
        Self {
            packets: 1,
            octets: octets as u64,
        }
    }

    /// Adds a packet.
    #[inline]
    pub const fn add(&mut self, octets: usize) {
        self.packets += 1;
        self.octets += octets as u64;
    }

    /// Returns what was counted since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(earlier.packets),
            octets: self.octets.wrapping_sub(earlier.octets),
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// The packets of a peer in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Traffic {
    /// To the peer.
    pub encap: Count,
    /// From the peer.
    pub decap: Count,
}

impl Traffic {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what was counted since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            encap: self.encap.since(earlier.encap),
            decap: self.decap.since(earlier.decap),
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.encap += other.encap;
        self.decap += other.decap;
    }
}

/// Packets and octets in one word: they are added at once, and so are whole words. Differences are right as long as they
/// are less than 2²⁸ packets, and 2³⁶ octets, which are nine minutes at a gigabit a second. Sums may overflow.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub u64);

impl Tally {
    /// Bits of the number of packets.
    const PACKETS: u32 = 28;

    /// Returns the tally of one packet.
    #[inline(always)]
    pub const fn one(octets: usize) -> Self {
        Self(1 | (octets as u64) << Self::PACKETS)
    }

    /// Returns the sum of both.
    #[inline(always)]
    pub const fn plus(self, Self(other): Self) -> Self {
        Self(self.0.wrapping_add(other))
    }

    /// Returns what was counted since `earlier`.
    pub const fn since(self, Self(earlier): Self) -> Count {
        let difference = self.0.wrapping_sub(earlier);
        Count {
            packets: difference & ((1 << Self::PACKETS) - 1),
            octets: difference >> Self::PACKETS,
        }
    }
}

/// The part of a table of peers with the words that count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Tallies {
    /// The first line. Zero if nothing is counted.
    pub first: u32,
    /// Lines for one direction of all places.
    pub lines: u32,
    /// CPUs with words of their own.
    pub cpus: u16,
    /// Whether there are words for all other CPUs: 1 or 0.
    pub others: u16,
    /// The difference of the numbers of a slot as a place and as a slot.
    pub slots: u32,
}

impl Tallies {
    /// Nothing is counted.
    pub const NONE: Self = Self {
        first: 0,
        lines: 0,
        cpus: 0,
        others: 0,
        slots: 0,
    };

    /// Returns the part behind a table with `lines` lines, at most `sets` of which are for sets, if `cpus` CPUs have words
    /// of their own, and there are others. Nothing is counted in a table that would have more lines than can be numbered.
    #[must_use]
    pub const fn behind(lines: u32, sets: u32, cpus: u16, has_others: bool) -> Self {
        let slots = lines.saturating_sub(FIRST_SET.saturating_add(sets));
        let places = sets as u64 * PLACES as u64 + slots as u64 * SLOTS as u64;
        let tallies = Self {
            first: lines,
            lines: places.div_ceil(LINE as u64) as u32,
            cpus,
            others: has_others as u16,
            slots: sets
                .wrapping_mul(PLACES as u32)
                .wrapping_sub(sets.wrapping_add(FIRST_SET).wrapping_mul(SLOTS as u32)),
        };
        match lines.checked_add(tallies.count()) {
            Some(_) if places <= u32::MAX as u64 => tallies,
            _ => Self::NONE,
        }
    }

    /// Returns the number of its lines.
    #[must_use]
    pub const fn count(self) -> u32 {
        match self.first {
            0 => 0,
            _ => self
                .lines
                .saturating_mul(Towards::ALL.len() as u32 * self.shares()),
        }
    }

    /// Returns the number of words of a place in one direction.
    #[must_use]
    pub const fn shares(self) -> u32 {
        1 + self.cpus as u32 + self.others as u32
    }

    /// Returns the share of a CPU, and whether it is its own.
    #[inline(always)]
    pub const fn share(self, cpu: u32) -> (u32, bool) {
        let cpus = self.cpus as u32;
        match cpu < cpus {
            true => (cpu + 1, true),
            false => (cpus + 1, false),
        }
    }

    /// Returns the line with a share of the words of a place, and the index of the word in it.
    #[inline(always)]
    pub const fn word(self, share: u32, towards: Towards, place: u32) -> (u32, usize) {
        let part = share * Towards::ALL.len() as u32 + towards as u32;
        let line = self.first + part * self.lines + place / LINE as u32;
        (line, place as usize % LINE)
    }

    /// Returns the number of a place in a set.
    #[inline(always)]
    pub const fn entry(set: u32, place: usize) -> u32 {
        set * PLACES as u32 + place as u32
    }

    /// Returns the number of a slot as a place.
    #[inline(always)]
    pub const fn slot(self, slot: u32) -> u32 {
        slot.wrapping_add(self.slots)
    }
}

const _: () = assert!(size_of::<Tallies>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn differences_are_right_when_sums_overflow() {
        let mut tally = Tally(u64::MAX - 5);
        let earlier = tally;
        let mut expected = Count::default();
        for octets in [41, 1280, 65_535, 0, 100] {
            tally = tally.plus(Tally::one(octets));
            expected.add(octets);
        }
        assert_eq!(tally.since(earlier), expected);
        let many = Tally(((1 << 28) - 1) | (((1 << 36) - 1) << 28));
        let count = tally.plus(many).since(tally);
        assert_eq!(
            (count.packets, count.octets),
            ((1 << 28) - 1, (1 << 36) - 1)
        );
    }

    #[test]
    fn a_table_whose_lines_have_no_numbers_counts_nothing() {
        assert_eq!(
            Tallies::behind(u32::MAX, u32::MAX - 1, 2, true),
            Tallies::NONE
        );
        assert_eq!(Tallies::behind(1 << 30, 1 << 29, 16, true), Tallies::NONE);
    }

    #[test]
    fn every_place_has_words_of_its_own() {
        let (sets, lines) = (16, 16 + 1 + 20);
        for (cpus, has_others) in [(0, true), (1, false), (3, true)] {
            let tallies = Tallies::behind(lines, sets, cpus, has_others);
            let mut seen = HashSet::new();
            let entries =
                (0..sets).flat_map(|set| (0..PLACES).map(move |place| Tallies::entry(set, place)));
            let slots = (FIRST_SET + sets) * SLOTS as u32..lines * SLOTS as u32;
            for place in entries.chain(slots.map(|slot| tallies.slot(slot))) {
                for share in 0..tallies.shares() {
                    for towards in Towards::ALL {
                        let (line, word) = tallies.word(share, towards, place);
                        assert!(line >= lines && line < lines + tallies.count());
                        assert!(seen.insert((line, word)));
                    }
                }
            }
        }
    }

    #[test]
    fn cpus_beyond_the_first_share_words_that_nobody_else_has() {
        let tallies = Tallies::behind(10, 5, 2, true);
        let shares = [0, 1, 2, 3].map(|cpu| tallies.share(cpu));
        assert_eq!(shares, [(1, true), (2, true), (3, false), (3, false)]);
        assert_eq!(tallies.shares(), 4);
    }
}
