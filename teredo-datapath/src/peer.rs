//! The peer of a packet: the search in the table of peers, and the peer's stamps.
//!
//! The daemon may give a place to another peer at any time. So the program loads the first word of an entry
//! once more after the second, and the word with the mapping of a slot after all others: if it is the same, all
//! fields are those of one peer. What the program writes replaces only what it has read.

use core::hint::cold_path;

use teredo_common::{
    address::Endpoint,
    peers::{ENTRY, FIRST_SET, Hash, LINE, PLACES, SLOT, SLOTS, Stamps},
    time::Instant,
    traffic::{Tallies, Tally, Towards},
};

use crate::{
    environment::{Environment, Words},
    headers::TeredoAddress,
    moment::Moment,
    settings,
    verifier::masked,
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
    place: Place<W>,
    /// The word that counts its packets in one direction, if they are counted.
    tally: Option<Place<W>>,
}

/// A word of a line, as its index. A pointer would have another offset for each place, and the verifier would follow the code
/// after the search once for each.
#[derive(Clone, Copy)]
struct Place<W> {
    line: W,
    index: usize,
}

impl<W: Words> Place<W> {
    /// Returns the word.
    #[inline(always)]
    fn word(self) -> W {
        self.line.from(masked::<{ LINE as i32 - 1 }>(self.index))
    }
}

/// Returns a peer; [`teredo_common::peers`] describes the search. A packet of it can be counted if that goes `towards` one
/// side.
#[inline(always)]
pub fn find<E: Environment>(
    environment: &E,
    address: TeredoAddress,
    towards: Option<Towards>,
) -> Option<Entry<E::Words>> {
    let hash = Hash::new(address.middle, address.client, settings::seed(environment));
    let number = environment.sets().set(hash);
    let set = environment.line(FIRST_SET + number)?;
    let tallies = tally(environment, towards, Tallies::entry(number, 0))?;
    if let Some(tallies) = tallies {
        // The processor fetches both lines at once.
        tallies.line.load(0);
    }
    let at = |place| {
        let place = masked::<{ PLACES as i32 - 1 }>(place);
        let tally = tallies.map(|first| Place {
            index: first.index + place,
            ..first
        });
        look_at(set, place * ENTRY, address, tally)
    };
    let probable = probable_place(set, address);
    let entry = at(probable);
    if entry.is_some() {
        return entry;
    }
    cold_path();
    let (_, flags) = split(set.load(hash.place() * ENTRY + 1));
    if flags & Stamps::ELSEWHERE != 0
        && let Some(entry) = find_slot(environment, address, towards)
    {
        return Some(entry);
    }
    // No other entry has the flags and the port then.
    if probable == 0 {
        return None;
    }
    at(place(set, address))
}

/// Returns the place of the entry in a set that has the flags and the port of an address. If there are more, it is any place
/// but the first; if there are none, it is the first.
#[inline(always)]
fn probable_place(set: impl Words, address: TeredoAddress) -> usize {
    let (_, wanted) = split(address.middle);
    choose(|place| {
        let (_, found) = split(set.load(place * ENTRY));
        found ^ wanted
    })
}

/// Returns the place of the entry in a set that has an address; if there is none, it is the first.
#[inline(always)]
fn place(set: impl Words, address: TeredoAddress) -> usize {
    choose(|place| {
        let (server, rest) = split(set.load(place * ENTRY) ^ address.middle);
        let (client, _) = split(set.load(place * ENTRY + 1));
        server | rest | (client ^ address.client)
    })
}

/// Returns the place whose difference is zero. If there are more, it is any but the first; if there are none, it is the
/// first. A branch would often be mispredicted, and what follows would wait for the entries.
#[inline(always)]
fn choose(difference: impl Fn(usize) -> u32) -> usize {
    const { assert!(PLACES == 4) }
    let is_zero = |place| u64::from(difference(place)).wrapping_sub(1) >> 63;
    let [one, two, three] = [is_zero(1), is_zero(2), is_zero(3)];
    (one | three | (two | three) << 1) as usize
}

