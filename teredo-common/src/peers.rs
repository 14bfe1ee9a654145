//! The layout of the table of peers, in which the program finds those that userspace trusts.
//!
//! At ten thousand peers and more the time of a packet is the time of its cache misses, so that an entry
//! is small, and a search looks at one cache line. The map [`PEERS`](crate::maps::PEERS) is an array of
//! lines of 64 octets:
//!
//! - The first is the [`Header`].
//! - The next are sets of [`PLACES`] entries, of which the table uses as many as its peers need
//!   ([`Sets`], which are at [`SETS`](crate::generations::SETS)). An entry is for a peer whose mapping is the endpoint in its address, and holds the address
//!   without the service prefix, and [`Stamps`]. A peer has any place of the one set that is its. The program compares flags
//!   and port, which few peers share, with those of all places, and does not branch before it knows the place: a branch
//!   would often be mispredicted, and the processor would wait for the line there.
//! - The next hold two [`Slot`]s each, for all other peers: those behind symmetric NATs, and those that
//!   found no place in their set. The map [`OTHER_PEERS`](crate::maps::OTHER_PEERS) has their numbers by
//!   address. A flag at one place of its set, which the hash chooses, says that it may be there.
//!
//! Behind the slots are lines that count the traffic of the peers ([`crate::traffic`]).
//!
//! The table grows and shrinks by one set at a time (linear hashing): a new set takes about half of the peers of
//! one other set, and no others move.
//!
//! The daemon alone adds, moves and removes; the program writes stamps and counts.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use crate::{
    address::{Endpoint, ServicePrefix, embedded_mapping},
    generations::{SECOND, seconds},
    time::Instant,
    traffic::Tallies,
};

/// Words of a line.
pub const LINE: usize = 8;
/// Places of a set.
pub const PLACES: usize = 4;
/// Words of an entry.
pub const ENTRY: usize = LINE / PLACES;
/// Words of a slot.
pub const SLOT: usize = 4;
/// Slots of a line.
pub const SLOTS: usize = LINE / SLOT;
/// The line of the first set.
pub const FIRST_SET: u32 = 1;
/// The longest time since the last [`HEARTBEAT`](crate::generations::HEARTBEAT) for which stamps tell an age, in units of a
/// [`SECOND`]: almost five hours.
pub const HORIZON: u32 = 1 << 14;

/// A peer that userspace trusts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The destination of packets for the peer, and the source of its packets. Userspace has proof that it is
    /// there.
    pub mapped: Endpoint,
    /// When a packet of the peer last arrived. Coarse: see [`Stamps`].
    pub last_received: Instant,
    /// When a packet was last sent to the peer. Coarse: see [`Stamps`].
    pub last_sent: Instant,
}

impl Peer {
    /// Whether the mapping is not the endpoint in the peer's address (requirement R-13).
    pub fn is_symmetric(&self, address: &[u8; 16]) -> bool {
        self.mapped != embedded_mapping(address)
    }
}

/// The first line of the table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// The first 32 bits of the addresses of all entries.
    pub prefix: ServicePrefix,
    /// Number of lines for sets.
    pub sets_max: u32,
    /// The lines that count the traffic of peers, behind all others.
    pub tallies: Tallies,
    /// Zero.
    pub reserved: [u32; 2 * LINE - 6],
}

/// The number of sets in use, and a mask for it, in one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Sets(pub u64);

impl Sets {
    /// Returns the word for `count` sets, from 1 to 2³¹.
    pub const fn new(count: u32) -> Self {
        let mask = count.next_power_of_two() - 1;
        Self(count as u64 | (mask as u64) << 32)
    }

    /// Returns the number of sets.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        self.0 as u32
    }

    /// Returns the number of the set of a peer.
    #[inline(always)]
    pub const fn set(self, Hash(hash): Hash) -> u32 {
        let mask = self.0 >> 32;
        let set = (hash >> 32) & mask;
        // 1 if there is no such set yet. A branch would often be mispredicted.
        let is_beyond = (self.count() as u64).wrapping_sub(set + 1) >> 63;
        (set & (mask >> is_beyond)) as u32
    }
}

/// The keyed hash of a peer's address, of which the upper half decides about the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

