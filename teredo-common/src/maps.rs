//! The layout of the BPF maps and of the program's read-only settings.
//!
//! Every type has a fixed size, no padding and alignment of 8 at most, so that the daemon, the
//! verifier and another build of either read the same octets. A change of any layout here changes
//! [`ABI_VERSION`].

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Endpoint, ServicePrefix},
    generations::{FIRST, Family, GENERATION},
    peers::LINE,
    prefixes::TeredoPrefixes,
    traffic::Tallies,
    verdict::Verdict,
};

/// Part of the pin path: maps of another layout are never adopted.
pub const ABI_VERSION: u32 = 8;

/// Array of lines, which can be mapped into memory, with the table of peers; see [`crate::peers`].
pub const PEERS: &str = "PEERS";
/// Hash map from the addresses of peers to the numbers of their slots in [`PEERS`], as `u32`.
pub const OTHER_PEERS: &str = "OTHER_PEERS";
/// Trie of native prefixes that may be relayed to; consulted with [`Settings::SERVES_SOME`] only.
pub const SERVED: &str = "SERVED";
/// Hash map, used as a set, of this host's IPv4 addresses.
pub const OWN_IPV4: &str = "OWN_IPV4";
/// Array of [`OWN_FILTER_WORDS`] numbers of 32 bits: an address whose bit is not set is not in
/// [`OWN_IPV4`]. Almost no address has its bit set, and a look-up in the hash map takes ten times
/// as long.
pub const OWN_FILTER: &str = "OWN_FILTER";
/// Array of [`Interface`], indexed by [`Interface::slot`], that packets may arrive by and leave by.
pub const INTERFACES: &str = "INTERFACES";
/// Hash map from the [`Trunk`](crate::vlan::Trunk) by which frames of a VLAN interface arrive to its index, as `u32`.
pub const VLANS: &str = "VLANS";
/// Array of the [`Trunk`](crate::vlan::Trunk)s by which frames of VLAN interfaces leave, indexed by [`Interface::trunk`].
pub const TRUNKS: &str = "TRUNKS";
/// One-entry array with the program that looks at rare frames, which the other one goes on with.
pub const THOROUGH: &str = "THOROUGH";
/// Per-CPU one-entry array with the number of frames that came with tags of a VLAN interface in [`VLANS`], as `u64`.
pub const VLAN_FRAMES: &str = "VLAN_FRAMES";
/// Per-CPU one-entry array with the next IPv4 identification, as `u32`; the daemon writes a random
/// start (requirement W-07).
pub const IDENTIFICATION: &str = "IDENTIFICATION";
/// One-entry array, which can be mapped into memory, of the generations of cached [`NextHop`]s, as `u32`, for
/// buckets of destinations, with the bits that determine a route; and of the daemon's heartbeat. See
/// [`crate::generations`].
pub const GENERATIONS: &str = "GENERATIONS";
/// One-entry array, which can be mapped into memory, of [`STATION_MARKS`] octets: 1 if a next hop was cached
/// whose Ethernet address has this [`station_mark`]. The daemon sets them back to 0.
pub const STATIONS: &str = "STATIONS";
/// Per-CPU array of [`Counter`], indexed by [`Verdict`].
pub const COUNTERS: &str = "COUNTERS";
/// Array, which can be mapped into memory, of [`Tables::route_sets`] [`RouteSet`]s.
pub const ROUTES: &str = "ROUTES";
/// Array of token buckets, as `u64`, which can be mapped into memory; [`crate::limiter`] has their
/// order. One entry without a server.
pub const LIMITS: &str = "LIMITS";
/// Trie of IPv4 networks that the server serves; consulted with
/// [`crate::respond::ServerConstants::ALLOWS_SOME`] only.
pub const ALLOWED: &str = "ALLOWED";
/// One-entry array of [`Instant`](crate::time::Instant): if the server is draining, when it will forward no more bubbles
/// either (requirement S-27); otherwise zero.
pub const DRAINING: &str = "DRAINING";
/// Per-CPU one-entry array with the tokens of the bucket for everything that the CPU has taken and
/// not used yet, as `u32`.
pub const RESERVE: &str = "RESERVE";
/// Array of words, which can be mapped into memory; [`crate::budget`] has their order. One entry if nothing
/// is limited.
pub const BUDGETS: &str = "BUDGETS";
/// The read-only global of type [`crate::budget::Budget`].
pub const BUDGET: &str = "BUDGET";
/// The read-only global of type [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// The read-only global of type [`Tables`].
pub const TABLES: &str = "TABLES";
/// The read-only global of type [`crate::respond::ServerConstants`].
pub const SERVER: &str = "SERVER";

