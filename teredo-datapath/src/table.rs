//! The daemon's side of the table of peers, whose layout [`teredo_common::maps`] describes.
//!
//! The program reads and writes the table at the same time. The order of the writes ensures that the
//! program finds a peer with all of its fields or not at all:
//!
//! - A peer is added with its address last, the first half after the second, and removed with its address
//!   first.
//! - Whenever a slot gets another peer or mapping, the word with the mapping changes before and after the
//!   other fields, and is never again what it was: it has a counter ([`Slot::flags`]). A CPU that loads it
//!   before and after the others, and finds the same, has read fields that belong together.
//! - A CPU that writes a next hop has claimed it in the word with the generation. The daemon revokes the
//!   claim when the next hop is of no use any more ([`revoke`]).

use teredo_common::maps::{MAX_REACH, NextHop, Peer, PeerTable, Slot, Version};

use crate::{
    Publish, Words,
    words::{ADDRESS, LAST_RECEIVED, LAST_SENT, MAPPED, NEXT_HOP, SLOT},
};

/// Slots of a neighbourhood: the home of some peers, and those behind it that may hold them.
pub const NEIGHBOURHOOD: usize = MAX_REACH as usize + 1;

/// The lowest bit of the counter in [`Slot::flags`].
const COUNT: u8 = Slot::FLAGS + 1;

/// The slots that may hold a peer: its home and those behind it.
pub trait Neighbourhood: Copy {
    /// The words of a slot.
    type Words: Publish;

    /// Returns the words of the slot at this distance from the home, which is less than
    /// [`NEIGHBOURHOOD`].
    fn slot(self, distance: usize) -> Self::Words;
}

/// A table of peers in memory that somebody else holds.
#[derive(Debug)]
pub struct Table {
    parameters: PeerTable,
    count: usize,
    limit: usize,
}

impl Table {
    /// Returns an empty table for `limit` peers.
    #[must_use]
    pub fn new(parameters: PeerTable, limit: usize) -> Self {
        Self {
            parameters,
            count: 0,
            limit,
        }
    }

    /// Returns the parameters of the table.
    #[must_use]
    pub fn parameters(&self) -> PeerTable {
        self.parameters
    }

    /// Returns the number of peers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Replaces the number of peers, of which another process may have removed some.
    pub fn set_count(&mut self, count: usize) {
        self.count = count;
    }

    /// Returns the index of a peer's home, where its neighbourhood begins.
    #[must_use]
    pub fn home(&self, address: &[u8; 16]) -> usize {
        self.parameters.home(bytemuck::cast(*address)) as usize
    }

    /// Adds or replaces a peer and returns whether there was room. Timestamps that the program has
    /// advanced further stay.
    pub fn insert(&mut self, near: impl Neighbourhood, address: &[u8; 16], peer: &Peer) -> bool {
        if let Some(words) = find(near, address) {
            replace(words, peer);
            return true;
        }
        if self.count >= self.limit {
            return false;
        }
        let added = add(near, address, peer);
        self.count += usize::from(added);
        added
    }

    /// Removes a peer. An absent peer is no error.
    pub fn remove(&mut self, near: impl Neighbourhood, address: &[u8; 16]) {
        if let Some(words) = find(near, address) {
            words.publish(ADDRESS, 0);
            words.publish(ADDRESS + 1, 0);
            set_mapped(words, &Peer::default());
            set_reach(near, self.measure_reach(near, self.home(address)));
            self.count = self.count.saturating_sub(1);
        }
    }

    /// Returns the largest distance of a peer whose home this is, which is not greater than before.
    fn measure_reach(&self, near: impl Neighbourhood, home: usize) -> u8 {
        let lives_here = |&distance: &usize| {
            let address = address_in(near.slot(distance));
            address != [0; 16] && self.home(&address) == home
        };
        let reach = usize::from(mapped_in(near.slot(0)).reach);
        (0..=reach).rev().find(lives_here).unwrap_or(0) as u8
    }
}

/// Returns the slot of a peer.
pub fn get(near: impl Neighbourhood, address: &[u8; 16]) -> Option<Slot> {
    find(near, address).map(read)
}

/// Sets a peer's next hop, as the program does, and returns whether the peer is present.
pub fn set_next_hop(near: impl Neighbourhood, address: &[u8; 16], next_hop: NextHop) -> bool {
    let Some(words) = find(near, address) else {
        return false;
    };
    let new: [u64; SLOT - NEXT_HOP] = bytemuck::cast(next_hop);
    for (index, new) in (NEXT_HOP..).zip(new) {
        words.store(index, new);
    }
    true
}