impl Hash {
    /// Returns the hash of an address under a random seed, so that nobody can choose addresses that share a set. The
    /// address is in words as they lie in memory: the server, flags and port, and the client; the service prefix does not
    /// count.
    #[inline(always)]
    pub const fn new(first: u64, client: u32, seed: u64) -> Self {
        let first = (first ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let client = (client as u64 ^ seed).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (first ^ (first >> 32)).wrapping_add(client);
        Self((mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// Returns the hash of an address in network byte order.
    pub fn of(address: &[u8; 16], seed: u64) -> Self {
        let [_, server, flags_and_port, client]: [u32; 4] = bytemuck::cast(*address);
        Self::new(bytemuck::cast([server, flags_and_port]), client, seed)
    }

    /// Returns the place in the peer's set whose flag says that it may be in a slot.
    #[inline(always)]
    pub const fn place(self) -> usize {
        (self.0 >> 29) as usize & (PLACES - 1)
    }

    /// Returns the bits that decide about the set, the most important ones first. Peers of one set follow each other in
    /// this order, however many sets there are.
    pub const fn order(self) -> u32 {
        ((self.0 >> 32) as u32).reverse_bits()
    }
}

/// The times when something of a peer last arrived, and was last sent to it, to a [`SECOND`]; and the flag of the
/// place. In the upper half, in memory order, of the second word of an entry, and of the last word of a slot.
///
/// The times are in units of a [`SECOND`], modulo 2¹⁵, which are nine hours.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stamps(pub u32);

impl Stamps {
    /// The flag of a place: peers whose hash has chosen it are in slots.
    pub const ELSEWHERE: u32 = 1 << 31;
    /// The bits of one time.
    const TIME: u32 = 0x7fff;
    /// The position of the time of the last packet to the peer.
    const SENT: u32 = 15;
    /// Returns the stamps of a peer without the flag. Times later than `now` count as `now`.
    pub fn new(peer: &Peer, now: Instant) -> Self {
        let time = |time: Instant| {
            let oldest = seconds(now).saturating_sub(HORIZON);
            seconds(time.min(now)).max(oldest) & Self::TIME
        };
        Self(time(peer.last_received) | time(peer.last_sent) << Self::SENT)
    }

    /// Returns the latest moments that the stamps may stand for, at the time `now`: when a packet arrived, and when one was
    /// sent.
    pub fn times(self, now: Instant) -> (Instant, Instant) {
        let time = |bits: u32| {
            let elapsed = seconds(now).wrapping_sub(bits) & Self::TIME;
            // The clock of the program may be ahead.
            let elapsed = if elapsed == Self::TIME { 0 } else { elapsed };
            let second = u64::from(seconds(now).saturating_sub(elapsed));
            Instant::from_nanos(second * SECOND.as_nanos() as u64)
        };
        (time(self.0), time(self.0 >> Self::SENT))
    }

    /// Returns the stamps with the later times of both, at the time `now`.
    pub fn latest(self, other: Self, now: Instant) -> Self {
        let [(received, sent), (other_received, other_sent)] = [self.times(now), other.times(now)];
        let peer = Peer {
            mapped: Endpoint::default(),
            last_received: received.max(other_received),
            last_sent: sent.max(other_sent),
        };
        Self(Self::new(&peer, now).0 | self.0 & Self::ELSEWHERE)
    }

    /// Whether a packet of the peer arrived within `lifetime` nanoseconds, if the daemon has been there within the
    /// [`HORIZON`]. Up to two seconds of the lifetime are not used.
    #[inline(always)]
    pub const fn is_fresh(self, now: Instant, lifetime: u64) -> bool {
        // The daemon's clock is finer than the program's, and may be one ahead.
        let age = seconds(now).wrapping_add(1).wrapping_sub(self.0) & Self::TIME;
        age as u64 <= lifetime / SECOND.as_nanos() as u64
    }

    /// Returns the stamps after a packet of the peer arrived at the time `now`.
    #[inline(always)]
    pub const fn received(self, now: Instant) -> Self {
        Self(self.0 & !Self::TIME | seconds(now) & Self::TIME)
    }

    /// Returns the stamps after a packet was sent to the peer at the time `now`.
    #[inline(always)]
    pub const fn sent(self, now: Instant) -> Self {
        let mask = Self::TIME << Self::SENT;
        Self(self.0 & !mask | (seconds(now) & Self::TIME) << Self::SENT)
    }
}

/// A peer whose mapping is not in its address, or that found no other place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Slot {
    /// The peer's address; zeroes in an empty slot.
    pub address: [u8; 16],
    /// [`Peer::mapped`]; zeroes while the slot gets another peer.
    pub mapped: Endpoint,
    /// Changes with the mapping and the peer. What was read between two loads of the word with the mapping belongs to
    /// one peer if the word is the same.
    pub count: u16,
    /// Zero.
    pub reserved: u32,
    /// The peer's stamps.
    pub stamps: Stamps,
}

const _: () = {
    assert!(size_of::<Header>() == 8 * LINE);
    assert!(size_of::<Slot>() == 8 * SLOT);
    assert!(offset_of!(Slot, mapped) == 16);
    assert!(offset_of!(Slot, reserved) == 24);
    assert!(offset_of!(Slot, stamps) == 28);
    assert!(SECOND.as_nanos() == 1 << 30);
};

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds << 30)
    }

    fn peer(received: Instant, sent: Instant) -> Peer {
        Peer {
            mapped: Endpoint::default(),
            last_received: received,
            last_sent: sent,
        }
    }

