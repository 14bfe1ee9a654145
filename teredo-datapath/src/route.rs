//! The next hop of a translated frame: the kernel's routes and neighbours, cached for a while.
//!
//! A cached next hop is valid in one generation of its destination's bucket; see
//! [`teredo_common::generations`].

use core::{hint::cold_path, mem::offset_of};

use teredo_common::{
    address::Endpoint,
    generations::{self, Family},
    maps::{NextHop, ROUTE_WAYS, RouteKey, Version, station_mark},
    verdict::Verdict,
};

use crate::{
    environment::{Environment, Way, Words},
    headers::{Addresses, Ethernet, Ipv6},
    maps,
    moment::Moment,
    settings,
    words::{ROUTE, ROUTE_KEY, ROUTE_NEXT_HOP, join, split},
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
    assert!(offset_of!(NextHop, tagged_mtu) == 8 * SECOND + 6);
};

/// A next hop, in registers.
#[derive(Clone, Copy)]
pub struct Hop {
    /// Index of the interface.
    pub interface: u32,
    /// Octets of IP packet that fit; none if the frame leaves with VLAN tags and that is not provided for here.
    pub mtu: usize,
    /// Destination and source address of the frame.
    addresses: Addresses,
}

impl Hop {
    /// Returns the next hop of a frame that goes back to the station that sent it.
    #[inline(always)]
    pub fn back(environment: &impl Environment, ethernet: Ethernet) -> Self {
        Self {
            interface: environment.ingress(),
            mtu: usize::MAX,
            addresses: ethernet.reversed(),
        }
    }

    /// Returns the verdict about a packet that does not fit: that it is too big, or that the frame would leave with
    /// VLAN tags.
    #[inline(always)]
    pub fn too_big(self, verdict: Verdict) -> Verdict {
        match self.mtu {
            0 => Verdict::Tagged,
            _ => verdict,
        }
    }

    /// Writes the Ethernet header of a frame to this next hop.
    #[inline(always)]
    pub fn write(self, ethernet: Ethernet, ethertype: u16) {
        ethernet.write(self.addresses, ethertype);
    }
}

/// A next hop from the kernel's tables.
#[derive(Clone, Copy)]
struct Found {
    interface: u32,
    addresses: Addresses,
    /// [`NextHop::mtu`] and [`NextHop::tagged_mtu`].
    mtus: [u16; 2],
}

impl Found {
    /// Returns the next hop that the kernel's tables have, if it is one of the relay's interfaces.
    #[inline(always)]
    fn usable(environment: &impl Environment, way: Way) -> Option<Self> {
        let is_tagged = maps::way_out(environment, way.interface)?;
        Some(Self {
            interface: way.interface,
            addresses: way.addresses,
            mtus: match is_tagged {
                true => [0, way.mtu],
                false => [way.mtu, 0],
            },
        })
    }

    /// Returns the next hop as the environment may use it.
    #[inline(always)]
    fn seen<E: Environment>(self, _environment: &E) -> Hop {
        Hop {
            interface: self.interface,
            mtu: mtu::<E>(self.mtus),
            addresses: self.addresses,
        }
    }
}

/// Returns the MTU of the two of a next hop, of which one is zero, that holds in an environment.
#[inline(always)]
fn mtu<E: Environment>([mtu, tagged_mtu]: [u16; 2]) -> usize {
    match E::IS_THOROUGH {
        true => (mtu | tagged_mtu).into(),
        false => mtu.into(),
    }
}

/// Returns the next hop of a packet to its native destination.
#[inline(always)]
pub fn to_native(environment: &impl Environment, ipv6: Ipv6, moment: Moment) -> Option<Hop> {
    let destination @ [first, _] = ipv6.destination();
    let look_up = || {
        let [source, destination] = [ipv6.source_words(), ipv6.destination_words()];
        environment.look_up_ipv6(start(environment), source, destination)
    };
    cached(
        environment,
        (Family::Ipv6, split(first).0),
        || RouteKey::of_ipv6(destination),
        |bits| RouteKey::of_ipv6_prefix(first, bits),
        look_up,
        moment,
    )
}

