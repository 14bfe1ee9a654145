//! The line of those that wait for one server.

use std::collections::{HashMap, VecDeque};

use crate::shared::keyed::Keyed;

/// The party on whose behalf a packet goes through a server. Parties take turns, however much each
/// of them wants.
pub type Party = [u8; 8];

/// The place of a peer in the line for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Address of the peer.
    pub peer: [u8; 16],
    /// Number of the turn; no other has the same.
    pub number: u64,
}

/// Those that wait for one server: parties take turns, and each is served in the order of arrival.
#[derive(Debug)]
pub struct Line {
    order: VecDeque<Party>,
    parties: HashMap<Party, VecDeque<Turn>, Keyed>,
    /// Number of those that wait.
    pub length: usize,
}

impl Line {
    pub fn new(keyed: Keyed) -> Self {
        Self {
            order: VecDeque::new(),
            parties: HashMap::with_hasher(keyed),
            length: 0,
        }
    }

    pub fn push(&mut self, party: Party, turn: Turn) {
        let turns = self.parties.entry(party).or_insert_with(|| {
            self.order.push_back(party);
            VecDeque::new()
        });
        turns.push_back(turn);
        self.length += 1;
    }

    /// Returns the party whose turn it is, after turns that do not hold are forgotten.
    pub fn find(&mut self, holds: impl Fn(Turn) -> bool) -> Option<Party> {
        while let Some(&party) = self.order.front() {
            let turns = self.parties.entry(party).or_default();
            while let Some(&turn) = turns.front() {
                if holds(turn) {
                    return Some(party);
                }
                turns.pop_front();
                self.length -= 1;
            }
            self.parties.remove(&party);
            self.order.pop_front();
        }
        None
    }

    /// Removes the first turn of the party that [`Line::find`] returned, which is the last of all
    /// then.
    pub fn pop(&mut self, party: Party) -> Option<Turn> {
        let turn = self.parties.get_mut(&party)?.pop_front();
        self.length -= usize::from(turn.is_some());
        self.order.rotate_left(1);
        turn
    }

    pub fn retain(&mut self, holds: impl Fn(Turn) -> bool) {
        self.parties.retain(|_, turns| {
            turns.retain(|&turn| holds(turn));
            !turns.is_empty()
        });
        let parties = &self.parties;
        self.order.retain(|party| parties.contains_key(party));
        self.length = self.parties.values().map(VecDeque::len).sum();
    }
}
