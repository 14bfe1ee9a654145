//! The maps, and access to the small ones. Layouts: [`teredo_common::maps`].

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
};
use teredo_common::{
    limiter::BUCKETS,
    maps::{
        ALLOWED_MAX, COUNTERS_MAX, Counter, INTERFACES_MAX, Interface, MAX_REACH, OWN_FILTER_WORDS,
        OWN_IPV4_MAX, ROUTE_SLOTS, Route, SERVED_MAX, Slot, own_filter_bit,
    },
    time::Instant,
    verdict::Verdict,
};

use crate::{headers::Ethernet, settings};

#[map]
static PEERS: Array<Slot> = Array::with_max_entries(1 + MAX_REACH as u32, BPF_F_MMAPABLE);
#[map]
static SERVED: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(SERVED_MAX, 0);
#[map]
static OWN_IPV4: HashMap<[u8; 4], u8> = HashMap::with_max_entries(OWN_IPV4_MAX, BPF_F_NO_PREALLOC);
#[map]
static OWN_FILTER: Array<u32> = Array::with_max_entries(OWN_FILTER_WORDS, 0);
#[map]
static INTERFACES: Array<Interface> = Array::with_max_entries(INTERFACES_MAX, 0);
#[map]
static GENERATION: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTERS_MAX, 0);
#[map]
static ROUTES: PerCpuArray<Route> = PerCpuArray::with_max_entries(ROUTE_SLOTS, 0);
#[map]
static IDENTIFICATION: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LIMITS: Array<u64> = Array::with_max_entries(BUCKETS, BPF_F_MMAPABLE);
#[map]
static RESERVE: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
#[map]
static ALLOWED: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(ALLOWED_MAX, 0);
#[map]
static DRAINING: Array<u64> = Array::with_max_entries(1, 0);

/// Returns the slot of a peer; [`teredo_common::maps`] describes the search. The daemon may empty the
/// slot and put another peer in while this CPU uses it. Fields read are then of one or the other, and
/// checked against the packet where it matters; a stale write is harmless.
#[inline(always)]
pub fn peer(address: [u32; 4]) -> Option<*mut Slot> {
    let home = settings::peer_table().home(address);
    let first = PEERS.get_ptr_mut(home)?;
    if holds(first, address) {
        return Some(first);
    }
    // SAFETY: a value of the map. Volatile, as the daemon writes it at any time.
    let reach = unsafe { (&raw const (*first).reach).read_volatile() };
    for distance in 1..=MAX_REACH {
        if distance > reach {
            return None;
        }
        let slot = PEERS.get_ptr_mut(home + u32::from(distance))?;
        if holds(slot, address) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn holds(slot: *mut Slot, address: [u32; 4]) -> bool {
    // SAFETY: a value of the map, of which the address is the first field. Volatile, as the daemon
    // writes it at any time.
    unsafe { slot.cast::<[u32; 4]>().read_volatile() == address }
}

/// Returns this CPU's slot for the route to a destination.
#[inline(always)]
pub fn route(slot: u32) -> Option<*mut Route> {
    ROUTES.get_ptr_mut(slot)
}

/// Whether one of the prefixes that the relay serves holds the address.
#[inline(always)]
pub fn is_served(address: [u8; 16]) -> bool {
    SERVED.get(Key::new(128, address)).is_some()
}

/// Whether this host has the IPv4 address.
#[inline(always)]
pub fn is_own_ipv4(address: [u8; 4]) -> bool {
    let (index, bit) = own_filter_bit(address);
    // SAFETY: a value of the map. Volatile, as the daemon writes it at any time.
    let word = OWN_FILTER
        .get_ptr(index)
        .map(|word| unsafe { word.read_volatile() });
    word.is_some_and(|word| word & bit != 0) && OWN_IPV4.get_ptr(address).is_some()
}

/// Returns a token bucket of the server.
#[inline(always)]
pub fn bucket(slot: u32) -> Option<*mut u64> {
    LIMITS.get_ptr_mut(slot)
}

/// Returns this CPU's reserve of the bucket for everything.
#[inline(always)]
pub fn reserve() -> Option<*mut u32> {
    RESERVE.get_ptr_mut(0)
}

/// Whether one of the networks that the server serves holds the address.
#[inline(always)]
pub fn is_allowed(address: [u8; 4]) -> bool {
    ALLOWED.get(Key::new(32, address)).is_some()
}

/// Returns the end of forwarding, if the server is draining.
#[inline(always)]
pub fn draining() -> Option<Instant> {
    let end = DRAINING.get_ptr(0)?;
    // SAFETY: a value of the map. Volatile, as the daemon writes it at any time.
    match unsafe { end.read_volatile() } {
        0 => None,
        end => Some(Instant::from_nanos(end)),
    }
}

#[inline(always)]
fn interface(index: u32) -> Option<*const Interface> {
    let interface = INTERFACES.get_ptr(Interface::slot(index, settings::interface_mask()))?;
    // SAFETY: a value of the map; the verifier knows its size.
    (unsafe { (*interface).index } == index).then_some(interface)
}

/// Whether packets may leave through the interface.
#[inline(always)]
pub fn is_way_out(index: u32) -> bool {
    interface(index).is_some()
}

/// Whether a frame's destination is the address of its ingress interface.
#[inline(always)]
pub fn is_own_station(index: u32, ethernet: Ethernet) -> bool {
    let Some(interface) = interface(index) else {
        return false;
    };
    // SAFETY: a value of the map; the address is at an offset that is a multiple of four.
    let (first, last) = unsafe {
        let station = &raw const (*interface).station;
        (
            station.cast::<u32>().read(),
            station.cast::<u16>().add(2).read(),
        )
    };
    ethernet.is_to(first, last)
}

/// Returns the generation that a cached next hop must have.
#[inline(always)]
pub fn generation() -> u16 {
    match GENERATION.get_ptr(0) {
        // SAFETY: a value of the map. Volatile, as the daemon writes it at any time.
        Some(generation) => unsafe { generation.read_volatile() as u16 },
        None => 0,
    }
}

/// Returns the next IPv4 identification, host byte order (requirement W-07).
#[inline(always)]
pub fn identification() -> u16 {
    let Some(next) = IDENTIFICATION.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a value of the map that belongs to this CPU.
    unsafe {
        let identification = next.read();
        next.write(identification.wrapping_add(1));
        identification as u16
    }
}

/// Counts a frame that was `length` octets long when it arrived.
#[inline(always)]
pub fn count(verdict: Verdict, length: usize) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
        // SAFETY: a value of the map that belongs to this CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += length as u64;
        }
    }
}

/// Returns the time on the clock of all stamps: precise to a tick, which is enough for lifetimes of seconds and takes
/// half the time of the precise one.
#[inline(always)]
pub fn now() -> Instant {
    // SAFETY: the helper has no arguments and no conditions.
    Instant::from_nanos(unsafe { helpers::bpf_ktime_get_coarse_ns() })
}
