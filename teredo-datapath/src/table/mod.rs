//! The daemon's side of the table of peers, whose layout [`teredo_common::peers`] describes.
//!
//! The program reads and writes the table at the same time. The order of the writes ensures that the
//! program finds a peer with all of its fields or not at all:
//!
//! - The first word of an entry is zero while the second changes hands.
//! - The word with the mapping of a slot changes before and after the other fields, and is never again what it was:
//!   it has a counter.
//! - When the table grows or shrinks by a set, peers are in both of their sets until the next change of the table, so that
//!   a CPU that has read the old number of sets finds them, too.

mod set;
mod slot;
mod tally;
#[cfg(test)]
mod tests;
mod visit;

use std::{collections::BTreeMap, vec::Vec};

use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_mapping},
    peers::{FIRST_SET, Hash, Header, LINE, PLACES, Peer, SLOTS, Sets, Stamps},
    time::Instant,
    traffic::{Tallies, Traffic},
};

pub use self::{tally::collect_in, visit::Cursor};

use self::set::{Occupant, Set};
use crate::Publish;

/// Sets of an empty table.
const SETS_MIN: u32 = 16;
/// Peers for which the table has [`LOAD_SETS`] sets, so that two of five places are taken, and about three of a hundred
/// peers are in slots.
const LOAD_PEERS: u64 = 8;
/// See [`LOAD_PEERS`].
const LOAD_SETS: u64 = 5;

/// The memory of a table, which the program reads and writes at the same time, and the map of numbers of slots.
pub trait Memory {
    /// The words of a line.
    type Words<'a>: Publish
    where
        Self: 'a;
    /// The reason why something failed.
    type Error;

    /// Returns a line. [`Self::make_room`] has been called for it, or a later one of the same kind.
    fn line(&self, index: u32) -> Self::Words<'_>;

    /// Tells the program how many sets are in use.
    fn use_sets(&self, sets: Sets);

    /// Prepares for accesses to a line.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    fn make_room(&mut self, index: u32) -> Result<(), Self::Error>;

    /// Lets the program find the slot of a peer.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    fn link(&mut self, address: &[u8; 16], slot: u32) -> Result<(), Self::Error>;

    /// Lets the program find the slot of a peer no more.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    fn unlink(&mut self, address: &[u8; 16]) -> Result<(), Self::Error>;
}

/// A table of peers in memory that somebody else holds.
#[derive(Debug)]
pub struct Table<M> {
    memory: M,
    seed: u64,
    prefix: ServicePrefix,
    sets: u32,
    sets_max: u32,
    count: usize,
    limit: usize,
    /// The slots of peers by the order of their hashes and addresses.
    slots: BTreeMap<(u32, [u8; 16]), u32>,
    free: Vec<u32>,
    /// The number of the first slot that was never used.
    unused: u32,
    /// A set with copies of peers that are in another set now.
    copies: Option<Copies>,
    /// The part that counts the traffic of peers.
    tallies: Tallies,
    /// The traffic that was counted at places which peers have left.
    left: Vec<([u8; 16], Traffic)>,
}

/// The set whose peers are in another set, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copies(u32);

/// The place of a peer.
enum Place {
    /// In a set.
    Entry(usize),
    /// In the slot with this number.
    Slot(u32),
}

/// Returns the most sets of a table for `limit` peers.
#[must_use]
pub const fn sets_max(limit: u32) -> u32 {
    let sets = (limit as u64 * LOAD_SETS).div_ceil(LOAD_PEERS);
    if sets < SETS_MIN as u64 {
        SETS_MIN
    } else {
        sets as u32
    }
}

/// Returns the lines of a table for `limit` peers, all of which may need slots, without those that count traffic.
#[must_use]
pub const fn lines(limit: u32) -> u32 {
    let sets = FIRST_SET.saturating_add(sets_max(limit));
    sets.saturating_add(limit.div_ceil(SLOTS as u32))
}

/// Returns the part of a table for `limit` peers that counts their traffic, if `cpus` CPUs have words of their own, and there
/// are others.
#[must_use]
pub const fn tallies(limit: u32, cpus: u16, has_others: bool) -> Tallies {
    Tallies::behind(lines(limit), sets_max(limit), cpus, has_others)
}

