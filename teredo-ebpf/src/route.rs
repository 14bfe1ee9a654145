//! The next hop of a translated frame: the kernel's routes and neighbours, cached for a moment.

use core::mem::{offset_of, zeroed};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_action},
    helpers,
    programs::XdpContext,
};
use teredo_common::{
    address::Endpoint,
    maps::{NEXT_HOP_LIFETIME, NextHop, ROUTE_SLOTS, Route},
    time::Instant,
    wire::UDP,
};

use crate::{
    atomic::compare_exchange,
    headers::{Addresses, Ethernet},
    maps, settings,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
const TICK: u32 = (NextHop::TICK.as_nanos() as u64).ilog2();
const LIFETIME: u32 = (NEXT_HOP_LIFETIME.as_nanos() >> TICK) as u32;

const _: () = {
    // Generation, MTU and interface are one word, which other CPUs see change at once.
    assert!(offset_of!(NextHop, generation) == 0);
    assert!(offset_of!(NextHop, mtu) == 2);
    assert!(offset_of!(NextHop, interface) == 4);
    assert!(1 << TICK == NextHop::TICK.as_nanos());
    // The two addresses are read and written as three words.
    assert!(offset_of!(NextHop, destination) % 4 == 0);
    assert!(offset_of!(NextHop, source) == offset_of!(NextHop, destination) + 6);
    assert!(offset_of!(bpf_fib_lookup, smac) % 4 == 0);
    assert!(offset_of!(bpf_fib_lookup, dmac) == offset_of!(bpf_fib_lookup, smac) + 6);
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
    pub fn back(context: &XdpContext, ethernet: Ethernet) -> Self {
        Self {
            interface: context.ingress_ifindex() as u32,
            mtu: u32::MAX,
            addresses: ethernet.reversed(),
        }
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
    context: &XdpContext,
    source: [u32; 4],
    destination: [u32; 4],
    now: Instant,
) -> Option<Hop> {
    let [a, b, c, d] = destination;
    let mixed = (a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d).wrapping_mul(0x9e37_79b1);
    let route = maps::route(mixed >> (32 - ROUTE_SLOTS.ilog2()))?;
    let generation = maps::generation();
    // SAFETY: a value of the map; both fields are at offsets that are multiples of eight.
    let (key, slot) = unsafe {
        (
            (&raw mut (*route).destination).cast::<[u32; 4]>(),
            &raw mut (*route).next_hop,
        )
    };
    // SAFETY: as above; the slot belongs to this CPU.
    if unsafe { *key } == destination
        && let Some(hop) = remembered(slot, now, generation)
    {
        return Some(hop);
    }
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut query: bpf_fib_lookup = unsafe { zeroed() };
    query.family = AF_INET6;
    query.__bindgen_anon_3.ipv6_src = source;
    query.__bindgen_anon_4.ipv6_dst = destination;
    let hop = look_up(context, &mut query)?;
    // SAFETY: as above.
    unsafe { *key = destination };
    remember(slot, hop, now, generation);
    Some(hop)
}

/// Returns the next hop of a peer's endpoint, cached in `slot`, which is part of the peer's entry.
#[inline(always)]
pub fn to_ipv4(
    context: &XdpContext,
    destination: Endpoint,
    slot: *mut NextHop,
    now: Instant,
) -> Option<Hop> {
    let generation = maps::generation();
    if let Some(hop) = remembered(slot, now, generation) {
        return Some(hop);
    }
    let hop = to_endpoint(context, settings::relay(), destination)?;
    remember(slot, hop, now, generation);
    Some(hop)
}

/// Returns the next hop of a datagram from an own endpoint to another, uncached.
#[inline(always)]
pub fn to_endpoint(context: &XdpContext, source: Endpoint, destination: Endpoint) -> Option<Hop> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut query: bpf_fib_lookup = unsafe { zeroed() };
    query.family = AF_INET;
    query.l4_protocol = UDP;
    query.sport = u16::from_ne_bytes(source.port);
    query.dport = u16::from_ne_bytes(destination.port);
    query.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(source.address);
    query.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(destination.address);
    look_up(context, &mut query)
}

/// Sends the frame through an interface.
#[inline(always)]
pub fn send(context: &XdpContext, interface: u32) -> u32 {
    if interface == context.ingress_ifindex() as u32 {
        return xdp_action::XDP_TX;
    }
    // SAFETY: numbers only.
    unsafe { helpers::bpf_redirect(interface, 0) as u32 }
}

/// Returns the next hop in the slot, if it was read from the kernel's tables in this generation and
/// recently.
///
/// Another CPU may be writing: the generation then differs before or after. A machine that reorders
/// loads could still mix two hops once, and the frame is lost as on any route change.
#[inline(always)]
fn remembered(slot: *mut NextHop, now: Instant, generation: u16) -> Option<Hop> {
    // SAFETY: the slot is in a value of a map. Volatile, because other CPUs write it.
    unsafe {
        let word = slot.cast::<u64>();
        let before = word.read_volatile();
        let (seen, mtu, interface) = untag(before);
        if seen != generation {
            return None;
        }
        let checked = (&raw const (*slot).checked).read_volatile();
        let stations = (&raw const (*slot).destination).cast::<u32>();
        let hop = Hop {
            interface,
            mtu: u32::from(mtu),
            addresses: Addresses([
                stations.read_volatile(),
                stations.add(1).read_volatile(),
                stations.add(2).read_volatile(),
            ]),
        };
        let after = word.read_volatile();
        (after == before && ticks(now).wrapping_sub(checked) < LIFETIME).then_some(hop)
    }
}

/// Fills the slot, unless another CPU is doing so.
#[inline(always)]
fn remember(slot: *mut NextHop, hop: Hop, now: Instant, generation: u16) {
    let claimed = tag(NextHop::CLAIMED, 0, 0);
    // SAFETY: the slot is in a value of a map, aligned to eight octets.
    unsafe {
        let word = slot.cast::<u64>();
        let seen = word.read_volatile();
        if untag(seen).0 == NextHop::CLAIMED || !compare_exchange(word, seen, claimed) {
            return;
        }
        // The claim keeps other writers away.
        (&raw mut (*slot).checked).write_volatile(ticks(now));
        let stations = (&raw mut (*slot).destination).cast::<u32>();
        let Addresses([a, b, c]) = hop.addresses;
        stations.write_volatile(a);
        stations.add(1).write_volatile(b);
        stations.add(2).write_volatile(c);
        // A plain store could overtake the others. It fails if the daemon gave the slot to another
        // peer meanwhile.
        let new = tag(generation, hop.mtu as u16, hop.interface);
        compare_exchange(word, claimed, new);
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

/// Asks the kernel for route and neighbour. Returns `None` unless it would forward the packet to a
/// known neighbour through one of the relay's interfaces.
#[inline(always)]
fn look_up(context: &XdpContext, query: &mut bpf_fib_lookup) -> Option<Hop> {
    query.ifindex = match settings::tunnel() {
        0 => LOOPBACK,
        tunnel => tunnel,
    };
    // Any length makes the kernel report the MTU of the route.
    query.__bindgen_anon_1.tot_len = 1;
    // SAFETY: the context is the kernel's, the query as large as said.
    let result = unsafe {
        helpers::bpf_fib_lookup(
            context.as_ptr(),
            &raw mut *query,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    if result != i64::from(BPF_FIB_LKUP_RET_SUCCESS) || !maps::is_way_out(query.ifindex) {
        return None;
    }
    let [a, b, c, d, e, f] = query.dmac;
    let [g, h, i, j, k, l] = query.smac;
    Some(Hop {
        interface: query.ifindex,
        // SAFETY: both members of the union are the same number.
        mtu: u32::from(unsafe { query.__bindgen_anon_1.mtu_result }),
        addresses: Addresses([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        ]),
    })
}

const _: () = assert!(size_of::<Route>() == 40 && offset_of!(Route, next_hop) == 16);