/// Returns the next hop of a peer's mapping.
#[inline(always)]
pub fn to_mapping(environment: &impl Environment, mapped: Endpoint, moment: Moment) -> Option<Hop> {
    let destination = u32::from_ne_bytes(mapped.address);
    let relay = settings::relay(environment);
    cached(
        environment,
        (Family::Ipv4, destination),
        || RouteKey::of_ipv4(destination),
        |bits| RouteKey::of_ipv4_prefix(destination, bits),
        || environment.look_up_ipv4(start(environment), relay, mapped),
        moment,
    )
}

/// Returns the next hop of a destination that begins with the word `start`, as it lies in memory. It is cached; if it is
/// a gateway, for all destinations of the same route at once.
///
/// `of_one` returns the key of the destination alone, `of_prefix` that of all whose first bits are the same.
#[inline(always)]
fn cached<E: Environment>(
    environment: &E,
    (family, start): (Family, u32),
    of_one: impl Fn() -> RouteKey,
    of_prefix: impl Fn(u8) -> RouteKey,
    look_up: impl FnOnce() -> Option<Way>,
    moment: Moment,
) -> Option<Hop> {
    let current = current(environment, family, start, moment);
    let Current { generation, .. } = current;
    let front = environment.first_route(family)?;
    let many = match current.shared_bits() {
        0 => RouteKey::NONE,
        bits => {
            let many = of_prefix(bits);
            if let Some(hop) = remembered::<E>(front, many, generation) {
                return Some(hop);
            }
            many
        }
    };
    cold_path();
    let one = of_one();
    let (first, second) = match current.is_on_link() {
        true => (one, many),
        false => (many, one),
    };
    if let Some(hop) = recall(environment, first, generation) {
        return Some(hop);
    }
    if second != RouteKey::NONE
        && let Some(hop) = recall(environment, second, generation)
    {
        return Some(hop);
    }
    let way = look_up()?;
    let hop = Found::usable(environment, way)?;
    let is_shared = way.has_gateway && current.shared_bits() != 0;
    // The place in front stays with the route that has it, as others may be as busy.
    if is_shared && Version(front.load(ROUTE_NEXT_HOP)).generation() != generation {
        fill(environment, front, many, hop, generation);
    } else {
        let key = if is_shared { many } else { one };
        if key != RouteKey::NONE {
            keep(environment, key, hop, generation, moment);
        }
    }
    Some(hop.seen(environment))
}

/// Returns the next hop of a datagram from an own endpoint to another, uncached.
#[inline(always)]
pub fn to_endpoint(
    environment: &impl Environment,
    source: Endpoint,
    destination: Endpoint,
) -> Option<Hop> {
    let way = environment.look_up_ipv4(start(environment), source, destination)?;
    Found::usable(environment, way).map(|hop| hop.seen(environment))
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
    /// The number of the bucket, or zero if nobody keeps it.
    number: u32,
}

impl Current {
    /// Returns the bits that determine the route of a destination; zero if all do.
    #[inline(always)]
    fn shared_bits(&self) -> u8 {
        generations::shared_bits(self.number)
    }

    /// Whether to look for the destination alone at first.
    #[inline(always)]
    fn is_on_link(&self) -> bool {
        self.shared_bits() == 0 || generations::is_on_link(self.number)
    }
}

/// Returns the conditions of the bucket of a destination that begins with this word, as it lies in memory.
#[inline(always)]
fn current(environment: &impl Environment, family: Family, start: u32, moment: Moment) -> Current {
    if !moment.is_kept() {
        cold_path();
        // Nobody says which destinations have the same route any more.
        return Current {
            generation: generations::of_clock(moment.now),
            number: 0,
        };
    }
    // Before the bits: the daemon raises it after it has published that more of them matter. Otherwise a next hop
    // that is looked up for the old bits could be cached, for all destinations, as one of the new generation.
    let common = environment.common_generation(family);
    let number = environment.generation(family.bucket(start), common);
    let shared_bits = generations::shared_bits(number);
    let number_of_generation = match shared_bits != 0 && shared_bits < family.bucket_bits() {
        true => common,
        false => number,
    };
    Current {
        generation: generations::generation(number_of_generation),
        number,
    }
}

