//! The seam between the data path and the machine that runs it.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

use teredo_common::{
    address::Endpoint,
    budget::Budget,
    generations::Family,
    maps::{Interface, Settings, Tables},
    peers::Sets,
    respond::ServerConstants,
    time::Instant,
    verdict::Verdict,
    vlan::Trunk,
};

use crate::{Fate, headers::Addresses};

/// One frame, and everything that the data path needs to decide about it: access to the frame, the
/// constants that the daemon chose, the maps, and the kernel's helpers.
///
/// The XDP program implements it with maps and helpers of the kernel; the `host` module with memory of
/// a process.
///
/// # Safety
///
/// The octets from [`Self::start`] to [`Self::end`] can be read and written, and nobody else does so
/// while the data path runs.
pub unsafe trait Environment {
    /// Words that CPUs and the daemon share, in a value of a map.
    type Words: Words;

    /// The environment in which a frame is looked at thoroughly.
    type Thorough<'a>: Environment
    where
        Self: 'a;

    /// Whether also what is rare is provided for: VLAN interfaces, extension headers, checksums of which a part of
    /// the packet is not covered by another. All of that would cost other frames time.
    const IS_THOROUGH: bool;

    /// Decides about the frame with [`crate::run_thoroughly`]; `None` if that is not possible. The program in the kernel
    /// does not return from it otherwise, as another takes over.
    fn look_thoroughly(&self) -> Option<Fate>;

    /// Returns the thorough environment of this frame, as if the interface `ingress` had received it.
    fn thorough(&self, ingress: u32) -> Self::Thorough<'_>;

    /// Returns the address of the frame's first octet.
    fn start(&self) -> usize;

    /// Returns the address behind the frame's last octet.
    fn end(&self) -> usize;

    /// Moves the start of the frame by `delta` octets, towards its end if that is positive. Returns
    /// whether there was room; if not, nothing has changed.
    fn move_start(&self, delta: i32) -> bool;

    /// Cuts `octets` off the end of the frame. Returns whether it has as many; if not, nothing has
    /// changed.
    fn cut_end(&self, octets: usize) -> bool;

    /// Returns the one's complement sum of `N` octets of the frame from `start` on, which exist; not folded. `N` is
    /// a multiple of four, and 512 at most.
    fn sum<const N: usize>(&self, start: *const u8) -> u32;

    /// Returns the index of the interface by which the frame came.
    fn ingress(&self) -> u32;

    /// Returns the relay's constants.
    fn settings(&self) -> &Settings;

    /// Returns the parameters of the hash tables.
    fn tables(&self) -> &Tables;

    /// Returns the server's constants.
    fn server(&self) -> &ServerConstants;

    /// Returns the sets in use of the table of peers.
    fn sets(&self) -> Sets;

    /// Returns a line of the table of peers.
    fn line(&self, index: u32) -> Option<Self::Words>;

    /// Returns a line of that table by its index, with words that count traffic.
    fn tallies(&self, index: u32) -> Option<Self::Words>;

    /// Returns the number of this CPU.
    fn cpu(&self) -> u32;

    /// Returns the number of the slot of a peer, whose address is in words as they lie in memory, if it may have one.
    fn other_peer(&self, address: [u32; 4]) -> Option<u32>;

    /// Returns the words of a [`teredo_common::maps::Route`] that is looked at before those of the sets.
    fn first_route(&self, family: Family) -> Option<Self::Words>;

    /// Returns the words of a [`teredo_common::maps::RouteSet`].
    fn route_set(&self, index: u32) -> Option<Self::Words>;

    /// Returns the single word of a token bucket of the server.
    fn bucket(&self, index: u32) -> Option<Self::Words>;

    /// Returns the constants of the budget.
    fn budget(&self) -> &Budget;

    /// Returns a single word of the budget's state; [`teredo_common::budget`] has their order.
    fn budgets(&self, index: u32) -> Option<Self::Words>;

    /// Returns an entry of the table of interfaces.
    fn interface(&self, slot: u32) -> Option<Interface>;

    /// Returns the index of the VLAN interface whose frames arrive like this.
    fn vlan(&self, trunk: Trunk) -> Option<u32>;

    /// Returns an entry of the table of trunks.
    fn trunk(&self, index: u16) -> Option<Trunk>;

    /// Counts a frame that came with the tags of a VLAN interface.
    fn count_vlan_frame(&self);

    /// Returns the number of a bucket of destinations, which is loaded after the number `after`; see
    /// [`teredo_common::generations`].
    fn generation(&self, bucket: u32, after: u32) -> u32;

