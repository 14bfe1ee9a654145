//! The pace of packets through one server, and the turns of those that have to wait (L-18).
//!
//! A server limits what one address may cause (S-23), and says nothing when it refuses a packet. So
//! the sender keeps below the limit that a server of this project has by default: what exceeds it
//! waits here, where it is not lost. Servers whose limit is higher are found by trial: the pace
//! doubles as long as the answers keep up with it.
//!
//! The servers of one /24 have a pace together, and so have all servers. Three quarters of the latter
//! are for servers that answered lately: a flood that names servers at random leaves them alone.

mod line;
mod pace;

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::BuildHasher as _,
};

use serde::{Deserialize, Serialize};
use teredo_common::time::Instant;

use super::{
    keyed::Keyed,
    limiter::{SavedBuckets, Tier, Tiers},
    party::Party,
};
use line::Line;
use pace::{Part, Server};

pub use line::Turn;
pub use pace::Pace;

/// The part of the total pace that is for servers that did not answer lately, as a divisor.
const STRANGERS: u32 = 4;
/// Turns that do not hold, besides as many as those that do.
const SPARE: usize = 64;
/// Length of the networks of servers that have a pace together, in octets.
const NETWORK: usize = 3;

/// The servers that have lines.
#[derive(Debug)]
struct Class {
    /// When the first in a line may go, at the latest.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The pace of all servers of the class.
    total: Tiers,
}

impl Class {
    fn new(tier: Tier, keyed: Keyed) -> Self {
        Self {
            due: BinaryHeap::new(),
            total: Tiers::new(&[tier], keyed),
        }
    }

    /// When the first in a line may go.
    fn deadline(&self) -> Option<Instant> {
        let &Reverse((at, _)) = self.due.peek()?;
        Some(at.max(self.total.free_at(&[])))
    }
}

/// Index of the class of servers that answered lately.
const KNOWN: usize = 0;
/// Index of the class of other servers.
const UNKNOWN: usize = 1;

/// Decides when packets may go through servers.
#[derive(Debug)]
pub struct Turns {
    pace: Part,
    keyed: Keyed,
    /// Servers whose hashes meet share a pace, as [`super::limiter::Buckets`] do.
    servers: Box<[Server]>,
    /// Those for which peers wait.
    lines: HashMap<usize, ([u8; 4], Line), Keyed>,
    classes: [Class; 2],
    networks: Tiers,
    waiting: usize,
    /// The most that wait before [`Turns::compact`] looks for those that do not any more.
    most: usize,
    last_number: u64,
}

/// The paces towards all servers. Those that wait are not part of it: each peer asks for another turn.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedTurns {
    /// The servers of which something is known, each with its place.
    servers: Vec<(u32, Server)>,
    networks: Vec<SavedBuckets>,
}

impl Turns {
    /// Creates turns for `servers` servers, at least one.
    pub(crate) fn new(pace: Pace, servers: usize, keyed: Keyed) -> Self {
        let pace = Part {
            whole: pace,
            relays: 1,
        };
        let [known, unknown] = Self::class_tiers(pace);
        Self {
            pace,
            keyed,
            servers: vec![Server::default(); servers.max(1)].into(),
            lines: HashMap::with_hasher(keyed),
            classes: [Class::new(known, keyed), Class::new(unknown, keyed)],
            networks: Tiers::new(&[Self::network(pace)], keyed),
            waiting: 0,
            most: SPARE,
            last_number: 0,
        }
    }

    const fn network(pace: Part) -> Tier {
        let per_second = pace.whole.network;
        Tier::new(NETWORK, pace.rate(per_second, per_second))
    }

    /// Returns the rate of each class.
    const fn class_tiers(pace: Part) -> [Tier; 2] {
        let total = pace.whole.total;
        let unknown = total / STRANGERS;
        let known = total - unknown;
        [
            Tier::new(0, pace.rate(known, known)),
            Tier::new(0, pace.rate(unknown, unknown)),
        ]
    }

    /// Divides the pace among as many relays, this one among them. Those that wait keep their places.
    pub(crate) fn divide_among(&mut self, relays: u32) {
        let pace = Part {
            relays: relays.max(1),
            ..self.pace
        };
        self.pace = pace;
        self.networks.set_rates(&[Self::network(pace)]);
        for (class, tier) in self.classes.iter_mut().zip(Self::class_tiers(pace)) {
            class.total.set_rates(&[tier]);
        }
    }

    /// Returns the paces.
    pub fn save(&self, now: Instant) -> SavedTurns {
        let servers = (0..).zip(&self.servers);
        SavedTurns {
            servers: servers
                .filter(|(_, server)| server.is_used())
                .map(|(slot, server)| (slot, *server))
                .collect(),
            networks: self.networks.save(now),
        }
    }