/// Returns the cached next hop of a key.
#[inline(always)]
fn recall<E: Environment>(environment: &E, key: RouteKey, generation: u32) -> Option<Hop> {
    let (index, _) = settings::tables(environment).route_set(key);
    let set = environment.route_set(index)?;
    for place in 0..ROUTE_WAYS {
        let route = set.from(place * ROUTE);
        if difference(route, key) == 0 {
            return remembered::<E>(route, key, generation);
        }
    }
    None
}

/// Caches the next hop of a key: in the place that it has, or that of a next hop which is not valid any more,
/// or that of another key.
#[inline(always)]
fn keep<E: Environment>(
    environment: &E,
    key: RouteKey,
    hop: Found,
    generation: u32,
    moment: Moment,
) {
    let (index, mut chosen) = settings::tables(environment).route_set(key);
    let Some(set) = environment.route_set(index) else {
        return;
    };
    for place in 0..ROUTE_WAYS {
        let route = set.from(place * ROUTE);
        if difference(route, key) == 0 {
            chosen = place;
            break;
        }
        let other = RouteKey([route.load(ROUTE_KEY), route.load(ROUTE_KEY + 1)]);
        let (family, start) = other.start();
        let current = current(environment, family, start, moment);
        if Version(route.load(ROUTE_NEXT_HOP)).generation() != current.generation {
            chosen = place;
        }
    }
    fill(environment, set.from(chosen * ROUTE), key, hop, generation);
}

/// Caches the next hop of a key in a place, unless another CPU is doing so.
#[inline(always)]
fn fill<W: Words>(
    environment: &impl Environment<Words = W>,
    route: W,
    key: RouteKey,
    hop: Found,
    generation: u32,
) {
    let RouteKey([first, second]) = key;
    let slot = route.from(ROUTE_NEXT_HOP);
    let seen = Version(slot.load(0));
    let claimed = seen.with(NextHop::CLAIMED);
    // The claim is a lock, and only one CPU has it.
    let is_possible =
        hop.interface <= Version::INTERFACE_MAX && seen.generation() != NextHop::CLAIMED;
    if !is_possible || !slot.compare_exchange(0, seen.0, claimed.0) {
        return;
    }
    let route = route.after(claimed.0);
    route.store(ROUTE_KEY, first);
    route.store(ROUTE_KEY + 1, second);
    let [[a, b], [c, d]] = hop.mtus.map(u16::to_ne_bytes);
    environment.mark_station(station_mark(hop.addresses.destination()));
    slot.store(FIRST, hop.addresses.first);
    let last = u32::from_ne_bytes([a, b, c, d]);
    slot.store(SECOND, join(hop.addresses.rest, last));
    let new = seen.next(generation, hop.interface);
    // Everything before comes before.
    slot.compare_exchange(0, claimed.0, new.0);
}

/// Returns zero if a route has this key.
#[inline(always)]
fn difference(route: impl Words, RouteKey([first, second]): RouteKey) -> u64 {
    (route.load(ROUTE_KEY) ^ first) | (route.load(ROUTE_KEY + 1) ^ second)
}

/// Returns the next hop of a key from its place, if it is of this generation.
///
/// Another CPU may be writing: the version then differs before or after.
#[inline(always)]
fn remembered<E: Environment>(route: E::Words, key: RouteKey, generation: u32) -> Option<Hop> {
    let before = route.load(ROUTE_NEXT_HOP);
    let version = Version(before);
    // Another CPU may have given the place to another key before that.
    let difference = difference(route.after(before), key);
    if difference != 0 || version.generation() != generation {
        return None;
    }
    let slot = route.after(before).from(ROUTE_NEXT_HOP);
    let (first, second) = (slot.load(FIRST), slot.load(SECOND));
    let (rest, last) = split(second);
    let [a, b, c, d] = last.to_ne_bytes();
    let hop = Hop {
        interface: version.interface(),
        mtu: mtu::<E>([u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]),
        addresses: Addresses { first, rest },
    };
    let loaded = difference | first | second;
    (slot.after(loaded).load(0) == before).then_some(hop)
}