/// Sets of [`ROUTES`], at most; a power of two. They take 8 MiB.
pub const ROUTE_SETS_MAX: u32 = 65_536;
/// [`Route`]s of a set.
pub const ROUTE_WAYS: usize = 3;
/// Entries of [`OWN_IPV4`] unless the host has so many addresses that the daemon needs more. The map
/// takes memory for those that are used.
pub const OWN_IPV4_MAX: u32 = 65_536;
/// Entries of [`OWN_FILTER`].
pub const OWN_FILTER_WORDS: u32 = 8;
/// Entries of [`INTERFACES`] unless the daemon needs another number; a power of two.
pub const INTERFACES_MAX: u32 = 64;
/// Entries of [`VLANS`] and of [`TRUNKS`], unless the daemon needs another number.
pub const VLANS_MAX: u32 = 64;
/// Entries of [`SERVED`].
pub const SERVED_MAX: u32 = 1024;
/// Entries of [`ALLOWED`].
pub const ALLOWED_MAX: u32 = 1024;
/// Entries of [`COUNTERS`].
pub const COUNTERS_MAX: u32 = Verdict::ALL.len() as u32;
/// Peers unless the configuration says another number.
pub const PEERS_MAX: u32 = 262_144;

/// Returns the entry of an IPv4 address in [`OWN_FILTER`], and the bit in it.
#[inline(always)]
pub const fn own_filter_bit([a, b, c, d]: [u8; 4]) -> (u32, u32) {
    let number = (a ^ b ^ c ^ d) as u32;
    (number / 32, 1 << (number % 32))
}

/// Entries of [`STATIONS`]; a power of two.
pub const STATION_MARKS: usize = 4096;

/// Returns the place of an Ethernet address in [`STATIONS`].
#[inline(always)]
pub const fn station_mark([a, b, c, d, e, f]: [u8; 6]) -> usize {
    let number = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize
}

/// The next hop of a frame, as in the kernel's tables at the time of its generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct NextHop {
    /// Changes before and after the other fields.
    pub version: Version,
    /// Destination address of the frame.
    pub destination: [u8; 6],
    /// Source address of the frame.
    pub source: [u8; 6],
    /// MTU of the route, in octets of IP packet; zero if the frame leaves with VLAN tags, so that nothing fits
    /// for those who do not look at the next field.
    pub mtu: u16,
    /// MTU of the route if the frame leaves with VLAN tags; otherwise zero.
    pub tagged_mtu: u16,
}

impl NextHop {
    /// A generation that no bucket ever has: nothing was stored yet.
    pub const EMPTY: u32 = 0;
    /// A generation that no bucket ever has: some CPU is writing the other fields.
    pub const CLAIMED: u32 = 2;
}

/// The generation and the interface of a cached next hop, and the number of times that it was stored, in one
/// word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Version(pub u64);

impl Version {
    /// Larger indices of interfaces have no room here.
    pub const INTERFACE_MAX: u32 = GENERATION;

    /// Returns the version that comes after this one when a next hop is stored.
    #[inline(always)]
    pub const fn next(self, generation: u32, interface: u32) -> Self {
        let count = (self.0 >> 48).wrapping_add(1);
        Self(generation as u64 | (interface as u64) << 24 | count << 48)
    }

    /// Returns the same version with another generation.
    #[inline(always)]
    pub const fn with(self, generation: u32) -> Self {
        Self(self.0 & !(GENERATION as u64) | generation as u64)
    }

    /// Returns the generation of the destination's bucket; [`NextHop::EMPTY`] or [`NextHop::CLAIMED`].
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 as u32 & GENERATION
    }

    /// Returns the index of the interface to leave through.
    #[inline(always)]
    pub const fn interface(self) -> u32 {
        (self.0 >> 24) as u32 & GENERATION
    }
}

