//! The list of recent peers (RFC 4380 section 5.2): bounded, with a quota for peers that are not
//! trusted, so that a scan cannot push out those that are (P-01, P-06).
//!
//! When a list is full, a peer goes that was not used for long, of the network that has most: a
//! flood pushes out its own entries, however many addresses it uses in its networks.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    hash::BuildHasher as _,
    ops::{Index, IndexMut, Range},
};

use teredo_common::{address::Endpoint, time::Instant, traffic::Traffic};

use super::{
    accounts::{Accounts, PeerTraffic},
    peer::{NO_TIMER, Peer, Pending, RoleState},
    shares::Shares,
    trust::Timing,
};
use crate::shared::{
    gradual::GradualMap,
    keyed::Keyed,
    party::{self, NOBODY, Party},
};

/// Number of random peers of which one goes, unless the least recently used one weighs as much. A
/// network that has a quarter of a list is missed once in a hundred times.
const CANDIDATES: u64 = 16;

/// The part of a list by which shares differ that are compared, as a divisor.
const PARTS: u32 = 64;

/// The slot of no peer.
pub(super) const NONE: u32 = u32::MAX;

/// The list that a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Free,
    Untrusted,
    Trusted,
}

/// A doubly linked list through the slots: most recently used first.
#[derive(Debug)]
struct Chain {
    first: u32,
    last: u32,
    /// The slots in the list, in no particular order.
    members: Vec<u32>,
    shares: Shares,
}

impl Chain {
    fn new(keyed: Keyed) -> Self {
        Self {
            first: NONE,
            last: NONE,
            members: Vec::new(),
            shares: Shares::new(keyed),
        }
    }
}

/// The bounded table of peers, with their deadlines.
#[derive(Debug)]
pub struct Peers<State> {
    slots: Vec<Peer<State>>,
    pub accounts: Accounts,
    free: Vec<u32>,
    /// The slot after that of each address.
    indices: GradualMap,
    keyed: Keyed,
    trusted: Chain,
    untrusted: Chain,
    max_trusted: usize,
    max_untrusted: usize,
    /// The deadlines that hold, each with its slot.
    timers: BTreeSet<(Instant, u32)>,
    /// Number of times that a peer had to go, for the choice among them.
    choices: u64,
    pub(super) timing: Timing,
}

/// A handle to a peer, valid until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// Returns the slot of the peer.
    pub fn slot(self) -> usize {
        self.0 as usize
    }
}

impl<State> Index<PeerIndex> for Peers<State> {
    type Output = Peer<State>;

    fn index(&self, index: PeerIndex) -> &Peer<State> {
        &self.slots[index.0 as usize]
    }
}

impl<State> IndexMut<PeerIndex> for Peers<State> {
    fn index_mut(&mut self, index: PeerIndex) -> &mut Peer<State> {
        &mut self.slots[index.0 as usize]
    }
}

/// Returns how many of at most `max` peers may be untrusted: an eighth, and at least one.
#[must_use]
pub fn max_untrusted(max: usize) -> usize {
    (max / 8).max(1)
}

impl<State: RoleState> Peers<State> {
    /// Creates a table for at most `max` peers, at least two.
    pub(crate) fn new(max: usize, timing: Timing, keyed: Keyed) -> Self {
        let max = max.clamp(2, NONE as usize - 1);
        let max_untrusted = max_untrusted(max);
        Self {
            slots: Vec::new(),
            accounts: Accounts::default(),
            free: Vec::new(),
            indices: GradualMap::new(keyed),
            keyed,
            trusted: Chain::new(keyed),
            untrusted: Chain::new(keyed),
            max_trusted: max - max_untrusted,
            max_untrusted,
            timers: BTreeSet::new(),
            choices: 0,
            timing,
        }
    }

    /// Number of trusted peers.
    pub fn trusted(&self) -> usize {
        self.trusted.members.len()
    }

    /// Number of untrusted peers.
    pub fn untrusted(&self) -> usize {
        self.untrusted.members.len()
    }

    /// Whether another trusted peer costs an older one.
    pub fn is_trusted_full(&self) -> bool {
        self.trusted.members.len() >= self.max_trusted
    }

    /// Whether another untrusted peer costs an older one.
    pub fn is_untrusted_full(&self) -> bool {
        self.untrusted.members.len() >= self.max_untrusted
    }

    /// The peer with this address.
    pub fn find(&self, address: &[u8; 16]) -> Option<PeerIndex> {
        let after = self.indices.get(key(address))?;
        Some(PeerIndex(after - 1))
    }

