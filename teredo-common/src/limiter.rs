//! Token buckets: rate limits in bounded memory (requirements L-12, R-16,
//! S-23).
//!
//! A bucket is one number: the moment at which it will be full again, in nanoseconds on the clock
//! of [`Instant`]. Zero is a full bucket. A server keeps its buckets in one table, which the daemon
//! and the XDP program share: [`SOURCES`] for addresses, [`NETWORKS`] for networks, and one for
//! everything. Addresses whose hashes meet share a bucket, so one may get less than its rate under
//! a flood of others, but never more.

use bytemuck::{Pod, Zeroable};

use crate::time::Instant;

/// Buckets for source addresses; a power of two.
pub const SOURCES: u32 = 1 << SOURCE_BITS;
/// Buckets for source networks of [`NETWORK_PREFIX`]; a power of two.
pub const NETWORKS: u32 = 1 << NETWORK_BITS;
/// Index of the bucket for everything.
pub const TOTAL_SLOT: u32 = SOURCES + NETWORKS;
/// Buckets of a table.
pub const BUCKETS: u32 = TOTAL_SLOT + 1;
/// Length of the prefix of a source network.
pub const NETWORK_PREFIX: u8 = 24;

const SOURCE_BITS: u32 = 18;
const NETWORK_BITS: u32 = 16;
const SECOND: u64 = 1_000_000_000;

/// The rate of an event.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rate {
    /// Nanoseconds until a token comes back; zero forbids everything.
    pub interval: u64,
    /// Nanoseconds that a bucket may be short of full and still give a token: [`Rate::interval`]
    /// for every token of a burst but the first.
    pub tolerance: u64,
}

impl Rate {
    /// `per_second` events a second, and `burst` of them at once after a rest. A rate of zero
    /// forbids them; a burst of zero counts as one.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let interval = match SECOND.checked_div(per_second as u64) {
            None => 0,
            // More than one in a nanosecond.
            Some(0) => 1,
            Some(interval) => interval,
        };
        Self {
            interval,
            tolerance: interval.saturating_mul(burst.saturating_sub(1) as u64),
        }
    }

    /// Returns the part of each of as many that share the rate, and its burst.
    pub const fn divided_by(self, parts: u32) -> Self {
        let Some(burst) = self.tolerance.checked_div(self.interval) else {
            return self;
        };
        let parts = if parts == 0 { 1 } else { parts as u64 };
        let interval = self.interval.saturating_mul(parts);
        let part = (burst + 1) / parts;
        Self {
            interval,
            tolerance: interval.saturating_mul(part.saturating_sub(1)),
        }
    }
}

/// Takes a token from a bucket and returns its new value, or `None` if the bucket has no token.
#[inline(always)]
pub const fn take(bucket: u64, rate: Rate, now: Instant) -> Option<u64> {
    let now = now.as_nanos();
    let full = if bucket > now { bucket } else { now };
    if rate.interval == 0 || full - now > rate.tolerance {
        return None;
    }
    Some(full.saturating_add(rate.interval))
}

/// Rate limits of a server's packets for one source, one network and altogether (S-23).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Limits {
    /// Random, so that an attacker cannot choose addresses that share a bucket with a victim's.
    pub seed: u64,
    /// For each outer IPv4 source.
    pub source: Rate,
    /// For each source network of [`NETWORK_PREFIX`].
    pub network: Rate,
    /// For everything.
    pub total: Rate,
}

/// The bucket that had no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// That of the source address.
    Source,
    /// That of the source network.
    Network,
    /// That for everything.
    Total,
}

impl Limits {
    /// Returns the index of the bucket of an IPv4 address, given in network byte order. The buckets of a network's
    /// addresses lie together.
    #[inline(always)]
    pub const fn source_slot(self, [a, b, c, d]: [u8; 4]) -> u32 {
        let hash = self.hash([a, b, c]) >> (u64::BITS - NETWORK_BITS - SOURCE_BITS);
        (hash as u32 % SOURCES) ^ d as u32
    }

    /// Returns the index of the bucket of an IPv4 address's network.
    #[inline(always)]
    pub const fn network_slot(self, [a, b, c, _]: [u8; 4]) -> u32 {
        SOURCES + (self.hash([a, b, c]) >> (u64::BITS - NETWORK_BITS)) as u32
    }

    /// Takes a token from each of the three buckets, or from none if one of them is empty, so that
    /// a refused packet costs no token.
    #[inline(always)]
    pub const fn take(self, buckets: Buckets, now: Instant) -> Result<Buckets, Exhausted> {
        let Some(source) = take(buckets.source, self.source, now) else {
            return Err(Exhausted::Source);
        };
        let Some(network) = take(buckets.network, self.network, now) else {
            return Err(Exhausted::Network);
        };
        let Some(total) = take(buckets.total, self.total, now) else {
            return Err(Exhausted::Total);
        };
        Ok(Buckets {
            source,
            network,
            total,
        })
    }

    /// Returns a hash of a network. The seed enters twice: which networks meet depends on all of its bits.
    #[inline(always)]
    const fn hash(self, [a, b, c]: [u8; 3]) -> u64 {
        let mixed = u32::from_ne_bytes([a, b, c, 0]) as u64 ^ self.seed;
        let mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_add(self.seed.rotate_left(32));
        let mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ (mixed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The values of the three buckets that one packet takes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// At [`Limits::source_slot`].
    pub source: u64,
    /// At [`Limits::network_slot`].
    pub network: u64,
    /// At [`TOTAL_SLOT`].
    pub total: u64,
}

const _: () = {
    assert!(size_of::<Rate>() == 16);
    assert!(size_of::<Limits>() == 56);
};

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::{collections::HashSet, vec::Vec};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    fn limits(seed: u64) -> Limits {
        Limits {
            seed,
            source: Rate::new(10, 20),
            network: Rate::new(100, 200),
            total: Rate::new(1000, 1000),
        }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, 3);
        let mut bucket = 0;
        let mut takes = |now| take(bucket, rate, now).map(|new| bucket = new).is_some();
        assert_eq!((0..5).filter(|_| takes(START)).count(), 3);
        assert!(!takes(START + Duration::from_millis(99)));
        assert!(takes(START + Duration::from_millis(100)));
        assert!(!takes(START + Duration::from_millis(100)));
    }