/// An interface that the program is attached to, or a VLAN interface above one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interface {
    /// The interface's index; zero in an empty slot.
    pub index: u32,
    /// The first four octets of its Ethernet address, as they lie in memory.
    pub station: u32,
    /// The last two.
    pub rest: u16,
    /// Index of the trunk of a VLAN interface in [`TRUNKS`]; zero for others.
    pub trunk: u16,
    /// Zero.
    pub reserved: [u8; 4],
}

impl Interface {
    /// The entry of an interface with this Ethernet address.
    pub const fn new(index: u32, station: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = station;
        Self {
            index,
            station: u32::from_ne_bytes([a, b, c, d]),
            rest: u16::from_ne_bytes([e, f]),
            trunk: 0,
            reserved: [0; 4],
        }
    }

    /// Returns its Ethernet address.
    pub const fn address(&self) -> [u8; 6] {
        let ([a, b, c, d], [e, f]) = (self.station.to_ne_bytes(), self.rest.to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Returns the index of the interface in [`INTERFACES`]. The daemon chooses `mask`, one less than a power
    /// of two, so that no two interfaces share a slot.
    #[inline(always)]
    pub const fn slot(index: u32, mask: u32) -> u32 {
        index & mask
    }
}

/// A line of [`PEERS`].
pub type Line = [u64; LINE];

/// The parameters of the hash tables of the program; constants to the verifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Tables {
    /// Random, so that an attacker cannot choose addresses that share a home, or destinations that share a
    /// set of [`ROUTES`].
    pub seed: u64,
    /// Number of sets of [`ROUTES`]; a power of two.
    pub route_sets: u32,
    /// Zero.
    pub reserved: u32,
    /// The part of [`PEERS`] that counts the peers' traffic.
    pub tallies: Tallies,
}

impl Tables {
    /// Returns the index of the set of [`ROUTES`] for a key, and the place in it that the key takes from another
    /// if no place is free.
    #[inline(always)]
    pub const fn route_set(self, RouteKey([first, second]): RouteKey) -> (u32, usize) {
        let mixed = (first ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32) ^ second).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = (mixed ^ (mixed >> 32) ^ self.seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
        // Some verifiers do not bound remainders.
        let place = ((mixed >> 16 & 0xffff) as usize * ROUTE_WAYS) >> 16;
        (
            (mixed >> 32) as u32 & self.route_sets.wrapping_sub(1),
            place,
        )
    }
}

/// The destination of a cached route, or all those behind a gateway that begin alike; in words as they lie
/// in memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RouteKey(pub [u64; 2]);

impl RouteKey {
    /// The second half of the key of many destinations of IPv6, but for an octet that depends on the number of
    /// bits. No single one that ends so is cached.
    const MANY: u64 = u64::MAX;
    /// The bits of that octet.
    const BITS: u64 = 0xff;

    /// The key of no destination, by which nothing is cached.
    pub const NONE: Self = Self([0; 2]);

    /// Returns the key of one destination of IPv6, or [`Self::NONE`] if it cannot be cached. The first half is not
    /// zero: no destination is in ::/64.
    #[inline(always)]
    pub const fn of_ipv6(destination: [u64; 2]) -> Self {
        match destination[1] | Self::BITS {
            Self::MANY => Self::NONE,
            _ => Self(destination),
        }
    }

    /// Returns the key of all destinations of IPv6 whose first `bits` are those of `first`; from 1 to 64.
    #[inline(always)]
    pub const fn of_ipv6_prefix(first: u64, bits: u8) -> Self {
        let mask = (u64::MAX << (64_u32.wrapping_sub(bits as u32) & 63)).to_be();
        Self([first & mask, Self::MANY ^ bits as u64])
    }

    /// Returns the key of one destination of IPv4, in network byte order.
    #[inline(always)]
    pub const fn of_ipv4(destination: u32) -> Self {
        Self([0, destination as u64 | 1 << 32])
    }

    /// Returns the key of all destinations of IPv4 whose first `bits` are those of `destination`; from 1 to 32. A larger
    /// number is as good as 32.
    #[inline(always)]
    pub const fn of_ipv4_prefix(destination: u32, bits: u8) -> Self {
        let mask = (u32::MAX << (32_u32.wrapping_sub(bits as u32) & 31)).to_be();
        Self([0, (destination & mask) as u64 | (bits as u64 + 1) << 32])
    }

