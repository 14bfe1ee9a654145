//! The peer of a packet: the search in the table of peers, and the peer's stamps.
//!
//! The daemon may give a place to another peer at any time. So the program loads the first word of an entry
//! once more after the second, and the word with the mapping of a slot after all others: if it is the same, all
//! fields are those of one peer. What the program writes replaces only what it has read.

use core::hint::cold_path;

use teredo_common::{
    address::Endpoint,
    peers::{ENTRY, FIRST_SET, Hash, PLACES, SLOT, SLOTS, Stamps},
    time::Instant,
    traffic::{Tallies, Tally, Towards},
};

use crate::{
    environment::{Environment, Words},
    headers::TeredoAddress,
    moment::Moment,
    settings,
    words::{SLOT_ADDRESS, SLOT_MAPPED, SLOT_STAMPS, join, last, split},
};

/// A peer of the table, in registers.
#[derive(Clone, Copy)]
pub struct Entry<W> {
    /// IPv4 address of the mapping, network byte order.
    pub address: u32,
    /// UDP port of the mapping, network byte order.
    pub port: u16,
    /// The word with the stamps, as it was.
    stamps: u64,
    /// The place of that word.
    words: W,
    /// The number of the peer's place; see [`Tallies`].
    place: u32,
}

/// Returns a peer; [`teredo_common::peers`] describes the search.
#[inline(always)]
pub fn find<E: Environment>(environment: &E, address: TeredoAddress) -> Option<Entry<E::Words>> {
    let hash = Hash::new(address.middle, address.client, settings::seed(environment));
    let number = environment.sets().set(hash);
    let set = environment.line(FIRST_SET + number)?;
    let home = set.from(hash.place() * ENTRY);
    let (entry, stamps) = look_at(home, address, Tallies::entry(number, hash.place()));
    if entry.is_some() {
        return entry;
    }
    cold_path();
    if stamps.0 & Stamps::SPREAD != 0 {
        for step in 1..PLACES {
            let place = hash.place() ^ step;
            let other = set.from(place * ENTRY);
            let (entry, _) = look_at(other, address, Tallies::entry(number, place));
            if entry.is_some() {
                return entry;
            }
        }
    }
    if stamps.0 & Stamps::ELSEWHERE != 0 {
        return find_slot(environment, address);
    }
    None
}

/// Returns the peer if the entry at this place is its, and the stamps in the entry.
#[inline(always)]
fn look_at<W: Words>(entry: W, address: TeredoAddress, place: u32) -> (Option<Entry<W>>, Stamps) {
    let first = entry.load(0);
    let entry = entry.after(first);
    let stamps = entry.load(1);
    let (client, flags) = split(stamps);
    let difference = (first ^ address.middle) | u64::from(client ^ address.client);
    // The daemon may have replaced the peer between both loads.
    let is_its = difference == 0 && entry.after(stamps).load(0) == first;
    let entry = is_its.then(|| Entry {
        address: !address.client,
        port: !last(address.middle),
        stamps,
        words: entry.from(1),
        place,
    });
    (entry, Stamps(flags))
}

/// Returns a peer that is in a slot.
#[inline(always)]
fn find_slot<E: Environment>(environment: &E, address: TeredoAddress) -> Option<Entry<E::Words>> {
    let [a, b, c, d] = address.words();
    let number = environment.other_peer([a, b, c, d])?;
    let line = environment.line(number / SLOTS as u32)?;
    let slot = line.from((number as usize & (SLOTS - 1)) * SLOT);
    let mapped = slot.load(SLOT_MAPPED);
    let slot = slot.after(mapped);
    let difference =
        (slot.load(SLOT_ADDRESS) ^ join(a, b)) | (slot.load(SLOT_ADDRESS + 1) ^ join(c, d));
    let stamps = slot.load(SLOT_STAMPS);
    let is_its = difference == 0 && slot.after(difference | stamps).load(SLOT_MAPPED) == mapped;
    let (address, rest) = split(mapped);
    let [e, f, ..] = rest.to_ne_bytes();
    let port = u16::from_ne_bytes([e, f]);
    (is_its && port != 0).then(|| Entry {
        address,
        port,
        stamps,
        words: slot.from(SLOT_STAMPS),
        place: number.wrapping_add(settings::first_slot(environment)),
    })
}

impl<W: Words> Entry<W> {
    /// Whether the peer was heard within the lifetime.
    #[inline(always)]
    pub fn is_fresh(self, environment: &impl Environment, moment: Moment) -> bool {
        let lifetime = settings::peer_lifetime(environment);
        moment.has_ages() && self.stamps().is_fresh(moment.now, lifetime)
    }

    /// Whether the mapping is this endpoint, both in network byte order.
    #[inline(always)]
    pub fn is_at(self, address: u32, port: u16) -> bool {
        self.address == address && self.port == port
    }

    /// Returns the peer's endpoint.
    #[inline(always)]
    pub fn mapped(self) -> Endpoint {
        Endpoint {
            address: self.address.to_ne_bytes(),
            port: self.port.to_ne_bytes(),
        }
    }

    /// Notes that a packet of the peer arrived, and counts its octets.
    #[inline(always)]
    pub fn received(self, environment: &impl Environment, now: Instant, octets: usize) {
        self.stamp(self.stamps().received(now));
        self.count(environment, Towards::Native, octets);
    }

    /// Notes that a packet was sent to the peer, and counts its octets.
    #[inline(always)]
    pub fn sent(self, environment: &impl Environment, now: Instant, octets: usize) {
        self.stamp(self.stamps().sent(now));
        self.count(environment, Towards::Peer, octets);
    }

    #[inline(always)]
    fn count<E: Environment>(self, environment: &E, towards: Towards, octets: usize) {
        let tallies = settings::tallies(environment);
        if tallies.first == 0 {
            return;
        }
        let (share, is_own) = tallies.share(environment.cpu());
        let (line, index) = tallies.word(share, towards, self.place);
        let Some(words) = environment.tallies(line) else {
            cold_path();
            return;
        };
        let (words, Tally(one)) = (words.from(index), Tally::one(octets));
        match is_own {
            // Nobody else writes it.
            true => words.store(0, words.load(0).wrapping_add(one)),
            false => {
                cold_path();
                words.add(0, one);
            }
        }
    }

    #[inline(always)]
    fn stamps(self) -> Stamps {
        Stamps(split(self.stamps).1)
    }

    /// Replaces the stamps, unless they are the same, or others since.
    #[inline(always)]
    fn stamp(self, Stamps(stamps): Stamps) {
        let (other, seen) = split(self.stamps);
        if stamps != seen {
            cold_path();
            self.words
                .compare_exchange(0, self.stamps, join(other, stamps));
        }
    }
}
