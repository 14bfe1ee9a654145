//! The line of those that wait for one server.

use std::collections::{BTreeMap, VecDeque};

use crate::shared::party::{LENGTHS, Party, network};

/// The place of a peer in the line for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Address of the peer.
    pub peer: [u8; 16],
    /// Number of the turn; no other has the same.
    pub number: u64,
}

/// Those that wait for one server. The largest networks take turns, the networks in each of them
/// take the turns of that network, and so on down to the parties, each of which is served in the
/// order of arrival. So however much a network wants, and however many parties it has, others wait
/// no longer for it.
#[derive(Debug, Default)]
pub struct Line {
    network: Network,
    /// Number of those that wait.
    pub length: usize,
}

impl Line {
    /// Lets a turn wait.
    pub fn push(&mut self, party: Party, turn: Turn) {
        self.network.push(&LENGTHS, party, turn);
        self.length += 1;
    }

    /// Whether anybody waits, after turns that do not hold are forgotten as far as they are next.
    pub fn has_next(&mut self, holds: impl Fn(Turn) -> bool) -> bool {
        self.network.has_next(&holds, &mut self.length)
    }

    /// Removes the next turn, of which [`Line::has_next`] has found that it holds.
    pub fn pop(&mut self) -> Option<Turn> {
        let turn = self.network.pop();
        self.length -= usize::from(turn.is_some());
        turn
    }

    /// Forgets the turns that do not hold.
    pub fn retain(&mut self, holds: impl Fn(Turn) -> bool) {
        self.length = self.network.retain(&holds);
    }
}

/// The turns of one network: those of the networks in it, or, if it is a party, its own.
#[derive(Debug, Default)]
struct Network {
    order: VecDeque<Party>,
    parts: BTreeMap<Party, Network>,
    turns: VecDeque<Turn>,
}

impl Network {
    fn push(&mut self, lengths: &[usize], party: Party, turn: Turn) {
        let Some((&length, rest)) = lengths.split_first() else {
            self.turns.push_back(turn);
            return;
        };
        let key = network(party, length);
        let part = self.parts.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Self::default()
        });
        part.push(rest, party, turn);
    }

    fn has_next(&mut self, holds: &impl Fn(Turn) -> bool, length: &mut usize) -> bool {
        while let Some(&turn) = self.turns.front() {
            if holds(turn) {
                return true;
            }
            self.turns.pop_front();
            *length -= 1;
        }
        while let Some(key) = self.order.front() {
            let part = self.parts.get_mut(key);
            if part.is_some_and(|part| part.has_next(holds, length)) {
                return true;
            }
            self.parts.remove(key);
            self.order.pop_front();
        }
        false
    }

    fn pop(&mut self) -> Option<Turn> {
        let Some(key) = self.order.front() else {
            return self.turns.pop_front();
        };
        let turn = self.parts.get_mut(key)?.pop();
        self.order.rotate_left(1);
        turn
    }

    /// Returns the number of turns that are left.
    fn retain(&mut self, holds: &impl Fn(Turn) -> bool) -> usize {
        self.turns.retain(|&turn| holds(turn));
        let mut left = self.turns.len();
        self.parts.retain(|_, part| {
            let of_part = part.retain(holds);
            left += of_part;
            of_part > 0
        });
        let parts = &self.parts;
        self.order.retain(|key| parts.contains_key(key));
        left
    }
}