/// Returns the word that counts the packets of a place in a direction, if they are counted. `None` if the table is shorter
/// than it should be.
#[inline(always)]
#[expect(
    clippy::option_option,
    reason = "a peer without its word is none to the verifier, which then follows one way less"
)]
fn tally<E: Environment>(
    environment: &E,
    towards: Option<Towards>,
    place: u32,
) -> Option<Option<Place<E::Words>>> {
    let tallies = settings::tallies(environment);
    let Some(towards) = towards.filter(|_| tallies.first != 0) else {
        return Some(None);
    };
    let (share, _) = tallies.share(environment.cpu());
    let (line, index) = tallies.word(share, towards, place);
    let line = environment.tallies(line)?;
    Some(Some(Place { line, index }))
}

/// Returns the peer if the entry at this place is its.
#[inline(always)]
fn look_at<W: Words>(
    set: W,
    index: usize,
    address: TeredoAddress,
    tally: Option<Place<W>>,
) -> Option<Entry<W>> {
    let entry = set.from(index);
    let first = entry.load(0);
    let entry = entry.after(first);
    let stamps = entry.load(1);
    let (client, _) = split(stamps);
    let difference = (first ^ address.middle) | u64::from(client ^ address.client);
    // The daemon may have replaced the peer between both loads.
    let is_its = difference == 0 && entry.after(stamps).load(0) == first;
    is_its.then(|| Entry {
        address: !address.client,
        port: !last(address.middle),
        stamps,
        place: Place {
            line: set,
            index: index + 1,
        },
        tally,
    })
}

/// Returns a peer that is in a slot.
#[inline(always)]
fn find_slot<E: Environment>(
    environment: &E,
    address: TeredoAddress,
    towards: Option<Towards>,
) -> Option<Entry<E::Words>> {
    let [a, b, c, d] = address.words();
    let number = environment.other_peer([a, b, c, d])?;
    let line = environment.line(number / SLOTS as u32)?;
    let first = (number as usize & (SLOTS - 1)) * SLOT;
    let slot = line.from(first);
    let mapped = slot.load(SLOT_MAPPED);
    let slot = slot.after(mapped);
    let difference =
        (slot.load(SLOT_ADDRESS) ^ join(a, b)) | (slot.load(SLOT_ADDRESS + 1) ^ join(c, d));
    let stamps = slot.load(SLOT_STAMPS);
    let tally = tally(
        environment,
        towards,
        number.wrapping_add(settings::first_slot(environment)),
    )?;
    let is_its = difference == 0 && slot.after(difference | stamps).load(SLOT_MAPPED) == mapped;
    let (address, rest) = split(mapped);
    let [e, f, ..] = rest.to_ne_bytes();
    let port = u16::from_ne_bytes([e, f]);
    (is_its && port != 0).then(|| Entry {
        address,
        port,
        stamps,
        place: Place {
            line,
            index: first + SLOT_STAMPS,
        },
        tally,
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
        self.count(environment, octets);
    }

    /// Notes that a packet was sent to the peer, and counts its octets.
    #[inline(always)]
    pub fn sent(self, environment: &impl Environment, now: Instant, octets: usize) {
        self.stamp(self.stamps().sent(now));
        self.count(environment, octets);
    }

    #[inline(always)]
    fn count(self, environment: &impl Environment, octets: usize) {
        let Some(tally) = self.tally else {
            return;
        };
        let tally = tally.word();
        let tallies = settings::tallies(environment);
        let is_own = tallies.others == 0 || tallies.share(environment.cpu()).1;
        let Tally(one) = Tally::one(octets);
        match is_own {
            // Nobody else writes it.
            true => tally.store(0, tally.load(0).wrapping_add(one)),
            false => {
                cold_path();
                tally.add(0, one);
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
            let word = self.place.word();
            word.compare_exchange(0, self.stamps, join(other, stamps));
        }
    }
}