    /// Returns the generation of next hops that buckets share.
    fn common_generation(&self, family: Family) -> u32;

    /// Returns the time when the daemon last showed that it lives; see [`teredo_common::generations`].
    fn heartbeat(&self) -> u32;

    /// Marks a station as one that frames are sent to: [`teredo_common::maps::station_mark`].
    fn mark_station(&self, mark: usize);

    /// Returns the end of a draining server, in nanoseconds; zero if it is not draining.
    fn draining(&self) -> u64;

    /// Whether one of the prefixes that the relay serves holds the IPv6 address.
    fn is_served(&self, address: [u8; 16]) -> bool;

    /// Returns a word of the filter of this host's IPv4 addresses.
    fn own_filter(&self, index: u32) -> u32;

    /// Whether this host has the IPv4 address.
    fn is_own_ipv4(&self, address: [u8; 4]) -> bool;

    /// Whether one of the networks that the server serves holds the IPv4 address.
    fn is_allowed(&self, address: [u8; 4]) -> bool;

    /// Returns this CPU's next IPv4 identification, host byte order.
    fn identification(&self) -> u16;

    /// Returns this CPU's tokens of the server's bucket for everything.
    fn reserve(&self) -> Option<u32>;

    /// Replaces this CPU's tokens of the server's bucket for everything.
    fn set_reserve(&self, tokens: u32);

    /// Counts a frame that was `octets` long when it arrived.
    fn count(&self, verdict: Verdict, octets: u64);

    /// Returns the time on the clock of all stamps.
    fn now(&self) -> Instant;

    /// Looks up the way of a UDP datagram in the kernel's tables, as if it came by the interface `from`.
    /// Returns `None` unless the kernel would forward it to a known neighbour.
    fn look_up_ipv4(&self, from: u32, source: Endpoint, destination: Endpoint) -> Option<Way>;

    /// Looks up the way of an IPv6 packet between two addresses, in words as they lie in memory; otherwise
    /// as [`Self::look_up_ipv4`].
    fn look_up_ipv6(&self, from: u32, source: [u32; 4], destination: [u32; 4]) -> Option<Way>;
}

/// The result of a look-up in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface to leave through.
    pub interface: u32,
    /// Octets of IP packet that fit.
    pub mtu: u16,
    /// Destination and source address of the frame.
    pub addresses: Addresses,
    /// Whether the frame goes to a gateway, and not to the destination itself.
    pub has_gateway: bool,
}

/// Words of 64 bits that other CPUs and the daemon may read and write at the same time. No access is
/// torn.
pub trait Words: Copy {
    /// Returns a word. The machine may have read it earlier or later than other words, unless
    /// [`Self::after`] forbids that.
    fn load(self, index: usize) -> u64;

    /// Returns the same words for accesses that come after the load of `value`.
    fn after(self, value: u64) -> Self;

    /// Replaces a word. Others may see it earlier or later than other words.
    fn store(self, index: usize, value: u64);

    /// Replaces a word by `new` if it is `old`, and returns whether it was. If it was, everything before
    /// comes before, and everything after comes after.
    fn compare_exchange(self, index: usize, old: u64, new: u64) -> bool;

    /// Adds to a word at once, in no order with other accesses.
    fn add(self, index: usize, value: u64);

    /// Returns the words from `index` on.
    fn from(self, index: usize) -> Self;
}

/// Words that the daemon writes.
pub trait Publish: Words {
    /// Replaces a word. A CPU that sees it sees everything that this thread stored before.
    fn publish(self, index: usize, value: u64);
}

#[cfg(not(target_arch = "bpf"))]
impl Words for &[AtomicU64] {
    #[inline]
    fn load(self, index: usize) -> u64 {
        self[index].load(Relaxed)
    }

    #[inline]
    fn after(self, _value: u64) -> Self {
        fence(Acquire);
        self
    }

    #[inline]
    fn store(self, index: usize, value: u64) {
        self[index].store(value, Relaxed);
    }

    #[inline]
    fn compare_exchange(self, index: usize, old: u64, new: u64) -> bool {
        let exchanged = self[index].compare_exchange(old, new, AcqRel, Relaxed);
        if exchanged.is_ok() {
            fence(AcqRel);
        }
        exchanged.is_ok()
    }

    #[inline]
    fn add(self, index: usize, value: u64) {
        self[index].fetch_add(value, Relaxed);
    }

    #[inline]
    fn from(self, index: usize) -> Self {
        &self[index..]
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Publish for &[AtomicU64] {
    #[inline]
    fn publish(self, index: usize, value: u64) {
        self[index].store(value, Release);
    }
}