    /// All peers.
    pub fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer<State>)> {
        let slots = self.in_slots(0..self.slots.len());
        slots.map(|(index, peer)| (PeerIndex(index as u32), peer))
    }

    /// The trusted peers and then the others, each list from the least recently used to the most.
    pub fn oldest_first(&self) -> impl Iterator<Item = (PeerIndex, &Peer<State>)> {
        [&self.trusted, &self.untrusted]
            .into_iter()
            .flat_map(|chain| {
                let slot = |index: u32| Some((PeerIndex(index), self.slots.get(index as usize)?));
                std::iter::successors(slot(chain.last), move |(_, peer)| slot(peer.previous))
            })
    }

    /// The number of slots, of which some may be free.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The peers in these slots, each with its slot. Takes no time for the slots before.
    pub fn in_slots(&self, slots: Range<usize>) -> impl Iterator<Item = (usize, &Peer<State>)> {
        let end = slots.end.min(self.slots.len());
        let start = slots.start.min(end);
        let peers = self.slots[start..end].iter().enumerate();
        peers
            .filter(|(_, peer)| peer.list != List::Free)
            .map(move |(offset, peer)| (start + offset, peer))
    }

    /// Inserts an untrusted peer that is not in the table, because of `party`. Call
    /// [`Peers::make_room`] first.
    pub fn insert(&mut self, address: [u8; 16], mapped: Endpoint, party: Party) -> PeerIndex {
        debug_assert!(self.find(&address).is_none() && !self.is_untrusted_full());
        let peer = Peer::new(address, mapped, party);
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = peer;
                index
            }
            None => {
                self.slots.push(peer);
                (self.slots.len() - 1) as u32
            }
        };
        self.accounts.open(index as usize);
        self.indices.set(key(&address), index + 1);
        self.join(index, List::Untrusted);
        self.link_first(index, List::Untrusted);
        PeerIndex(index)
    }

    /// Returns the untrusted peer that has to go, if another one needs its place.
    pub fn make_room(&mut self) -> Option<PeerIndex> {
        self.is_untrusted_full()
            .then(|| self.heaviest(List::Untrusted))
            .flatten()
    }

    /// Returns the trusted peer that has to go, if another one needs its place.
    pub fn make_trusted_room(&mut self) -> Option<PeerIndex> {
        self.is_trusted_full()
            .then(|| self.heaviest(List::Trusted))
            .flatten()
    }

    /// Chooses the peer of a full list that goes: the least recently used one, unless there are others
    /// of networks that have more.
    fn heaviest(&mut self, list: List) -> Option<PeerIndex> {
        self.choices = self.choices.wrapping_add(1);
        let (chain, slots) = match list {
            List::Trusted => (&self.trusted, &self.slots),
            List::Untrusted | List::Free => (&self.untrusted, &self.slots),
        };
        // Small numbers say nothing: in a flood from everywhere, two peers are not a large share.
        let part = (chain.members.len() as u32 / PARTS).max(1);
        let weight = |index: u32| {
            let peer = slots.get(index as usize)?;
            let weight = chain.shares.weight(peer.party).map(|count| count / part);
            Some((peer.state.is_expendable(), weight, index))
        };
        let mut heaviest = weight(chain.last)?;
        for number in 0..CANDIDATES {
            let random = self.keyed.hash_one((self.choices, number));
            let place = random as usize % chain.members.len();
            if let Some(candidate) = weight(chain.members[place])
                && (candidate.0, candidate.1) > (heaviest.0, heaviest.1)
            {
                heaviest = candidate;
            }
        }
        Some(PeerIndex(heaviest.2))
    }

    /// Marks a peer as trusted, or as trusted at another endpoint. It takes a place of the network of
    /// its mapping. Call [`Peers::make_trusted_room`] first.
    pub fn trust(&mut self, index: PeerIndex) {
        self.change_party(index, List::Trusted, party::of_endpoint(self[index].mapped));
        self.unlink(index.0);
        self.link_first(index.0, List::Trusted);
    }

    /// Moves a peer to the end of the untrusted: it is the next of them to go, unless it is used
    /// again. Call [`Peers::make_room`] first.
    pub(super) fn move_to_untrusted(&mut self, index: PeerIndex) {
        self.change_party(index, List::Untrusted, NOBODY);
        self.unlink(index.0);
        self.link_last(index.0, List::Untrusted);
    }

    /// Counts a peer for a party in the list that it is about to join, and no longer as before.
    fn change_party(&mut self, index: PeerIndex, list: List, party: Party) {
        self.leave(index.0);
        self[index].party = party;
        self.join(index.0, list);
    }

    fn join(&mut self, index: u32, list: List) {
        let party = self.slots[index as usize].party;
        let chain = self.chain(list);
        chain.shares.add(party);
        chain.members.push(index);
        let place = chain.members.len() - 1;
        self.slots[index as usize].place = place as u32;
    }

    fn leave(&mut self, index: u32) {
        let peer = &self.slots[index as usize];
        let (list, party, place) = (peer.list, peer.party, peer.place);
        let chain = self.chain(list);
        chain.shares.remove(party);
        chain.members.swap_remove(place as usize);
        if let Some(&moved) = chain.members.get(place as usize) {
            self.slots[moved as usize].place = place;
        }
    }

    /// Makes a peer the most recently used of its kind.
    pub fn touch(&mut self, index: PeerIndex) {
        let list = self[index].list;
        if self.chain(list).first != index.0 {
            self.unlink(index.0);
            self.link_first(index.0, list);
        }
    }

    /// Returns the traffic of a peer, to add to.
    pub fn traffic_mut(&mut self, index: PeerIndex) -> &mut Traffic {
        &mut self.accounts.get_mut(index.slot()).total
    }

    /// Calls `report` with the peers in these slots that have traffic which was not reported yet.
    pub fn report(&mut self, slots: Range<usize>, mut report: impl FnMut(PeerTraffic)) {
        let end = slots.end.min(self.slots.len());
        for slot in slots.start..end {
            let peer = &self.slots[slot];
            let traffic = self.accounts.unreported(slot);
            if peer.list == List::Free || traffic.is_none() {
                continue;
            }
            report(PeerTraffic {
                address: peer.address.into(),
                mapped: peer.mapped,
                traffic,
            });
            self.accounts.note_reported(slot);
        }
    }

    /// Removes a peer. Its waiting packets have to be taken out of their budget.
    pub fn remove(&mut self, index: PeerIndex) -> Option<Box<Pending>> {
        let address = self[index].address;
        self.accounts
            .close(index.slot(), address, self[index].mapped);
        self.leave(index.0);
        self.unlink(index.0);
        self.indices.remove(key(&address));
        self.free.push(index.0);
        self.disarm(index);
        self[index].pending.take()
    }

    /// Makes sure that [`Peers::take_due`] returns the peer at `deadline` or before.
    pub fn arm(&mut self, index: PeerIndex, deadline: Instant) {
        let peer = &mut self.slots[index.0 as usize];
        if deadline >= peer.timer {
            return;
        }
        let before = std::mem::replace(&mut peer.timer, deadline);
        if before != NO_TIMER {
            self.timers.remove(&(before, index.0));
        }
        self.timers.insert((deadline, index.0));
    }

    /// Clears the deadline of a peer.
    fn disarm(&mut self, index: PeerIndex) {
        let deadline = std::mem::replace(&mut self[index].timer, NO_TIMER);
        self.timers.remove(&(deadline, index.0));
    }

    /// Returns the earliest deadline, and its peer.
    pub fn deadline(&self) -> Option<(Instant, PeerIndex)> {
        let &(deadline, number) = self.timers.first()?;
        Some((deadline, PeerIndex(number)))
    }

    /// Clears a deadline that has come, and returns its peer.
    pub fn take_due(&mut self, now: Instant) -> Option<PeerIndex> {
        let (_, index) = self.deadline().filter(|(deadline, _)| *deadline <= now)?;
        self.disarm(index);
        Some(index)
    }

    fn chain(&mut self, list: List) -> &mut Chain {
        match list {
            List::Trusted => &mut self.trusted,
            List::Untrusted | List::Free => &mut self.untrusted,
        }
    }

    fn link_first(&mut self, index: u32, list: List) {
        let chain = self.chain(list);
        let second = std::mem::replace(&mut chain.first, index);
        if second == NONE {
            chain.last = index;
        }
        if let Some(peer) = self.slots.get_mut(second as usize) {
            peer.previous = index;
        }
        let peer = &mut self.slots[index as usize];
        peer.list = list;
        peer.previous = NONE;
        peer.next = second;
    }

    fn link_last(&mut self, index: u32, list: List) {
        let chain = self.chain(list);
        let second = std::mem::replace(&mut chain.last, index);
        if second == NONE {
            chain.first = index;
        }
        if let Some(peer) = self.slots.get_mut(second as usize) {
            peer.next = index;
        }
        let peer = &mut self.slots[index as usize];
        peer.list = list;
        peer.previous = second;
        peer.next = NONE;
    }

    fn unlink(&mut self, index: u32) {
        let peer = &mut self.slots[index as usize];
        let list = std::mem::replace(&mut peer.list, List::Free);
        let (previous, next) = (peer.previous, peer.next);
        if let Some(peer) = self.slots.get_mut(previous as usize) {
            peer.next = next;
        }
        if let Some(peer) = self.slots.get_mut(next as usize) {
            peer.previous = previous;
        }
        let chain = self.chain(list);
        if chain.first == index {
            chain.first = next;
        }
        if chain.last == index {
            chain.last = previous;
        }
    }
}

/// Returns an address as a key.
fn key(address: &[u8; 16]) -> u128 {
    u128::from_ne_bytes(*address)
}