    #[test]
    fn every_hash_has_a_set_in_use() {
        for count in 1..200 {
            let sets = Sets::new(count);
            assert_eq!(sets.count(), count);
            for hash in (0..2000_u64).map(|number| Hash(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            {
                assert!(sets.set(hash) < count);
                // A set more takes the peers of one other.
                let more = Sets::new(count + 1).set(hash);
                assert!(more == sets.set(hash) || more == count);
            }
        }
    }

    #[test]
    fn addresses_that_share_a_place_under_one_seed_do_not_under_another() {
        // One client that claims many servers and flags, and clients of one network.
        let many = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            [0x20, 1, 0, 0, 9, a, b, 1, c, d, 0xef, 0xff, 1, 2, 3, 4]
        };
        let network = |number: u32| {
            let [_, b, c, d] = number.to_be_bytes();
            [0x20, 1, 0, 0, 9, 8, 7, 6, 0, 0, 0xef, 0xff, 1, b, c, d]
        };
        for address in [many, network] {
            let sets = Sets::new(4096);
            let home = |number, seed| {
                let hash = Hash::of(&address(number), seed);
                (sets.set(hash), hash.place())
            };
            let chosen = (0..400_000).filter(|&number| home(number, 7) == home(0, 7));
            let chosen: std::vec::Vec<_> = chosen.collect();
            assert!((10..50).contains(&chosen.len()), "{}", chosen.len());
            for seed in [8, 0x1234_5678_9abc_def0, u64::MAX] {
                let homes = chosen.iter().map(|&number| home(number, seed));
                let homes: std::collections::HashSet<_> = homes.collect();
                assert!(homes.len() + 2 > chosen.len(), "seed {seed}");
            }
        }
    }

    #[test]
    fn the_peers_of_a_set_follow_each_other() {
        let mut hashes: [Hash; 500] = core::array::from_fn(|number| {
            Hash((number as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
        });
        hashes.sort_by_key(|hash| hash.order());
        for count in [1, 2, 3, 7, 8, 9, 100] {
            let sets = Sets::new(count);
            let mut seen = std::collections::HashSet::new();
            let mut last = None;
            for hash in hashes {
                let set = sets.set(hash);
                assert!(last == Some(set) || seen.insert(set), "{count} sets");
                last = Some(set);
            }
        }
    }

    #[test]
    fn times_come_back_to_a_second() {
        for start in [100_000, (1 << 15) - 2, (1 << 15) + 7, 1 << 31] {
            let now = at(start) + Duration::from_millis(300);
            for (age, other) in [(0, 5), (31, 0), (16_000, 9), (16_384, 16_384)] {
                let stamps = Stamps::new(&peer(at(start - age), at(start - other)), now);
                assert_eq!(stamps.0 & Stamps::ELSEWHERE, 0);
                assert_eq!(stamps.times(now), (at(start - age), at(start - other)));
                // Some time later.
                let later = now + SECOND * 9_000;
                assert_eq!(stamps.times(later), (at(start - age), at(start - other)));
            }
        }
    }

    #[test]
    fn what_is_very_old_stays_old() {
        let now = at(1_000_000);
        let stamps = Stamps::new(&peer(Instant::ZERO, at(900_000)), now);
        let oldest = at(1_000_000 - 16_384);
        assert_eq!(stamps.times(now), (oldest, oldest));
        // On a machine that has just started.
        let now = at(7);
        let stamps = Stamps::new(&peer(Instant::ZERO, at(9)), now);
        assert_eq!(stamps.times(now), (Instant::ZERO, now));
    }

    #[test]
    fn a_peer_is_fresh_for_its_lifetime_and_no_longer() {
        let lifetime = Duration::from_secs(30);
        let start = at(70_000) + Duration::from_millis(900);
        let stamps = Stamps::new(&peer(start, Instant::ZERO), start);
        let is_fresh = |now| stamps.is_fresh(now, lifetime.as_nanos() as u64);
        for age in 0..28_000 {
            assert!(is_fresh(start + Duration::from_millis(age)), "{age} ms");
        }
        assert!(!is_fresh(start + lifetime));
        // The program's clock lags by a tick.
        assert!(is_fresh(at(70_000) - Duration::from_millis(1)));
        assert!(!is_fresh(start + SECOND * HORIZON));
    }

    #[test]
    fn the_program_writes_one_time_at_a_time() {
        let stamps = Stamps(Stamps::new(&peer(at(50), at(60)), at(70)).0 | Stamps::ELSEWHERE);
        assert_eq!(stamps.received(at(80)).times(at(80)), (at(80), at(60)));
        assert_eq!(stamps.sent(at(80)).times(at(80)), (at(50), at(80)));
        assert_eq!(stamps.sent(at(80)).0 & Stamps::ELSEWHERE, Stamps::ELSEWHERE);
        let other = Stamps::new(&peer(at(40), at(65)), at(70));
        let latest = stamps.latest(other, at(70));
        assert_eq!(latest.times(at(70)), (at(50), at(65)));
        assert_eq!(latest.0 & Stamps::ELSEWHERE, Stamps::ELSEWHERE);
    }
}
