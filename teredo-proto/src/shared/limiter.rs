//! Token buckets (L-12, R-16).

use std::hash::BuildHasher as _;

use serde::{Deserialize, Serialize};

pub use teredo_common::limiter::Rate;
use teredo_common::{limiter, time::Instant};

use crate::shared::keyed::Keyed;

/// One token bucket.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Bucket(u64);

/// The buckets of a table that are not full, each with its place.
pub type SavedBuckets = Vec<(u32, Bucket)>;

impl Bucket {
    /// Takes a token. Returns `false` if there is none.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let taken = limiter::take(self.0, rate, now);
        self.0 = taken.unwrap_or(self.0);
        taken.is_some()
    }
}

/// The rate of the networks of one size.
#[derive(Clone, Copy, Debug)]
pub struct Tier {
    /// Length of the networks in octets; 0 is everything.
    pub octets: usize,
    /// The rate of each network.
    pub rate: Rate,
}

impl Tier {
    /// Creates the rate of networks of as many octets.
    pub(crate) const fn new(octets: usize, rate: Rate) -> Self {
        Self { octets, rate }
    }
}

/// The rates of what is sent unasked to IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Rates {
    /// To each address.
    pub address: Rate,
    /// To each /24.
    pub network: Rate,
    /// To all addresses together.
    pub total: Rate,
}

impl Ipv4Rates {
    /// Rates of `per_second` to an address, twice as many to a /24, and 25 times as many in total.
    /// As many as in two seconds may come at once, and in total as many as in one.
    pub const fn of_address(per_second: u32) -> Self {
        let network = per_second.saturating_mul(2);
        let total = per_second.saturating_mul(25);
        Self {
            address: Rate::new(per_second, network),
            network: Rate::new(network, network.saturating_mul(2)),
            total: Rate::new(total, total),
        }
    }

    /// Returns the part of each of as many relays.
    pub(crate) const fn divided_by(self, relays: u32) -> Self {
        Self {
            address: self.address.divided_by(relays),
            network: self.network.divided_by(relays),
            total: self.total.divided_by(relays),
        }
    }

    /// Returns full buckets for addresses of four octets.
    pub(crate) fn tiers(&self, keyed: Keyed) -> Tiers {
        Tiers::new(&self.list(), keyed)
    }

    /// Returns the rates, those of the smallest networks first.
    pub(crate) const fn list(&self) -> [Tier; 3] {
        [
            Tier::new(4, self.address),
            Tier::new(3, self.network),
            Tier::new(0, self.total),
        ]
    }
}

/// The rates of what IPv6 sources may cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Rates {
    /// Each /64.
    pub subnet: Rate,
    /// Each /56.
    pub home: Rate,
    /// Each /48.
    pub site: Rate,
    /// Each /32.
    pub provider: Rate,
    /// All sources together.
    pub total: Rate,
}

impl Ipv6Rates {
    /// Rates of `per_second` to a /64, half as many more to a /56, twice as many to a /48, four times as
    /// many to a /32, and `total`. As many as in five seconds may come at once from a /64, in two from a
    /// /32, and in one from all.
    pub const fn of_subnet(per_second: u32, total: u32) -> Self {
        let home = per_second.saturating_add(per_second / 2);
        let site = per_second.saturating_mul(2);
        let provider = per_second.saturating_mul(4);
        let at_once = per_second.saturating_mul(8);
        Self {
            subnet: Rate::new(per_second, per_second.saturating_mul(5)),
            home: Rate::new(home, per_second.saturating_mul(6)),
            site: Rate::new(site, at_once),
            provider: Rate::new(provider, at_once),
            total: Rate::new(total, total),
        }
    }

    /// Returns the part of each of as many relays.
    pub(crate) const fn divided_by(self, relays: u32) -> Self {
        Self {
            subnet: self.subnet.divided_by(relays),
            home: self.home.divided_by(relays),
            site: self.site.divided_by(relays),
            provider: self.provider.divided_by(relays),
            total: self.total.divided_by(relays),
        }
    }

    /// Returns full buckets for addresses of eight octets or more.
    pub(crate) fn tiers(&self, keyed: Keyed) -> Tiers {
        Tiers::new(&self.list(), keyed)
    }

    /// Returns the rates, those of the smallest networks first.
    pub(crate) const fn list(&self) -> [Tier; 5] {
        [
            Tier::new(8, self.subnet),
            Tier::new(7, self.home),
            Tier::new(6, self.site),
            Tier::new(4, self.provider),
            Tier::new(0, self.total),
        ]
    }
}

/// Buckets for networks of several sizes, of which an address takes a token each. So nobody gets
/// more by using many addresses.
#[derive(Debug)]
pub struct Tiers(Vec<(usize, Buckets)>);

impl Tiers {
    /// Creates buckets of the tiers, all full.
    pub(crate) fn new(tiers: &[Tier], keyed: Keyed) -> Self {
        let buckets = |&Tier { octets, rate }: &Tier| {
            let count = if octets == 0 { 1 } else { Buckets::COUNT };
            (octets, Buckets::with_count(count, rate, keyed))
        };
        Self(tiers.iter().map(buckets).collect())
    }