    /// Returns the family of the destinations and their first 32 bits, as they lie in memory.
    #[inline(always)]
    pub const fn start(self) -> (Family, u32) {
        let Self([first, second]) = self;
        if first == 0 && second >> 48 == 0 {
            return (Family::Ipv4, second as u32);
        }
        let [a, b, c, d, ..] = first.to_ne_bytes();
        (Family::Ipv6, u32::from_ne_bytes([a, b, c, d]))
    }
}

/// The next hop of one destination, or of many that share it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Route {
    /// The destinations; zeros in an empty place.
    pub key: RouteKey,
    /// The cached next hop.
    pub next_hop: NextHop,
}

/// The routes that one destination may be among: two cache lines.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RouteSet {
    /// The places of the routes.
    pub routes: [Route; ROUTE_WAYS],
    /// Zero.
    pub reserved: u64,
}

/// Packets and octets that met one [`Verdict`] on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Counter {
    /// Number of frames.
    pub packets: u64,
    /// Their length when they arrived, in octets with the Ethernet header.
    pub bytes: u64,
}

/// The settings that the program is loaded with; constants to the verifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// A peer that was silent for longer is not forwarded by XDP. Nanoseconds.
    pub peer_lifetime: u64,
    /// The relay's endpoint: destination of decapsulated, source of encapsulated packets. Zeros
    /// without a relay: then nothing is translated.
    pub relay: Endpoint,
    /// Largest IPv6 packet in the tunnel, in octets. Host byte order.
    pub mtu: u16,
    /// The Teredo service prefix.
    pub prefix: ServicePrefix,
    /// Index of the relay's tunnel interface, where route look-ups start. Zero without a relay: they
    /// start where those for the host's own packets do.
    pub tunnel: u32,
    /// [`Settings::SERVES_SOME`] and others.
    pub flags: u32,
    /// For [`Interface::slot`].
    pub interface_mask: u32,
    /// The prefixes of all Teredo services, whose addresses are not relayed to or from.
    pub teredo: TeredoPrefixes,
}

impl Settings {
    /// Only native destinations in [`SERVED`] are relayed to; otherwise all of them.
    pub const SERVES_SOME: u32 = 1;
    /// Packets whose outer checksum has no shortcut leave with zero instead of passing to userspace.
    pub const ALLOW_ZERO_CHECKSUM: u32 = 2;
    /// Every packet leaves with outer checksum zero.
    pub const ALWAYS_ZERO_CHECKSUM: u32 = 4;
}

const _: () = {
    assert!(size_of::<NextHop>() == 24);
    assert!(offset_of!(Route, next_hop) % 8 == 0);
    assert!(size_of::<Tables>() == 32);
    assert!(size_of::<Interface>() == 16);
    assert!(size_of::<Route>() == 40);
    assert!(size_of::<RouteSet>() == 128);
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Settings>() == 72);
    assert!(ROUTE_SETS_MAX.is_power_of_two());
    assert!(NextHop::CLAIMED < FIRST);
    assert!(STATION_MARKS == 1 << (64 - 52));
    assert!(INTERFACES_MAX.is_power_of_two());
};

#[cfg(feature = "user")]
mod user {
    use super::{Counter, Interface, RouteSet, Settings, Tables};

    // SAFETY: `repr(C)` without padding (bytemuck::Pod proves it) and valid for any octets.
    unsafe impl aya::Pod for crate::budget::Budget {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Tables {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Interface {}
    // SAFETY: as above.
    unsafe impl aya::Pod for RouteSet {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Settings {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, vec::Vec};

    const TABLE: Tables = Tables {
        seed: 1,
        route_sets: 4096,
        reserved: 0,
        tallies: Tallies::NONE,
    };

