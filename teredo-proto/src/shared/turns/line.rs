//! The line of those that wait for one server.

use std::collections::{BTreeMap, VecDeque};

use crate::shared::party::{LENGTHS, NOBODY, Party, network};

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
        self.network.push(party, turn);
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

/// The turns of one network. In a flood, lines wait for many servers, most of them with one or two parties: a line takes no
/// more memory than those need.
#[derive(Debug)]
enum Network {
    /// Those of one party, in the order of arrival.
    Party(Party, VecDeque<Turn>),
    /// Those of several.
    Parts(Box<Parts>),
}

/// The networks in a network.
#[derive(Debug)]
struct Parts {
    /// A party of this network.
    member: Party,
    /// The length of the largest networks by which its parties differ.
    length: usize,
    /// The networks of this length, in the order of their next turns.
    order: VecDeque<Party>,
    parts: BTreeMap<Party, Network>,
}

impl Default for Network {
    fn default() -> Self {
        Self::Party(NOBODY, VecDeque::new())
    }
}

/// Returns the length of the largest networks by which two parties differ.
fn difference(one: Party, other: Party) -> Option<usize> {
    LENGTHS
        .into_iter()
        .find(|&length| network(one, length) != network(other, length))
}

impl Network {
    /// Lets a turn wait.
    fn push(&mut self, party: Party, turn: Turn) {
        let member = match self {
            Self::Party(own, turns) if turns.is_empty() => {
                *own = party;
                // As small as most lines are.
                turns.reserve_exact(1);
                turns.push_back(turn);
                return;
            }
            Self::Party(member, _) => *member,
            Self::Parts(parts) => parts.member,
        };
        let difference = difference(member, party);
        match (&mut *self, difference) {
            (Self::Party(_, turns), None) => turns.push_back(turn),
            (Self::Parts(parts), length) if length.is_none_or(|length| length >= parts.length) => {
                parts.push(party, turn);
            }
            (_, length) => {
                let length = length.unwrap_or(member.len());
                let key = network(member, length);
                let mut parts = Parts {
                    member,
                    length,
                    order: VecDeque::from([key]),
                    parts: BTreeMap::from([(key, std::mem::take(self))]),
                };
                parts.push(party, turn);
                *self = Self::Parts(Box::new(parts));
            }
        }
    }

    fn has_next(&mut self, holds: &impl Fn(Turn) -> bool, length: &mut usize) -> bool {
        match self {
            Self::Party(_, turns) => {
                while let Some(&turn) = turns.front() {
                    if holds(turn) {
                        return true;
                    }
                    turns.pop_front();
                    *length -= 1;
                }
            }
            Self::Parts(parts) => {
                let Parts { order, parts, .. } = &mut **parts;
                while let Some(key) = order.front() {
                    let part = parts.get_mut(key);
                    if part.is_some_and(|part| part.has_next(holds, length)) {
                        return true;
                    }
                    parts.remove(key);
                    order.pop_front();
                }
            }
        }
        false
    }

    fn pop(&mut self) -> Option<Turn> {
        match self {
            Self::Party(_, turns) => turns.pop_front(),
            Self::Parts(parts) => {
                let turn = parts.parts.get_mut(parts.order.front()?)?.pop();
                parts.order.rotate_left(1);
                turn
            }
        }
    }

    /// Returns the number of turns that are left.
    fn retain(&mut self, holds: &impl Fn(Turn) -> bool) -> usize {
        match self {
            Self::Party(_, turns) => {
                turns.retain(|&turn| holds(turn));
                turns.len()
            }
            Self::Parts(parts) => {
                let Parts { order, parts, .. } = &mut **parts;
                let mut left = 0;
                parts.retain(|_, part| {
                    let of_part = part.retain(holds);
                    left += of_part;
                    of_part > 0
                });
                order.retain(|key| parts.contains_key(key));
                left
            }
        }
    }
}

impl Parts {
    fn push(&mut self, party: Party, turn: Turn) {
        let key = network(party, self.length);
        let part = self.parts.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Network::default()
        });
        part.push(party, turn);
    }
}