    /// Sets the rates of the tiers, in their order. Each bucket is full when it would have been.
    pub(crate) fn set_rates(&mut self, tiers: &[Tier]) {
        for ((_, buckets), tier) in self.0.iter_mut().zip(tiers) {
            buckets.set_rate(tier.rate);
        }
    }

    /// Returns the levels of all buckets.
    pub fn save(&self, now: Instant) -> Vec<SavedBuckets> {
        let tiers = self.0.iter();
        tiers.map(|(_, buckets)| buckets.save(now)).collect()
    }

    /// Sets the levels of buckets that were stored, with the same key of the hash.
    pub fn restore(&mut self, saved: &[SavedBuckets]) {
        for ((_, buckets), saved) in self.0.iter_mut().zip(saved) {
            buckets.restore(saved);
        }
    }

    /// Takes a token from the bucket of each network of `address`, or none if one is empty, and
    /// returns whether it did. `address` has at least as many octets as the longest network.
    pub fn take(&mut self, address: &[u8], now: Instant) -> bool {
        let is_free = self.free_at(address) <= now;
        if is_free {
            for (octets, buckets) in &mut self.0 {
                buckets.take(&address[..*octets], now);
            }
        }
        is_free
    }

    /// Returns when [`Tiers::take`] has a token for the address.
    pub fn free_at(&self, address: &[u8]) -> Instant {
        let tiers = self.0.iter();
        let free = tiers.map(|(octets, buckets)| buckets.free_at(&address[..*octets]));
        free.max().unwrap_or_default()
    }
}

/// A bucket for each key. Keys whose hashes meet share one, so a key may get less than its rate
/// under a flood of others, but never more.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    keyed: Keyed,
    buckets: Box<[Bucket]>,
}

impl Buckets {
    /// Number of buckets: 32 KiB of them.
    const COUNT: usize = 4096;

    /// Creates buckets of the same rate, all full.
    pub(crate) fn new(rate: Rate, keyed: Keyed) -> Self {
        Self::with_count(Self::COUNT, rate, keyed)
    }

    fn with_count(count: usize, rate: Rate, keyed: Keyed) -> Self {
        Self {
            rate,
            keyed,
            buckets: vec![Bucket::default(); count].into(),
        }
    }

    /// Sets the rate. Each bucket is full when it would have been.
    pub(crate) const fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// Returns the levels of all buckets.
    pub fn save(&self, now: Instant) -> SavedBuckets {
        let numbered = (0..).zip(&self.buckets);
        let is_used = |(_, Bucket(full_at)): &(u32, &Bucket)| *full_at > now.as_nanos();
        numbered
            .filter(is_used)
            .map(|(slot, bucket)| (slot, *bucket))
            .collect()
    }

    /// Sets the levels of buckets that were stored, with the same key of the hash.
    pub fn restore(&mut self, saved: &SavedBuckets) {
        for (slot, bucket) in saved {
            if let Some(place) = self.buckets.get_mut(*slot as usize) {
                *place = *bucket;
            }
        }
    }

    /// Takes a token from the bucket of `key`. Returns `false` if there is none.
    pub fn take(&mut self, key: &[u8], now: Instant) -> bool {
        let slot = self.slot(key);
        self.buckets[slot].take(self.rate, now)
    }

    /// Returns when the bucket of `key` has a token; never, if the rate is zero.
    fn free_at(&self, key: &[u8]) -> Instant {
        let Bucket(full) = self.buckets[self.slot(key)];
        match self.rate.interval {
            0 => Instant::from_nanos(u64::MAX),
            _ => Instant::from_nanos(full.saturating_sub(self.rate.tolerance)),
        }
    }

    fn slot(&self, key: &[u8]) -> usize {
        self.keyed.hash_one(key) as usize % self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    #[test]
    fn a_bucket_gives_what_it_holds() {
        let mut bucket = Bucket::default();
        let rate = Rate::new(10, 3);
        assert_eq!((0..5).filter(|_| bucket.take(rate, START)).count(), 3);
        assert!(!Bucket::default().take(Rate::new(0, 9), START));
    }

    #[test]
    fn l12_a_refused_address_takes_no_token_from_its_networks() {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        let tier = |octets, burst| Tier {
            octets,
            rate: Rate::new(1, burst),
        };
        let mut tiers = Tiers::new(&[tier(2, 1), tier(1, 2), tier(0, 3)], keyed);
        assert!(tiers.take(&[1, 1], START));
        for _ in 0..10 {
            assert!(!tiers.take(&[1, 1], START), "the address has no token");
        }
        assert!(tiers.take(&[1, 2], START));
        assert!(!tiers.take(&[1, 3], START), "nor has its network");
        assert!(tiers.take(&[2, 1], START));
        assert!(!tiers.take(&[3, 1], START), "nor is there any");
        let free = tiers.free_at(&[3, 1]);
        assert!(free > START && tiers.take(&[3, 1], free));
    }

    #[test]
    fn keys_have_their_own_buckets() {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        let mut buckets = Buckets::new(Rate::new(1, 1), keyed);
        assert!(buckets.take(&[1, 2, 3, 4], START));
        assert!(!buckets.take(&[1, 2, 3, 4], START));
        let others = (0..100).filter(|&last| buckets.take(&[5, 6, 7, last], START));
        assert!(others.count() > 90);
    }
}
