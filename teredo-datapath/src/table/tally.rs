//! The traffic of peers, as the program counts it at their places.
//!
//! The program only adds to its words. The daemon keeps the sum of what it has collected from a place beside them, so that
//! the next process goes on from there.

use core::mem;
use std::vec::Vec;

use teredo_common::{
    address::ServicePrefix,
    peers::{FIRST_SET, Header, LINE, PLACES, SLOTS},
    traffic::{Count, Tallies, Tally, Towards, Traffic},
};

use super::{Memory, Table, set::Set, slot};
use crate::{Publish, Words};

/// The share of the words of a place that the daemon writes: the sum of what it has collected.
const COLLECTED: u32 = 0;

impl<M: Memory> Table<M> {
    /// Returns the traffic of peers that has not been collected when they left their places, or left the table.
    pub fn take_left(&mut self) -> Vec<([u8; 16], Traffic)> {
        mem::take(&mut self.left)
    }

    /// Returns the traffic at a place since the last call.
    pub(super) fn collect(&self, place: u32) -> Traffic {
        collect(self.tallies, |line| self.memory.line(line), place)
    }

    /// Keeps the traffic at the place that a peer has left.
    pub(super) fn note_left(&mut self, place: u32, address: [u8; 16]) {
        let traffic = self.collect(place);
        if !traffic.is_none() {
            self.left.push((address, traffic));
        }
    }
}

/// Prepares for accesses to the words of a place.
pub fn make_room<M: Memory>(memory: &mut M, tallies: Tallies, place: u32) -> Result<(), M::Error> {
    if tallies == Tallies::NONE {
        return Ok(());
    }
    for share in 0..tallies.shares() {
        for towards in Towards::ALL {
            memory.make_room(tallies.word(share, towards, place).0)?;
        }
    }
    Ok(())
}

/// Calls `visit` with the traffic of every peer in a table that another daemon has left, as far as that has not collected
/// it; a peer may come twice. The program may still be at work.
pub fn collect_in<W: Publish>(
    lines: u32,
    line: impl Fn(u32) -> W,
    mut visit: impl FnMut(&[u8; 16], Traffic),
) {
    let words: [u64; LINE] = core::array::from_fn(|index| line(0).load(index));
    let Header {
        prefix,
        sets_max,
        tallies,
        ..
    } = bytemuck::cast(words);
    let end = FIRST_SET.saturating_add(sets_max);
    let is_whole = tallies.first.checked_add(tallies.count()) == Some(lines);
    if tallies == Tallies::NONE || !is_whole || end > tallies.first {
        return;
    }
    let mut visit = |address: &[u8; 16], place| {
        let traffic = collect(tallies, &line, place);
        if !traffic.is_none() {
            visit(address, traffic);
        }
    };
    for number in 0..sets_max {
        for (place, address) in occupants(line(FIRST_SET + number), prefix) {
            visit(&address, Tallies::entry(number, place));
        }
    }
    for number in end * SLOTS as u32..tallies.first * SLOTS as u32 {
        let slot = slot::read(slot::of(line(number / SLOTS as u32), number));
        if slot.address != [0; 16] {
            visit(&slot.address, tallies.slot(number));
        }
    }
}

/// Iterates over the places of a set that are taken, each with the address of its peer.
fn occupants(
    words: impl Publish,
    prefix: ServicePrefix,
) -> impl Iterator<Item = (usize, [u8; 16])> {
    let set = Set { words, prefix };
    (0..PLACES).filter_map(move |place| Some((place, set.occupant(place)?.address)))
}

/// Returns the traffic at a place since the last call.
fn collect<W: Words>(tallies: Tallies, line: impl Fn(u32) -> W, place: u32) -> Traffic {
    let one = |towards| {
        if tallies == Tallies::NONE {
            return Count::default();
        }
        let word = |share| {
            let (index, word) = tallies.word(share, towards, place);
            line(index).from(word)
        };
        let sum = (COLLECTED + 1..tallies.shares()).fold(Tally::default(), |sum, share| {
            sum.plus(Tally(word(share).load(0)))
        });
        let Tally(collected) = sum;
        let before = Tally(word(COLLECTED).load(0));
        if sum != before {
            word(COLLECTED).store(0, collected);
        }
        sum.since(before)
    };
    Traffic {
        encap: one(Towards::Peer),
        decap: one(Towards::Native),
    }
}
