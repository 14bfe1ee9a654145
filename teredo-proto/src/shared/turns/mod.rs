//! The pace of packets through one server, and the turns of those that have to wait (L-18).
//!
//! A server limits what one address may cause (S-23), and says nothing when it refuses a packet. So
//! the sender keeps below the limit that a server of this project has by default: what exceeds it
//! waits here, where it is not lost. Servers whose limit is higher are found by trial: the pace
//! doubles as long as the answers keep up with it.

mod line;
mod pace;

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::BuildHasher as _,
};

use teredo_common::time::Instant;

use super::keyed::Keyed;
use line::Line;
use pace::Server;

pub use line::{Party, Turn};
pub use pace::Pace;

/// Decides when packets may go through servers.
#[derive(Debug)]
pub struct Turns {
    pace: Pace,
    keyed: Keyed,
    /// Servers whose hashes meet share a pace, as [`super::limiter::Buckets`] do.
    servers: Box<[Server]>,
    /// Those for which peers wait.
    lines: HashMap<usize, Line, Keyed>,
    /// When the first in a line may go, at the latest.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    waiting: usize,
    last_number: u64,
}

impl Turns {
    /// Creates turns for `servers` servers, at least one.
    pub(crate) fn new(pace: Pace, servers: usize, keyed: Keyed) -> Self {
        Self {
            pace,
            keyed,
            servers: vec![Server::default(); servers.max(1)].into(),
            lines: HashMap::with_hasher(keyed),
            due: BinaryHeap::new(),
            waiting: 0,
            last_number: 0,
        }
    }

    /// Whether a packet may go through `server` now; if so, counts it as sent. It may not if others
    /// wait for that server.
    pub fn take(&mut self, server: [u8; 4], now: Instant) -> bool {
        let slot = self.slot(server);
        !self.lines.contains_key(&slot) && self.servers[slot].take(self.pace, now)
    }

    /// Lets a peer wait until [`Turns::next`] returns its turn, and returns the turn's number.
    pub fn wait(&mut self, server: [u8; 4], party: Party, peer: [u8; 16]) -> u64 {
        self.last_number += 1;
        let turn = Turn {
            peer,
            number: self.last_number,
        };
        let slot = self.slot(server);
        let keyed = self.keyed;
        let line = self.lines.entry(slot).or_insert_with(|| {
            let free = self.servers[slot].free_at(self.pace);
            self.due.push(Reverse((free, slot)));
            Line::new(keyed)
        });
        line.push(party, turn);
        self.waiting += 1;
        turn.number
    }

    /// Returns the next turn that has come, and counts its packet as sent. Skips those for which
    /// `holds` is false.
    pub fn next(&mut self, now: Instant, holds: impl Fn(Turn) -> bool) -> Option<Turn> {
        while let Some(&Reverse((at, slot))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            let server = &mut self.servers[slot];
            let Some(line) = self.lines.get_mut(&slot) else {
                continue;
            };
            let before = line.length;
            let next = line.find(&holds);
            self.waiting -= before - line.length;
            let Some(party) = next else {
                self.lines.remove(&slot);
                continue;
            };
            let turn = match server.take(self.pace, now) {
                true => line.pop(party),
                false => None,
            };
            self.waiting -= usize::from(turn.is_some());
            self.due.push(Reverse((server.free_at(self.pace), slot)));
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// Records that a peer of `server` answered what was sent to it.
    pub fn answered(&mut self, server: [u8; 4]) {
        let slot = self.slot(server);
        self.servers[slot].answered();
    }

    /// Forgets the turns for which `holds` is false, when there are more than twice as many as
    /// `peers`; costs O(1) for each [`Turns::wait`].
    pub fn compact(&mut self, peers: usize, holds: impl Fn(Turn) -> bool) {
        if self.waiting <= 2 * peers + 64 {
            return;
        }
        self.lines.retain(|_, line| {
            line.retain(&holds);
            line.length > 0
        });
        self.waiting = self.lines.values().map(|line| line.length).sum();
        let lines = &self.lines;
        self.due
            .retain(|Reverse((_, slot))| lines.contains_key(slot));
    }

    /// Returns when [`Turns::next`] may have something to return, or `None` if nobody waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.peek().map(|&Reverse((at, _))| at)
    }

    /// Returns the number of those that wait. Some of them may have lost interest.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn slot(&self, server: [u8; 4]) -> usize {
        self.keyed.hash_one(server) as usize % self.servers.len()
    }
}
