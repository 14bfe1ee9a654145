//! One set of entries.

use teredo_common::{
    address::ServicePrefix,
    peers::{ENTRY, PLACES, Stamps},
    time::Instant,
};

use crate::{
    Publish,
    words::{join, split},
};

/// The entries of a set.
#[derive(Clone, Copy)]
pub struct Set<W> {
    /// The words of the line.
    pub words: W,
    /// The first 32 bits of all addresses.
    pub prefix: ServicePrefix,
}

/// A peer in an entry.
#[derive(Clone, Copy)]
pub struct Occupant {
    /// The peer's address.
    pub address: [u8; 16],
    /// Its stamps, and the flag of the place.
    pub stamps: Stamps,
}

impl<W: Publish> Set<W> {
    /// Returns the peer at a place.
    pub fn occupant(self, place: usize) -> Option<Occupant> {
        let first = self.entry(place).load(0);
        let (client, stamps) = split(self.entry(place).load(1));
        let (server, flags_and_port) = split(first);
        let prefix = u32::from_ne_bytes(self.prefix.0);
        (first != 0).then_some(Occupant {
            address: bytemuck::cast([prefix, server, flags_and_port, client]),
            stamps: Stamps(stamps),
        })
    }

    /// Iterates over all peers of the set.
    pub fn occupants(self) -> impl Iterator<Item = Occupant> {
        (0..PLACES).filter_map(move |place| self.occupant(place))
    }

    /// Returns an empty place.
    pub fn vacancy(self) -> Option<usize> {
        (0..PLACES).find(|&place| self.entry(place).load(0) == 0)
    }

    /// Puts a peer into an empty place.
    pub fn fill(self, place: usize, address: &[u8; 16], Stamps(stamps): Stamps) {
        let [_, server, flags_and_port, client] = bytemuck::cast(*address);
        self.change(place, |_, old| {
            join(
                client,
                old & Stamps::ELSEWHERE | stamps & !Stamps::ELSEWHERE,
            )
        });
        self.entry(place).publish(0, join(server, flags_and_port));
    }

    /// Empties a place.
    pub fn clear(self, place: usize) {
        self.entry(place).publish(0, 0);
        self.change(place, |_, old| join(0, old & Stamps::ELSEWHERE));
    }

    /// Advances the stamps of a peer.
    pub fn advance(self, place: usize, stamps: Stamps, now: Instant) {
        self.change(place, |client, old| {
            join(client, Stamps(old).latest(stamps, now).0)
        });
    }

    /// Sets the flags of all places: whether peers whose hashes have chosen them are in slots.
    pub fn flag(self, elsewhere: [bool; PLACES]) {
        for (place, is_elsewhere) in elsewhere.into_iter().enumerate() {
            let flag = match is_elsewhere {
                true => Stamps::ELSEWHERE,
                false => 0,
            };
            self.change(place, |client, old| {
                join(client, old & !Stamps::ELSEWHERE | flag)
            });
        }
    }

    fn entry(self, place: usize) -> W {
        self.words.from(place * ENTRY)
    }

    /// Replaces the client's IPv4 address, the stamps and the flag of a place, which the program may change
    /// meanwhile.
    fn change(self, place: usize, change: impl Fn(u32, u32) -> u64) {
        let entry = self.entry(place);
        loop {
            let seen = entry.load(1);
            let (client, stamps) = split(seen);
            let new = change(client, stamps);
            if new == seen || entry.compare_exchange(1, seen, new) {
                return;
            }
        }
    }
}