impl<M: Memory> Table<M> {
    /// Makes an empty table for `limit` peers in memory that is all zeros, with [`lines`] for so many, and those of
    /// `tallies`. Peers that are in no slot have addresses with this prefix.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn new(
        mut memory: M,
        seed: u64,
        prefix: ServicePrefix,
        limit: u32,
        tallies: Tallies,
    ) -> Result<Self, M::Error> {
        let sets_max = sets_max(limit);
        memory.make_room(FIRST_SET + SETS_MIN - 1)?;
        for set in 0..SETS_MIN {
            tally::make_room(&mut memory, tallies, Tallies::entry(set, 0))?;
        }
        memory.use_sets(Sets::new(SETS_MIN));
        let header = Header {
            prefix,
            sets_max,
            tallies,
            ..Header::default()
        };
        let words: [u64; 8] = bytemuck::cast(header);
        for (index, word) in words.into_iter().enumerate() {
            memory.line(0).publish(index, word);
        }
        Ok(Self {
            memory,
            seed,
            prefix,
            sets: SETS_MIN,
            sets_max,
            count: 0,
            limit: limit as usize,
            slots: BTreeMap::new(),
            free: Vec::new(),
            unused: (FIRST_SET + sets_max).saturating_mul(SLOTS as u32),
            copies: None,
            tallies,
            left: Vec::new(),
        })
    }

    /// Returns the number of peers in slots.
    #[must_use]
    pub fn count_in_slots(&self) -> usize {
        self.slots.len()
    }

    /// Adds or replaces a peer and returns whether there was room. Timestamps that the program has
    /// advanced further stay.
    ///
    /// # Errors
    ///
    /// When there is no memory. The peer may not be there then.
    pub fn insert(
        &mut self,
        address: &[u8; 16],
        peer: &Peer,
        now: Instant,
    ) -> Result<bool, M::Error> {
        self.drop_copies(now)?;
        let mut stamps = Stamps::new(peer, now);
        match self.find(address) {
            Some(Place::Entry(place)) if self.fits_an_entry(address, peer) => {
                self.home_set(address).advance(place, stamps, now);
                return Ok(true);
            }
            Some(Place::Slot(slot)) => {
                slot::replace(self.slot(slot), peer, stamps, now);
                return Ok(true);
            }
            Some(Place::Entry(place)) => {
                let known = self.home_set(address).occupant(place);
                stamps = known.map_or(stamps, |known| stamps.latest(known.stamps, now));
                self.remove(address, now)?;
            }
            None => {}
        }
        if self.count >= self.limit {
            return Ok(false);
        }
        self.grow(now)?;
        if !(self.fits_an_entry(address, peer) && self.add(self.set_of(address), address, stamps)) {
            self.add_slot(address, peer, stamps)?;
        }
        self.count += 1;
        Ok(true)
    }

    /// Removes a peer. An absent peer is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. The peer is not there any more.
    pub fn remove(&mut self, address: &[u8; 16], now: Instant) -> Result<(), M::Error> {
        self.drop_copies(now)?;
        match self.find(address) {
            Some(Place::Entry(place)) => {
                self.clear(self.set_of(address), place, *address);
                self.count -= 1;
                self.refill(self.set_of(address), now)?;
            }
            Some(Place::Slot(slot)) => {
                self.count -= 1;
                self.remove_slot(address, slot)?;
                self.settle(self.set_of(address));
            }
            None => return Ok(()),
        }
        self.shrink(now)
    }

    /// Whether the table has a peer.
    #[must_use]
    pub fn contains(&self, address: &[u8; 16]) -> bool {
        self.find(address).is_some()
    }

    /// Returns a peer.
    #[must_use]
    pub fn get(&self, address: &[u8; 16], now: Instant) -> Option<Peer> {
        let stamps = match self.find(address)? {
            Place::Slot(slot) => return Some(slot::peer(&slot::read(self.slot(slot)), now)),
            Place::Entry(place) => self.home_set(address).occupant(place)?.stamps,
        };
        Some(peer_in_entry(address, stamps, now))
    }

    fn hash(&self, address: &[u8; 16]) -> Hash {
        Hash::of(address, self.seed)
    }

    fn set_of(&self, address: &[u8; 16]) -> u32 {
        Sets::new(self.sets).set(self.hash(address))
    }

    fn set(&self, number: u32) -> Set<M::Words<'_>> {
        Set {
            words: self.memory.line(FIRST_SET + number),
            prefix: self.prefix,
        }
    }

    fn home_set(&self, address: &[u8; 16]) -> Set<M::Words<'_>> {
        self.set(self.set_of(address))
    }

    fn slot(&self, number: u32) -> M::Words<'_> {
        slot::of(self.memory.line(number / SLOTS as u32), number)
    }

    fn key(&self, address: &[u8; 16]) -> (u32, [u8; 16]) {
        (self.hash(address).order(), *address)
    }

    fn find(&self, address: &[u8; 16]) -> Option<Place> {
        if let Some(&slot) = self.slots.get(&self.key(address)) {
            return Some(Place::Slot(slot));
        }
        let set = self.home_set(address);
        let is_there = |place| {
            let occupant = set.occupant(place);
            occupant.is_some_and(|occupant| occupant.address == *address)
        };
        (0..PLACES).find(|&place| is_there(place)).map(Place::Entry)
    }

    /// Whether an entry can hold the peer. The first word of an entry is not zero.
    fn fits_an_entry(&self, address: &[u8; 16], peer: &Peer) -> bool {
        self.prefix.contains(address)
            && peer.mapped == embedded_mapping(address)
            && address[4..12] != [0; 8]
    }

    fn add_slot(
        &mut self,
        address: &[u8; 16],
        peer: &Peer,
        stamps: Stamps,
    ) -> Result<(), M::Error> {
        let slot = self.free.pop().unwrap_or(self.unused);
        self.memory.make_room(slot / SLOTS as u32)?;
        let place = self.tallies.slot(slot);
        tally::make_room(&mut self.memory, self.tallies, place)?;
        self.unused = self.unused.max(slot + 1);
        self.collect(place);
        slot::fill(self.slot(slot), address, peer, stamps);
        self.slots.insert(self.key(address), slot);
        let linked = self.memory.link(address, slot);
        if linked.is_err() {
            self.forget_slot(address, slot);
        }
        self.settle(self.set_of(address));
        linked
    }

    fn remove_slot(&mut self, address: &[u8; 16], slot: u32) -> Result<(), M::Error> {
        let unlinked = self.memory.unlink(address);
        self.forget_slot(address, slot);
        unlinked
    }

    fn forget_slot(&mut self, address: &[u8; 16], slot: u32) {
        slot::clear(self.slot(slot));
        self.note_left(self.tallies.slot(slot), *address);
        self.slots.remove(&self.key(address));
        self.free.push(slot);
    }

    /// Puts a peer into a place of a set, and returns whether there was one.
    fn add(&self, set: u32, address: &[u8; 16], stamps: Stamps) -> bool {
        let Some(place) = self.set(set).vacancy() else {
            return false;
        };
        self.collect(Tallies::entry(set, place));
        self.set(set).fill(place, address, stamps);
        true
    }

    /// Empties the place of a peer in a set.
    fn clear(&mut self, set: u32, place: usize, address: [u8; 16]) {
        self.set(set).clear(place);
        self.note_left(Tallies::entry(set, place), address);
    }

    /// Returns the peers in slots whose set this is.
    fn slots_of(&self, set: u32) -> impl Iterator<Item = (&[u8; 16], u32)> {
        let (bits, half) = (
            self.sets.next_power_of_two().ilog2(),
            self.sets.next_power_of_two() / 2,
        );
        // Its peers are those of two sets, of which the other is not there yet.
        let is_double = set + half >= self.sets && set < half;
        let bits = bits - u32::from(is_double);
        let first = set.reverse_bits();
        let last = first | u32::MAX.checked_shr(bits).unwrap_or(0);
        let range = self.slots.range((first, [0; 16])..=(last, [255; 16]));
        range.map(|((_, address), &slot)| (address, slot))
    }

    /// Sets the flags of a set.
    fn settle(&self, set: u32) {
        let mut elsewhere = [false; PLACES];
        for (address, _) in self.slots_of(set) {
            elsewhere[self.hash(address).place()] = true;
        }
        self.set(set).flag(elsewhere);
    }

    /// Moves peers from slots into the empty places of their set, and sets its flags.
    fn refill(&mut self, set: u32, now: Instant) -> Result<(), M::Error> {
        let slots: Vec<_> = self
            .slots_of(set)
            .map(|(address, slot)| (*address, slot))
            .collect();
        let mut result = Ok(());
        for (address, slot) in slots {
            let known = slot::read(self.slot(slot));
            let peer = slot::peer(&known, now);
            if self.fits_an_entry(&address, &peer) && self.add(set, &address, known.stamps) {
                result = result.and(self.remove_slot(&address, slot));
            }
        }
        self.settle(set);
        result
    }

    /// Adds a set if one peer more makes the table too full.
    fn grow(&mut self, now: Instant) -> Result<(), M::Error> {
        let is_full = (self.count as u64 + 1) * LOAD_SETS > u64::from(self.sets) * LOAD_PEERS;
        if !is_full || self.sets >= self.sets_max {
            return Ok(());
        }
        self.drop_copies(now)?;
        let new = self.sets;
        self.memory.make_room(FIRST_SET + new)?;
        tally::make_room(&mut self.memory, self.tallies, Tallies::entry(new, 0))?;
        let (parent, after) = (parent(new), Sets::new(new + 1));
        for Occupant { address, stamps } in self.set(parent).occupants() {
            if after.set(self.hash(&address)) == new {
                self.add(new, &address, stamps);
            }
        }
        self.sets = new + 1;
        self.settle(new);
        self.publish_sets();
        self.copies = Some(Copies(parent));
        self.refill(new, now)
    }

    /// Removes a set if the table is very empty.
    fn shrink(&mut self, now: Instant) -> Result<(), M::Error> {
        let is_empty = self.count as u64 * 2 * LOAD_SETS < u64::from(self.sets) * LOAD_PEERS;
        if !is_empty || self.sets <= SETS_MIN {
            return Ok(());
        }
        self.drop_copies(now)?;
        let gone = self.sets - 1;
        let parent = parent(gone);
        let occupants: Vec<_> = self.set(gone).occupants().collect();
        let mut result = Ok(());
        for Occupant { address, stamps } in occupants {
            if !self.add(parent, &address, stamps) {
                let peer = peer_in_entry(&address, stamps, now);
                result = result.and(self.add_slot(&address, &peer, stamps));
            }
        }
        self.sets = gone;
        self.settle(parent);
        self.publish_sets();
        self.copies = Some(Copies(gone));
        result
    }

    fn publish_sets(&self) {
        self.memory.use_sets(Sets::new(self.sets));
    }

    /// Removes the copies of peers from the set that they have left. What the program noted there stays.
    fn drop_copies(&mut self, now: Instant) -> Result<(), M::Error> {
        let Some(Copies(number)) = self.copies.take() else {
            return Ok(());
        };
        for place in 0..PLACES {
            let Some(Occupant { address, stamps }) = self.set(number).occupant(place) else {
                continue;
            };
            if self.set_of(&address) == number {
                continue;
            }
            self.clear(number, place, address);
            match self.find(&address) {
                Some(Place::Entry(place)) => self.home_set(&address).advance(place, stamps, now),
                Some(Place::Slot(slot)) => slot::advance(self.slot(slot), stamps, now),
                None => {}
            }
        }
        if number < self.sets {
            return self.refill(number, now);
        }
        self.set(number).flag([false; PLACES]);
        Ok(())
    }
}