    /// Sets the paces that were stored, with the same key of the hash.
    pub fn restore(&mut self, saved: &SavedTurns) {
        for (slot, server) in &saved.servers {
            if let Some(place) = self.servers.get_mut(*slot as usize) {
                *place = *server;
            }
        }
        self.networks.restore(&saved.networks);
    }

    /// Whether a packet may go through `server` now; if so, counts it as sent. It may not if others
    /// wait for that server.
    pub fn take(&mut self, server: [u8; 4], now: Instant) -> bool {
        let slot = self.slot(server);
        let class = self.class(slot, now);
        !self.lines.contains_key(&slot) && self.take_from(class, server, slot, now)
    }

    /// Takes a token for a packet through a server from everything that has a pace, or from nothing.
    fn take_from(&mut self, class: usize, server: [u8; 4], slot: usize, now: Instant) -> bool {
        let total = &mut self.classes[class].total;
        let is_taken = total.free_at(&[]) <= now
            && self.networks.free_at(&server) <= now
            && self.servers[slot].take(self.pace, now);
        is_taken && total.take(&[], now) && self.networks.take(&server, now)
    }

    /// Returns the class of a server.
    fn class(&self, slot: usize, now: Instant) -> usize {
        match self.servers[slot].is_known(now) {
            true => KNOWN,
            false => UNKNOWN,
        }
    }

    /// Returns when a server's own pace and that of its network have a token.
    fn free_at(&self, server: [u8; 4], slot: usize) -> Instant {
        let own = self.servers[slot].free_at(self.pace);
        own.max(self.networks.free_at(&server))
    }

    /// Lets a peer wait until [`Turns::next`] returns its turn, and returns the turn's number.
    pub fn wait(&mut self, server: [u8; 4], party: Party, peer: [u8; 16], now: Instant) -> u64 {
        self.last_number += 1;
        let turn = Turn {
            peer,
            number: self.last_number,
        };
        let slot = self.slot(server);
        if !self.lines.contains_key(&slot) {
            let free = self.free_at(server, slot);
            let class = self.class(slot, now);
            self.classes[class].due.push(Reverse((free, slot)));
        }
        let (_, line) = self
            .lines
            .entry(slot)
            .or_insert_with(|| (server, Line::default()));
        line.push(party, turn);
        self.waiting += 1;
        turn.number
    }

    /// Returns the next turn that has come, and counts its packet as sent. Skips those for which
    /// `holds` is false.
    pub fn next(&mut self, now: Instant, holds: impl Fn(Turn) -> bool) -> Option<Turn> {
        [KNOWN, UNKNOWN]
            .into_iter()
            .find_map(|class| self.next_of(class, now, &holds))
    }

    fn next_of(
        &mut self,
        class: usize,
        now: Instant,
        holds: &impl Fn(Turn) -> bool,
    ) -> Option<Turn> {
        while self.classes[class].deadline().is_some_and(|at| at <= now) {
            let Reverse((_, slot)) = self.classes[class].due.pop()?;
            let Some((server, line)) = self.lines.get_mut(&slot) else {
                continue;
            };
            let server = *server;
            let before = line.length;
            let has_next = line.has_next(holds);
            self.waiting -= before - line.length;
            if !has_next {
                self.lines.remove(&slot);
                continue;
            }
            let is_taken = self.take_from(class, server, slot, now);
            let turn = match self.lines.get_mut(&slot) {
                Some((_, line)) if is_taken => line.pop(),
                _ => None,
            };
            self.waiting -= usize::from(turn.is_some());
            let free = self.free_at(server, slot);
            let class = self.class(slot, now);
            self.classes[class].due.push(Reverse((free, slot)));
            if turn.is_some() {
                return turn;
            }
        }
        None
    }

    /// Records that a peer of `server` answered what was sent to it.
    pub fn answered(&mut self, server: [u8; 4], now: Instant) {
        let slot = self.slot(server);
        self.servers[slot].answered(now);
    }

    /// Forgets the turns for which `holds` is false, when there may be more of them than of others; costs O(1) for each
    /// [`Turns::wait`].
    pub fn compact(&mut self, holds: impl Fn(Turn) -> bool) {
        if self.waiting <= self.most {
            return;
        }
        self.lines.retain(|_, (_, line)| {
            line.retain(&holds);
            line.length > 0
        });
        self.waiting = self.lines.values().map(|(_, line)| line.length).sum();
        self.most = 2 * self.waiting + SPARE;
        let lines = &self.lines;
        for class in &mut self.classes {
            class
                .due
                .retain(|Reverse((_, slot))| lines.contains_key(slot));
        }
    }

    /// Returns when [`Turns::next`] may have something to return, or `None` if nobody waits.
    pub fn deadline(&self) -> Option<Instant> {
        let classes = self.classes.iter();
        classes.filter_map(Class::deadline).min()
    }

    /// Returns the number of those that wait. Some of them may have lost interest.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    fn slot(&self, server: [u8; 4]) -> usize {
        self.keyed.hash_one(server) as usize % self.servers.len()
    }
}
