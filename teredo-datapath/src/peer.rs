//! The peer of a packet: the search in the table of peers, and the fields of its slot.
//!
//! The daemon may give the slot to another peer at any time. So the program loads the word with the
//! mapping before everything else, and once more after the last load ([`Entry::is_current`]): if it is
//! the same, all fields are those of one peer. What the program writes replaces only what it has read:
//! the stamps of another peer are others.

use teredo_common::{
    address::Endpoint,
    maps::{MAX_REACH, Peer, STAMP_RESOLUTION, Slot},
    time::Instant,
};

use crate::{
    environment::{Environment, Words},
    settings,
    words::{ADDRESS, LAST_RECEIVED, LAST_SENT, MAPPED, NEXT_HOP, join},
};

const RESOLUTION: u64 = STAMP_RESOLUTION.as_nanos() as u64;

/// The slot of a peer, for loads that come after the search.
#[derive(Clone, Copy)]
pub struct Entry<W> {
    words: W,
    /// The word with mapping, flags and reach before the search.
    mapped: u64,
}

/// Returns the slot of a peer; [`teredo_common::maps`] describes the search.
#[inline(always)]
pub fn find<E: Environment>(environment: &E, address: [u32; 4]) -> Option<Entry<E::Words>> {
    let home = settings::peer_table(environment).home(address);
    let [a, b, c, d] = address;
    let address = [join(a, b), join(c, d)];
    let first = environment.slot(home)?;
    let mapped = first.load(MAPPED);
    if let Some(entry) = Entry::of(first, mapped, address) {
        return Some(entry);
    }
    let [.., reach] = mapped.to_ne_bytes();
    for distance in 1..=MAX_REACH {
        if distance > reach {
            return None;
        }
        let words = environment.slot(home + u32::from(distance))?;
        if let Some(entry) = Entry::of(words, words.load(MAPPED), address) {
            return Some(entry);
        }
    }
    None
}

impl<W: Words> Entry<W> {
    /// Returns the slot if it holds the peer.
    #[inline(always)]
    fn of(words: W, mapped: u64, [first, second]: [u64; 2]) -> Option<Self> {
        let words = words.after(mapped);
        let difference = (words.load(ADDRESS) ^ first) | (words.load(ADDRESS + 1) ^ second);
        (difference == 0).then(|| Self {
            words: words.after(difference),
            mapped,
        })
    }

    /// Returns the peer if userspace trusts it and it was heard within the lifetime.
    #[inline(always)]
    pub fn usable(self, environment: &impl Environment, now: Instant) -> Option<Usable> {
        let [a, b, c, d, e, f, flags, _] = self.mapped.to_ne_bytes();
        let peer = Usable {
            address: u32::from_ne_bytes([a, b, c, d]),
            port: u16::from_ne_bytes([e, f]),
            flags: u16::from(flags & Slot::FLAGS),
            last_received: self.words.load(LAST_RECEIVED),
        };
        let lifetime = settings::peer_lifetime(environment);
        let fresh = is_within(peer.last_received, now, lifetime);
        (peer.flags & Peer::TRUSTED != 0 && fresh).then_some(peer)
    }

    /// Whether the mapping is this endpoint, both in network byte order.
    #[inline(always)]
    pub fn is_at(self, address: u32, port: u16) -> bool {
        let [a, b, c, d, e, f, ..] = self.mapped.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d]) == address && u16::from_ne_bytes([e, f]) == port
    }

    /// Returns the words of the cached next hop, for accesses that come after the load of `last`.
    #[inline(always)]
    pub fn next_hop(self, last: u64) -> W {
        self.words.after(last).from(NEXT_HOP)
    }

    /// Returns the stamp of the last packet to the peer.
    #[inline(always)]
    pub fn last_sent(self) -> u64 {
        self.words.load(LAST_SENT)
    }

    /// Whether the slot still has the same peer with the same mapping, after the load of `last`.
    #[inline(always)]
    pub fn is_current(self, last: u64) -> bool {
        self.words.after(last).load(MAPPED) == self.mapped
    }

    /// Notes that a packet of the peer arrived.
    #[inline(always)]
    pub fn received(self, peer: Usable, now: Instant) {
        self.stamp(LAST_RECEIVED, peer.last_received, now);
    }

    /// Notes that a packet was sent to the peer; `last_sent` is the stamp from before.
    #[inline(always)]
    pub fn sent(self, last_sent: u64, now: Instant) {
        self.stamp(LAST_SENT, last_sent, now);
    }

    /// Replaces a stamp that is old.
    #[inline(always)]
    fn stamp(self, index: usize, seen: u64, now: Instant) {
        if !is_within(seen, now, RESOLUTION) {
            self.words.compare_exchange(index, seen, now.as_nanos());
        }
    }
}

/// A trusted and fresh peer, in registers.
#[derive(Clone, Copy)]
pub struct Usable {
    /// IPv4 address, network byte order.
    pub address: u32,
    /// UDP port, network byte order.
    pub port: u16,
    /// [`Peer::SYMMETRIC`] and others.
    pub flags: u16,
    /// [`Peer::last_received`].
    pub last_received: u64,
}

impl Usable {
    /// Returns the peer's endpoint.
    #[inline(always)]
    pub fn mapped(self) -> Endpoint {
        Endpoint {
            address: self.address.to_ne_bytes(),
            port: self.port.to_ne_bytes(),
        }
    }
}

/// Whether `stamp` is less than `lifetime` nanoseconds old. The daemon's clock is finer than the
/// program's, so that a stamp may lie in the future.
#[inline(always)]
fn is_within(stamp: u64, now: Instant, lifetime: u64) -> bool {
    now.as_nanos() < stamp.saturating_add(lifetime)
}