    /// The most destinations of a list that share a set.
    fn most(table: Tables, destinations: &[[u64; 2]]) -> usize {
        let mut counts = HashMap::new();
        for &destination in destinations {
            let (set, _) = table.route_set(RouteKey(destination));
            *counts.entry(set).or_default() += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    #[test]
    fn destinations_that_collide_under_one_seed_do_not_under_another() {
        let all = |number: u64| [0x0120, number << 32 | number.wrapping_mul(0x0101_0011)];
        let set = |destination| TABLE.route_set(RouteKey(destination)).0;
        let place = set(all(0));
        let chosen: Vec<_> = (0..400_000)
            .map(all)
            .filter(|&destination| set(destination) == place)
            .collect();
        assert!(chosen.len() > 50, "{}", chosen.len());
        for seed in [2, 3, 0x8000_0000_0000_0001, u64::MAX] {
            let most = most(Tables { seed, ..TABLE }, &chosen);
            assert!(most < 6, "{most} of {} with seed {seed}", chosen.len());
        }
    }

    #[test]
    fn destinations_of_one_network_are_spread() {
        let table = Tables {
            seed: 0x1234_5678_9abc_def0,
            ..TABLE
        };
        for shift in [0, 8, 16, 24, 32, 56] {
            let destinations: Vec<_> = (0..256).map(|number| [1, number << shift]).collect();
            assert!(most(table, &destinations) < 6);
        }
    }

    #[test]
    fn a_key_holds_the_destinations_that_begin_alike() {
        let words = |octets: [u8; 16]| bytemuck::cast::<_, [u64; 2]>(octets);
        let one = words([
            0x20, 1, 0xd, 0xb8, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0, 0, 0, 1,
        ]);
        let other = words([
            0x20, 1, 0xd, 0xb8, 0x12, 0x30, 0x56, 0x78, 0, 0, 0, 0, 0, 0, 0, 1,
        ]);
        for (bits, alike) in [(1, true), (32, true), (44, true), (46, false), (64, false)] {
            let [one, other] = [one, other].map(|words| RouteKey::of_ipv6_prefix(words[0], bits));
            assert_eq!(one == other, alike, "{bits}");
        }
        // No host has the key of its prefix, and no prefix that of another length.
        assert_eq!(RouteKey::of_ipv6(one), RouteKey(one));
        for bits in 1..=64 {
            let RouteKey(prefix) = RouteKey::of_ipv6_prefix(one[0], bits);
            assert_eq!(RouteKey::of_ipv6(prefix), RouteKey::NONE);
        }
        assert_ne!(
            RouteKey::of_ipv6_prefix(one[0], 64),
            RouteKey::of_ipv6_prefix(one[0], 63)
        );
    }

    #[test]
    fn a_key_of_ipv4_is_none_of_ipv6() {
        let octets = [9, 8, 7, 6];
        let destination = u32::from_ne_bytes(octets);
        let keys = [
            RouteKey::of_ipv4(destination),
            RouteKey::of_ipv4_prefix(destination, 32),
            RouteKey::of_ipv4_prefix(destination, 31),
            RouteKey::of_ipv4_prefix(destination, 16),
            RouteKey::of_ipv4_prefix(destination, 1),
        ];
        for (number, key) in keys.iter().enumerate() {
            assert!(!keys[..number].contains(key));
            assert_eq!(key.start().0, Family::Ipv4);
        }
        assert_eq!(keys[3].start().1, u32::from_ne_bytes([9, 8, 0, 0]));
        let other = u32::from_ne_bytes([9, 8, 200, 6]);
        assert_eq!(keys[3], RouteKey::of_ipv4_prefix(other, 16));
        assert_ne!(keys[0], RouteKey::of_ipv4(other));
        let first = u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]);
        for key in [
            RouteKey::of_ipv6_prefix(first, 1),
            RouteKey::of_ipv6_prefix(first, 64),
            RouteKey([first, 0]),
        ] {
            assert_eq!(key.start().0, Family::Ipv6);
        }
    }

    #[test]
    fn every_version_is_new() {
        let mut version = Version::default();
        for _ in 0..3 {
            let next = version.next(FIRST, Version::INTERFACE_MAX);
            assert_ne!(next, version);
            assert_eq!(next.generation(), FIRST);
            assert_eq!(next.interface(), Version::INTERFACE_MAX);
            assert_eq!(next.with(NextHop::CLAIMED).generation(), NextHop::CLAIMED);
            assert_eq!(next.with(NextHop::CLAIMED).with(FIRST), next);
            version = next;
        }
    }
}
