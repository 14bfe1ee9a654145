//! Token buckets (L-12, R-16).

use std::hash::BuildHasher as _;

pub use teredo_common::limiter::Rate;
use teredo_common::{limiter, time::Instant};

use crate::shared::keyed::Keyed;

/// One token bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket(u64);

impl Bucket {
    /// Takes a token. Returns `false` if there is none.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let taken = limiter::take(self.0, rate, now);
        self.0 = taken.unwrap_or(self.0);
        taken.is_some()
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
        Self {
            rate,
            keyed,
            buckets: vec![Bucket::default(); Self::COUNT].into(),
        }
    }

    /// Takes a token from the bucket of `key`. Returns `false` if there is none.
    pub fn take<const LENGTH: usize>(&mut self, key: [u8; LENGTH], now: Instant) -> bool {
        let hash = self.keyed.hash_one(key) as usize;
        self.buckets[hash % Self::COUNT].take(self.rate, now)
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
    fn keys_have_their_own_buckets() {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        let mut buckets = Buckets::new(Rate::new(1, 1), keyed);
        assert!(buckets.take([1, 2, 3, 4], START));
        assert!(!buckets.take([1, 2, 3, 4], START));
        let others = (0..100).filter(|&last| buckets.take([5, 6, 7, last], START));
        assert!(others.count() > 90);
    }
}