/// Returns the contents of a slot. Each word is read at once, but not all of them together.
pub fn read(words: impl Words) -> Slot {
    let words: [u64; SLOT] = core::array::from_fn(|index| words.load(index));
    bytemuck::cast(words)
}

/// Whether a slot holds no peer.
pub fn is_empty(words: impl Words) -> bool {
    words.load(ADDRESS) == 0
}

fn find<N: Neighbourhood>(near: N, address: &[u8; 16]) -> Option<N::Words> {
    let reach = usize::from(mapped_in(near.slot(0)).reach);
    (0..=reach)
        .map(|distance| near.slot(distance))
        .find(|&words| address_in(words) == *address)
}

/// Puts a new peer into the nearest empty slot and returns whether there was one.
fn add(near: impl Neighbourhood, address: &[u8; 16], peer: &Peer) -> bool {
    let is_free = |&distance: &usize| address_in(near.slot(distance)) == [0; 16];
    let Some(distance) = (0..NEIGHBOURHOOD).find(is_free) else {
        return false;
    };
    let words = near.slot(distance);
    revoke(words);
    words.publish(LAST_RECEIVED, peer.last_received.as_nanos());
    words.publish(LAST_SENT, peer.last_sent.as_nanos());
    set_mapped(words, peer);
    // The second half alone is no address, since the first is never zero.
    let [first, second] = bytemuck::cast::<_, [u64; 2]>(*address);
    words.publish(ADDRESS + 1, second);
    words.publish(ADDRESS, first);
    let reach = mapped_in(near.slot(0)).reach;
    set_reach(near, reach.max(distance as u8));
    true
}

fn replace(words: impl Publish, peer: &Peer) {
    let old = mapped_in(words);
    let flags = u16::from(old.flags & Slot::FLAGS);
    if (old.mapped, flags) != (peer.mapped, peer.flags) {
        // Without trust, until the cached next hop no longer leads to the old endpoint.
        set_mapped(words, &Peer::default());
        revoke(words);
        set_mapped(words, peer);
    }
    // The program may have advanced them further.
    advance(words, LAST_RECEIVED, peer.last_received.as_nanos());
    advance(words, LAST_SENT, peer.last_sent.as_nanos());
}

/// Raises a stamp, unless it is that late already.
fn advance(words: impl Words, index: usize, stamp: u64) {
    loop {
        let seen = words.load(index);
        if seen >= stamp || words.compare_exchange(index, seen, stamp) {
            return;
        }
    }
}

/// Makes the next hop empty, or has the CPU that is writing it do so.
fn revoke(words: impl Words) {
    loop {
        let seen = Version(words.load(NEXT_HOP));
        let new = match seen.generation() {
            NextHop::CLAIMED | NextHop::REVOKED => seen.with(NextHop::REVOKED),
            _ => seen.next(NextHop::EMPTY, 0),
        };
        // Also if nothing changes: a CPU that claims it after this notices that the mapping has changed.
        if words.compare_exchange(NEXT_HOP, seen.0, new.0) {
            return;
        }
    }
}

/// Replaces mapping and flags, and counts the change.
fn set_mapped(words: impl Publish, peer: &Peer) {
    change(words, |slot| {
        let count = slot.flags.wrapping_add(COUNT) & !Slot::FLAGS;
        slot.mapped = peer.mapped;
        slot.flags = count | peer.flags as u8 & Slot::FLAGS;
    });
}

fn set_reach(near: impl Neighbourhood, reach: u8) {
    change(near.slot(0), |slot| slot.reach = reach);
}

/// Changes mapping, flags and reach at once. Only the daemon writes this word.
fn change(words: impl Publish, change: impl FnOnce(&mut Slot)) {
    let mut slot = mapped_in(words);
    change(&mut slot);
    let new: [u64; SLOT] = bytemuck::cast(slot);
    words.publish(MAPPED, new[MAPPED]);
}

/// Returns a slot of which mapping, flags and reach are those of `words`.
fn mapped_in(words: impl Words) -> Slot {
    let mut slot = [0; SLOT];
    slot[MAPPED] = words.load(MAPPED);
    bytemuck::cast(slot)
}

fn address_in(words: impl Words) -> [u8; 16] {
    bytemuck::cast([words.load(ADDRESS), words.load(ADDRESS + 1)])
}
