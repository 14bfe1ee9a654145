//! The next hop of a translated frame: the kernel's routes and neighbours, cached for a moment.

use core::mem::offset_of;

use teredo_common::{
    address::Endpoint,
    generations::{ipv4_bucket, ipv6_bucket},
    maps::{NEXT_HOP_LIFETIME, NextHop, station_mark},
    time::Instant,
    verdict::Verdict,
};

use crate::{
    environment::{Environment, Way, Words},
    headers::{Addresses, Ethernet},
    maps,
    peer::Entry,
    settings,
    words::{ADDRESS, ROUTE_NEXT_HOP, join, split},
};

/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
const TICK: u32 = (NextHop::TICK.as_nanos() as u64).ilog2();
const LIFETIME: u32 = (NEXT_HOP_LIFETIME.as_nanos() >> TICK) as u32;

const _: () = {
    // Generation, MTU and interface are one word, which other CPUs see change at once.
    assert!(offset_of!(NextHop, generation) == 0);
    assert!(offset_of!(NextHop, mtu) == 2);
    assert!(offset_of!(NextHop, interface) == 4);
    assert!(offset_of!(NextHop, checked) == 8);
    assert!(1 << TICK == NextHop::TICK.as_nanos());
    // The two addresses are read and written as three halves of words.
    assert!(offset_of!(NextHop, destination) == 12);
    assert!(offset_of!(NextHop, source) == 18);
};

/// A next hop, in registers.
#[derive(Clone, Copy)]
pub struct Hop {
    /// Index of the interface.
    pub interface: u32,
    /// Octets of IP packet that fit.
    pub mtu: u32,
    /// Destination and source address of the frame.
    addresses: Addresses,
}

impl Hop {
    /// Returns the next hop of a frame that goes back to the station that sent it.
    #[inline(always)]
    pub fn back(environment: &impl Environment, ethernet: Ethernet) -> Self {
        Self {
            interface: environment.ingress(),
            mtu: u32::MAX,
            addresses: ethernet.reversed(),
        }
    }

    /// Returns the next hop that the kernel's tables have, if it is one of the relay's interfaces.
    #[inline(always)]
    fn usable(environment: &impl Environment, way: Way) -> Option<Self> {
        maps::is_way_out(environment, way.interface).then_some(Self {
            interface: way.interface,
            mtu: way.mtu.into(),
            addresses: way.addresses,
        })
    }

    /// Writes the Ethernet header of a frame to this next hop.
    #[inline(always)]
    pub fn write(self, ethernet: Ethernet, ethertype: u16) {
        ethernet.write(self.addresses, ethertype);
    }
}

/// Returns the next hop of a native destination, cached per CPU and destination.
#[inline(always)]
pub fn to_ipv6(
    environment: &impl Environment,
    source: [u32; 4],
    destination: [u32; 4],
    now: Instant,
) -> Option<Hop> {
    let [a, b, c, d] = destination;
    let route = environment.route(settings::peer_table(environment).route(destination))?;
    let generation = environment.generation(ipv6_bucket(a));
    let (first, second) = (join(a, b), join(c, d));
    let next_hop = route.from(ROUTE_NEXT_HOP);
    if route.load(ADDRESS) == first
        && route.load(ADDRESS + 1) == second
        && let (Some(hop), _) = remembered(next_hop, now, generation)
    {
        return Some(hop);
    }
    let way = environment.look_up_ipv6(start(environment), source, destination)?;
    let hop = Hop::usable(environment, way)?;
    route.store(ADDRESS, first);
    route.store(ADDRESS + 1, second);
    remember(environment, next_hop, None, hop, now, generation);
    Some(hop)
}

