//! The peer of a packet: the search in the table of peers, and the fields of its slot.

use teredo_common::{
    address::Endpoint,
    maps::{MAX_REACH, Peer, STAMP_RESOLUTION},
    time::Instant,
};

use crate::{
    environment::{Environment, Words},
    settings,
    words::{ADDRESS, LAST_RECEIVED, LAST_SENT, MAPPED, join},
};

const RESOLUTION: u64 = STAMP_RESOLUTION.as_nanos() as u64;

/// Returns the slot of a peer; [`teredo_common::maps`] describes the search. The daemon may empty the
/// slot and put another peer in while this CPU uses it. Fields read are then of one or the other, and
/// checked against the packet where it matters; a stale write is harmless.
#[inline(always)]
pub fn find<E: Environment>(environment: &E, address: [u32; 4]) -> Option<E::Words> {
    let home = settings::peer_table(environment).home(address);
    let [a, b, c, d] = address;
    let address = [join(a, b), join(c, d)];
    let first = environment.slot(home)?;
    if holds(first, address) {
        return Some(first);
    }
    let [.., reach] = first.load(MAPPED).to_ne_bytes();
    for distance in 1..=MAX_REACH {
        if distance > reach {
            return None;
        }
        let slot = environment.slot(home + u32::from(distance))?;
        if holds(slot, address) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn holds(slot: impl Words, [first, second]: [u64; 2]) -> bool {
    slot.load(ADDRESS) == first && slot.load(ADDRESS + 1) == second
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
    last_received: Instant,
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

/// Returns the peer if userspace trusts it and it was heard within the lifetime.
#[inline(always)]
pub fn usable(environment: &impl Environment, slot: impl Words, now: Instant) -> Option<Usable> {
    let [a, b, c, d, e, f, flags, _] = slot.load(MAPPED).to_ne_bytes();
    let peer = Usable {
        address: u32::from_ne_bytes([a, b, c, d]),
        port: u16::from_ne_bytes([e, f]),
        flags: flags.into(),
        last_received: Instant::from_nanos(slot.load(LAST_RECEIVED)),
    };
    let fresh = is_within(
        peer.last_received,
        now,
        settings::peer_lifetime(environment),
    );
    (peer.flags & Peer::TRUSTED != 0 && fresh).then_some(peer)
}

/// Notes that a packet of the peer arrived.
#[inline(always)]
pub fn received(slot: impl Words, peer: Usable, now: Instant) {
    if !is_within(peer.last_received, now, RESOLUTION) {
        slot.store(LAST_RECEIVED, now.as_nanos());
    }
}

/// Notes that a packet was sent to the peer.
#[inline(always)]
pub fn sent(slot: impl Words, now: Instant) {
    if !is_within(Instant::from_nanos(slot.load(LAST_SENT)), now, RESOLUTION) {
        slot.store(LAST_SENT, now.as_nanos());
    }
}

/// Whether `stamp` is less than `lifetime` nanoseconds old. The daemon's clock is finer than the
/// program's, so that a stamp may lie in the future.
#[inline(always)]
fn is_within(stamp: Instant, now: Instant, lifetime: u64) -> bool {
    now.as_nanos() < stamp.as_nanos().saturating_add(lifetime)
}