    #[test]
    fn rate_zero_forbids_and_no_rate_overflows() {
        assert_eq!(take(0, Rate::new(0, 9), START), None);
        let fastest = Rate::new(u32::MAX, u32::MAX);
        assert_eq!(fastest.interval, 1);
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(take(u64::MAX, fastest, end), Some(u64::MAX));
        assert_eq!(Rate::new(1, 0), Rate::new(1, 1));
    }

    #[test]
    fn a_clock_that_lags_takes_no_token_away() {
        let rate = Rate::new(10, 2);
        let taken = take(0, rate, START).unwrap();
        let lagging = START - Duration::from_millis(4);
        assert_eq!(take(taken, rate, lagging), None);
        assert!(take(taken, rate, START).is_some());
    }

    #[test]
    fn s23_a_refused_packet_costs_no_token() {
        let full = Buckets::default();
        let far = START.as_nanos() + SECOND * 100;
        let cases = [
            (
                Buckets {
                    source: far,
                    ..full
                },
                Exhausted::Source,
            ),
            (
                Buckets {
                    network: far,
                    ..full
                },
                Exhausted::Network,
            ),
            (Buckets { total: far, ..full }, Exhausted::Total),
        ];
        for (buckets, exhausted) in cases {
            assert_eq!(limits(1).take(buckets, START), Err(exhausted));
        }
        let taken = limits(1).take(full, START).unwrap();
        assert!(taken.source > taken.network && taken.network > taken.total);
        assert_eq!(taken.source, START.as_nanos() + SECOND / 10);
    }

    #[test]
    fn s23_addresses_spread_over_the_table() {
        let limits = limits(0x0123_4567_89ab_cdef);
        // Neighbours and strangers. A random function brings 65,536 numbers to 57,988 of four times
        // as many slots, and to 41,427 of as many.
        for step in [1_u32, 256, 65_536, 0x0001_0101] {
            let numbers = (0..SOURCES / 4).map(|n| n.wrapping_mul(step));
            let used: HashSet<u32> = numbers
                .map(|number| limits.source_slot(number.wrapping_add(0x0900_0000).to_be_bytes()))
                .collect();
            assert!(used.len() > 56_000, "{step}: {}", used.len());
        }
        let networks = (0..NETWORKS).map(|n| (0x0900_0000 + (n << 8)).to_be_bytes());
        let used: HashSet<u32> = networks
            .map(|network| limits.network_slot(network))
            .collect();
        assert!(used.len() > 39_000, "{}", used.len());
    }

    #[test]
    fn s23_no_two_addresses_of_a_network_share_a_bucket() {
        for seed in 0..32 {
            let limits = limits(seed * 0x0101_0000_0001);
            let slots = (0..=255).map(|d| limits.source_slot([9, 0, 1, d]));
            assert_eq!(slots.collect::<HashSet<_>>().len(), 256);
        }
    }

    #[test]
    fn s23_bucket_sharing_depends_on_the_seed() {
        let meet = |seed| -> HashSet<u8> {
            let limits = limits(seed);
            let slot = |c: u8| limits.source_slot([9, 0, c, 1]) >> (SOURCE_BITS - 8);
            (1..=255).filter(|&c| slot(c) == slot(0)).collect()
        };
        let sets: HashSet<Vec<u8>> = (0..32)
            .map(|n: u64| {
                let mut met: Vec<u8> = meet(n.wrapping_mul(0x0101_0000_0001)).into_iter().collect();
                met.sort_unstable();
                met
            })
            .collect();
        assert!(sets.len() > 16);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(
            per_second in 1_u32..50, burst in 1_u32..20,
            gaps in prop::collection::vec(0_u64..300, 1..200),
        ) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = 0;
            let mut now = START;
            let mut taken: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(new) = take(bucket, rate, now) {
                    prop_assert!(new > bucket);
                    bucket = new;
                    taken.push(now);
                }
            }
            for (first, &from) in taken.iter().enumerate() {
                for (count, &to) in taken[first..].iter().enumerate() {
                    let seconds = to.saturating_since(from).as_secs_f64();
                    let allowed = f64::from(burst) + seconds * f64::from(per_second) + 1e-3;
                    prop_assert!((count + 1) as f64 <= allowed);
                }
            }
        }

        #[test]
        fn never_less_than_the_rate(per_second in 1_u32..1_000, burst in 1_u32..20, start: u32) {
            let rate = Rate::new(per_second, burst);
            let mut now = Instant::from_nanos(start.into());
            let mut bucket = 0;
            for _ in 0..100 {
                bucket = take(bucket, rate, now).unwrap();
                now += Duration::from_nanos(rate.interval);
            }
        }

        #[test]
        fn slots_lie_in_their_part_of_the_table(seed: u64, address: [u8; 4], last: u8) {
            let limits = limits(seed);
            prop_assert!(limits.source_slot(address) < SOURCES);
            let network = limits.network_slot(address);
            prop_assert!((SOURCES..TOTAL_SLOT).contains(&network));
            let [a, b, c, _] = address;
            prop_assert_eq!(limits.network_slot([a, b, c, last]), network);
        }
    }
}
