//! The next hop of a translated frame: the kernel's routes and neighbours, cached for a while.
//!
//! A cached next hop is valid in one generation of its destination's bucket; see
//! [`teredo_common::generations`].

use core::mem::offset_of;

use teredo_common::{
    address::Endpoint,
    generations::{self, ipv4_bucket, ipv6_bucket},
    maps::{NextHop, ROUTE_WAYS, RouteKey, Version, station_mark},
    time::Instant,
    verdict::Verdict,
};

use crate::{
    environment::{Environment, Way, Words},
    headers::{Addresses, Ethernet},
    maps,
    peer::Entry,
    settings,
    words::{ADDRESS, ROUTE, ROUTE_NEXT_HOP, join, split},
};

/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
/// Index of the first word behind the version of a next hop.
const FIRST: usize = 1;
/// Index of the second.
const SECOND: usize = 2;

const _: () = {
    // The two addresses are the first word, and half of the second.
    assert!(offset_of!(NextHop, version) == 0);
    assert!(offset_of!(NextHop, destination) == 8 * FIRST);
    assert!(offset_of!(NextHop, source) == 8 * FIRST + 6);
    assert!(offset_of!(NextHop, mtu) == 8 * SECOND + 4);
    assert!(offset_of!(NextHop, reserved) == 8 * SECOND + 6);
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

/// Returns the next hop of a native destination. It is cached; if it is a gateway, for all destinations of
/// the same route at once.
#[inline(always)]
pub fn to_ipv6(
    environment: &impl Environment,
    source: [u32; 4],
    destination: [u32; 4],
    now: Instant,
) -> Option<Hop> {
    let [a, b, c, d] = destination;
    let current = current(environment, ipv6_bucket(a), now);
    let (first, second) = (join(a, b), join(c, d));
    let many = match current.shared_bits {
        0 => None,
        bits => Some(RouteKey::of_prefix(first, bits)),
    };
    if let Some(key) = many
        && let Some(hop) = recall(environment, key, current.generation)
    {
        return Some(hop);
    }
    let one = RouteKey::of_host([first, second]);
    if let Some(key) = one
        && let Some(hop) = recall(environment, key, current.generation)
    {
        return Some(hop);
    }
    let way = environment.look_up_ipv6(start(environment), source, destination)?;
    let hop = Hop::usable(environment, way)?;
    let key = if way.has_gateway { many.or(one) } else { one };
    if let Some(key) = key {
        keep(environment, key, hop, current.generation, now);
    }
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
    let Current { generation, .. } = current(environment, ipv4_bucket(mapped.address), now);
    let slot = entry.next_hop(last);
    let (hop, last) = remembered(slot, generation);
    let hop = match hop {
        Some(hop) => hop,
        None => {
            let relay = settings::relay(environment);
            let hop = to_endpoint(environment, relay, mapped).ok_or(Verdict::EncapNextHop)?;
            // The claim is taken before the owner is checked, and the daemon looks for it after it has
            // changed the owner: either this CPU notices the change, or the daemon notices the claim,
            // and revokes it.
            let is_owned = |claimed| entry.is_current(claimed);
            remember(environment, slot, is_owned, hop, generation);
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

/// The conditions for cached next hops of a bucket of destinations.
struct Current {
    /// The generation of valid ones.
    generation: u32,
    /// The bits that determine the route of an IPv6 destination; zero if all do.
    shared_bits: u8,
}

/// Returns the conditions of a bucket.
#[inline(always)]
fn current(environment: &impl Environment, bucket: u16, now: Instant) -> Current {
    let number = environment.generation(bucket);
    if generations::is_alive(environment.heartbeat(), now) {
        Current {
            generation: generations::generation(number),
            shared_bits: generations::shared_bits(number),
        }
    } else {
        // Nobody says which destinations have the same route any more.
        Current {
            generation: generations::of_clock(now),
            shared_bits: 0,
        }
    }
}

/// Returns the cached next hop of a key.
#[inline(always)]
fn recall<E: Environment>(environment: &E, key: RouteKey, generation: u32) -> Option<Hop> {
    let (index, _) = settings::peer_table(environment).route_set(key);
    let set = environment.route_set(index)?;
    for place in 0..ROUTE_WAYS {
        let route = set.from(place * ROUTE);
        if difference(route, key) == 0 {
            let before = route.load(ROUTE_NEXT_HOP);
            // Another CPU may have given the place to another key before that.
            let difference = difference(route.after(before), key);
            return match difference {
                0 => {
                    let next_hop = route.after(difference).from(ROUTE_NEXT_HOP);
                    remembered_since(next_hop, before, generation).0
                }
                _ => None,
            };
        }
    }
    None
}

/// Caches the next hop of a key: in the place that it has, or that of a next hop which is not valid any more,
/// or that of another key.
#[inline(always)]
fn keep<E: Environment>(environment: &E, key: RouteKey, hop: Hop, generation: u32, now: Instant) {
    let (index, mut chosen) = settings::peer_table(environment).route_set(key);
    let Some(set) = environment.route_set(index) else {
        return;
    };
    let RouteKey([first, second]) = key;
    for place in 0..ROUTE_WAYS {
        let route = set.from(place * ROUTE);
        if difference(route, key) == 0 {
            chosen = place;
            break;
        }
        let (prefix, _) = split(route.load(ADDRESS));
        let current = current(environment, ipv6_bucket(prefix), now);
        if Version(route.load(ROUTE_NEXT_HOP)).generation() != current.generation {
            chosen = place;
        }
    }
    let route = set.from(chosen * ROUTE);
    let take = |claimed| {
        let route = route.after(claimed);
        route.store(ADDRESS, first);
        route.store(ADDRESS + 1, second);
        true
    };
    remember(
        environment,
        route.from(ROUTE_NEXT_HOP),
        take,
        hop,
        generation,
    );
}

/// Returns zero if a route has this key.
#[inline(always)]
fn difference(route: impl Words, RouteKey([first, second]): RouteKey) -> u64 {
    (route.load(ADDRESS) ^ first) | (route.load(ADDRESS + 1) ^ second)
}

/// Returns the next hop in the slot, if it is of this generation; and the word that was loaded last.
#[inline(always)]
fn remembered(slot: impl Words, generation: u32) -> (Option<Hop>, u64) {
    let before = slot.load(0);
    remembered_since(slot, before, generation)
}

/// Returns the same, after the load of the version `before`.
///
/// Another CPU may be writing: the version then differs before or after.
#[inline(always)]
fn remembered_since(slot: impl Words, before: u64, generation: u32) -> (Option<Hop>, u64) {
    let version = Version(before);
    if version.generation() != generation {
        return (None, before);
    }
    let slot = slot.after(before);
    let (first, second) = (slot.load(FIRST), slot.load(SECOND));
    let (a, b) = split(first);
    let (c, last) = split(second);
    let [d, e, ..] = last.to_ne_bytes();
    let hop = Hop {
        interface: version.interface(),
        mtu: u16::from_ne_bytes([d, e]).into(),
        addresses: Addresses([a, b, c]),
    };
    let after = slot.after(first | second).load(0);
    ((after == before).then_some(hop), after)
}

/// Fills the slot, unless another CPU is doing so, or it may not be filled.
///
/// The claim is a lock, and only one CPU has it. `take` is called with it, after it was taken, and tells
/// whether the slot may be filled.
#[inline(always)]
fn remember<W: Words>(
    environment: &impl Environment,
    slot: W,
    take: impl FnOnce(u64) -> bool,
    hop: Hop,
    generation: u32,
) {
    if hop.interface > Version::INTERFACE_MAX {
        return;
    }
    let seen = Version(slot.load(0));
    let claimed = seen.with(NextHop::CLAIMED);
    let is_busy = matches!(seen.generation(), NextHop::CLAIMED | NextHop::REVOKED);
    if is_busy || !slot.compare_exchange(0, seen.0, claimed.0) {
        return;
    }
    let new = if take(claimed.0) {
        let Addresses([a, b, c]) = hop.addresses;
        let [d, e] = (hop.mtu as u16).to_ne_bytes();
        environment.mark_station(station_mark(hop.addresses.destination()));
        slot.store(FIRST, join(a, b));
        slot.store(SECOND, join(c, u32::from_ne_bytes([d, e, 0, 0])));
        seen.next(generation, hop.interface)
    } else {
        seen.next(NextHop::EMPTY, 0)
    };
    if !slot.compare_exchange(0, claimed.0, new.0) {
        let revoked = seen.with(NextHop::REVOKED);
        slot.compare_exchange(0, revoked.0, seen.next(NextHop::EMPTY, 0).0);
    }
}
