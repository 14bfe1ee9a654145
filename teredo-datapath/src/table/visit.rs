//! Visits of all peers, at once or little by little while the table changes.

use teredo_common::{
    peers::{PLACES, Peer, Stamps},
    time::Instant,
    traffic::{Tallies, Traffic},
};

use super::{Copies, Memory, Table, peer_in_entry, set::Occupant, slot};

/// The place at which a visit goes on; the default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next set.
    set: u32,
    /// The peer in a slot after which the visit goes on, once all sets were visited.
    slot: Option<(u32, [u8; 16])>,
}

impl<M: Memory> Table<M> {
    /// Returns the number of peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Replaces the number of peers, of which another process may have removed some.
    pub fn set_len(&mut self, count: usize) {
        self.count = count;
    }

    /// Returns whether there is no peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Calls `visit` with every peer, and returns their number.
    pub fn for_each(&self, now: Instant, mut visit: impl FnMut(&[u8; 16], &Peer)) -> usize {
        let mut count = 0;
        let mut cursor = Cursor::default();
        self.walk(&mut cursor, usize::MAX, now, |address, peer, _| {
            count += 1;
            visit(address, peer);
        });
        count
    }

    /// Calls `visit` with the peers in the next `most` sets, or as many slots, each with its traffic since it was last
    /// visited, and returns whether those were the last. When the table changes between the calls, a peer that moves may
    /// come twice, or not before the next visit from the start; [`Table::take_left`] has the traffic at its old place.
    pub fn visit(
        &self,
        cursor: &mut Cursor,
        most: usize,
        now: Instant,
        mut visit: impl FnMut(&[u8; 16], &Peer, Traffic),
    ) -> bool {
        self.walk(cursor, most, now, |address, peer, place| {
            visit(address, peer, self.collect(place));
        })
    }

    /// Does the same with the numbers of the peers' places instead of their traffic.
    fn walk(
        &self,
        cursor: &mut Cursor,
        most: usize,
        now: Instant,
        mut visit: impl FnMut(&[u8; 16], &Peer, u32),
    ) -> bool {
        let start = cursor.set.min(self.sets);
        let end = start.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        let end = end.min(self.sets);
        for number in start..end {
            self.visit_set(number, now, &mut visit);
        }
        cursor.set = end;
        let mut left = most.saturating_sub((end - start) as usize);
        if end < self.sets {
            return false;
        }
        let after = |key: &&(u32, [u8; 16])| cursor.slot.is_some_and(|slot| **key <= slot);
        let first = cursor.slot.unwrap_or_default();
        let mut slots = self.slots.range(first..);
        let mut next = slots.next();
        while next.as_ref().is_some_and(|(key, _)| after(key)) {
            next = slots.next();
        }
        while let Some((key, &slot)) = next {
            if left == 0 {
                return false;
            }
            left -= 1;
            cursor.slot = Some(*key);
            let known = slot::read(self.slot(slot));
            let peer = slot::peer(&known, now);
            if Stamps::new(&peer, now) != known.stamps {
                slot::advance(self.slot(slot), known.stamps, now);
            }
            visit(&key.1, &peer, self.tallies.slot(slot));
            next = slots.next();
        }
        true
    }

    fn visit_set(&self, number: u32, now: Instant, visit: &mut impl FnMut(&[u8; 16], &Peer, u32)) {
        let set = self.set(number);
        for place in 0..PLACES {
            let Some(Occupant { address, stamps }) = set.occupant(place) else {
                continue;
            };
            if self.copies == Some(Copies(number)) && self.set_of(&address) != number {
                continue;
            }
            let peer = peer_in_entry(&address, stamps, now);
            if Stamps::new(&peer, now).0 != stamps.0 & !Stamps::ELSEWHERE {
                // So old that it would seem young in the end.
                set.advance(place, stamps, now);
            }
            visit(&address, &peer, Tallies::entry(number, place));
        }
    }
}