/// Returns the next hop of a peer's mapping, cached in the peer's slot, after the load of `last`. The
/// verdict is [`Verdict::EncapStalePeer`] if the slot got another peer or mapping meanwhile.
#[inline(always)]
pub fn to_peer<W: Words>(
    environment: &impl Environment,
    entry: Entry<W>,
    mapped: Endpoint,
    last: u64,
    now: Instant,
) -> Result<Hop, Verdict> {
    let generation = environment.generation(ipv4_bucket(mapped.address));
    let slot = entry.next_hop(last);
    let (hop, last) = remembered(slot, now, generation);
    let hop = match hop {
        Some(hop) => hop,
        None => {
            let relay = settings::relay(environment);
            let hop = to_endpoint(environment, relay, mapped).ok_or(Verdict::EncapNextHop)?;
            remember(environment, slot, Some(entry), hop, now, generation);
            hop
        }
    };
    if !entry.is_current(last) {
        return Err(Verdict::EncapStalePeer);
    }
    Ok(hop)
}

/// Returns the next hop of a datagram from an own endpoint to another, uncached.
#[inline(always)]
pub fn to_endpoint(
    environment: &impl Environment,
    source: Endpoint,
    destination: Endpoint,
) -> Option<Hop> {
    let way = environment.look_up_ipv4(start(environment), source, destination)?;
    Hop::usable(environment, way)
}

/// Returns the index of the interface where look-ups start.
#[inline(always)]
fn start(environment: &impl Environment) -> u32 {
    match settings::tunnel(environment) {
        0 => LOOPBACK,
        tunnel => tunnel,
    }
}

/// Returns the next hop in the slot, if it was read from the kernel's tables in this generation and
/// recently; and the word that was loaded last.
///
/// Another CPU may be writing: the generation then differs before or after.
#[inline(always)]
fn remembered(slot: impl Words, now: Instant, generation: u16) -> (Option<Hop>, u64) {
    let before = slot.load(0);
    let (seen, mtu, interface) = untag(before);
    if seen != generation {
        return (None, before);
    }
    let slot = slot.after(before);
    let (first, second) = (slot.load(1), slot.load(2));
    let (checked, a) = split(first);
    let (b, c) = split(second);
    let hop = Hop {
        interface,
        mtu: u32::from(mtu),
        addresses: Addresses([a, b, c]),
    };
    let after = slot.after(first | second).load(0);
    let is_valid = after == before && ticks(now).wrapping_sub(checked) < LIFETIME;
    (is_valid.then_some(hop), after)
}

/// Fills the slot, unless another CPU is doing so, or it is no longer that of the `owner`.
///
/// The claim is a lock, and only one CPU has it. It is taken before the owner is checked, and the daemon
/// looks for it after it has changed the owner: either this CPU notices the change, or the daemon notices the
/// claim, and revokes it.
#[inline(always)]
fn remember<W: Words>(
    environment: &impl Environment,
    slot: W,
    owner: Option<Entry<W>>,
    hop: Hop,
    now: Instant,
    generation: u16,
) {
    let empty = tag(NextHop::EMPTY, 0, 0);
    let claimed = tag(NextHop::CLAIMED, 0, 0);
    let revoked = tag(NextHop::REVOKED, 0, 0);
    let seen = slot.load(0);
    let is_busy = matches!(untag(seen).0, NextHop::CLAIMED | NextHop::REVOKED);
    if is_busy || !slot.compare_exchange(0, seen, claimed) {
        return;
    }
    let is_owned = match owner {
        Some(owner) => owner.is_current(claimed),
        None => true,
    };
    let new = if is_owned {
        let Addresses([a, b, c]) = hop.addresses;
        environment.mark_station(station_mark(hop.addresses.destination()));
        slot.store(1, join(ticks(now), a));
        slot.store(2, join(b, c));
        tag(generation, hop.mtu as u16, hop.interface)
    } else {
        empty
    };
    if !slot.compare_exchange(0, claimed, new) {
        slot.compare_exchange(0, revoked, empty);
    }
}

#[inline(always)]
fn ticks(now: Instant) -> u32 {
    (now.as_nanos() >> TICK) as u32
}

/// Packs generation, MTU and interface as they lie in memory.
#[inline(always)]
fn tag(generation: u16, mtu: u16, interface: u32) -> u64 {
    let [a, b] = generation.to_ne_bytes();
    let [c, d] = mtu.to_ne_bytes();
    let [e, f, g, h] = interface.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
fn untag(word: u64) -> (u16, u16, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}