/// Returns the set whose peers are those of set `number` and its own, before `number` is there.
fn parent(number: u32) -> u32 {
    number - (1 << number.ilog2())
}

/// Returns the peer of an entry.
fn peer_in_entry(address: &[u8; 16], stamps: Stamps, now: Instant) -> Peer {
    let (last_received, last_sent) = stamps.times(now);
    Peer {
        mapped: embedded_mapping(address),
        last_received,
        last_sent,
    }
}

/// Calls `visit` with every peer in the lines of a table that another daemon has left; a peer may come twice.
pub fn for_each_in<W: Publish>(
    lines: u32,
    line: impl Fn(u32) -> W,
    now: Instant,
    mut visit: impl FnMut(&[u8; 16], &Peer),
) {
    let words: [u64; LINE] = core::array::from_fn(|index| line(0).load(index));
    let header: Header = bytemuck::cast(words);
    let lines = match header.tallies.first {
        0 => lines,
        first => first.min(lines),
    };
    let end = FIRST_SET.saturating_add(header.sets_max).min(lines);
    for number in FIRST_SET..end {
        let set = Set {
            words: line(number),
            prefix: header.prefix,
        };
        for Occupant { address, stamps } in set.occupants() {
            visit(&address, &peer_in_entry(&address, stamps, now));
        }
    }
    for number in end * SLOTS as u32..lines * SLOTS as u32 {
        let slot = slot::read(slot::of(line(number / SLOTS as u32), number));
        if slot.mapped != Endpoint::default() {
            visit(&slot.address, &slot::peer(&slot, now));
        }
    }
}
