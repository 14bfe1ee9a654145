//! Token buckets: how often something may happen, in bounded memory (requirements L-12, R-16).

use std::{hash::BuildHasher as _, time::Duration};

use teredo_common::time::Instant;

use super::keyed::Keyed;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; zero forbids it.
    pub per_second: u32,
    /// At once, after a rest; at least one.
    pub burst: u32,
}

impl Rate {
    /// `per_second` events a second, and `burst` of them at once.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst }
    }

    const fn interval(self) -> Option<Duration> {
        match 1_000_000_000_u64.checked_div(self.per_second as u64) {
            Some(nanoseconds) => Some(Duration::from_nanos(nanoseconds)),
            None => None,
        }
    }
}

/// One token bucket, as the moment at which it will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket(Instant);

impl Bucket {
    /// Takes a token, if there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let Some(interval) = rate.interval() else {
            return false;
        };
        let full = self.0.max(now);
        if full.saturating_since(now) > interval.saturating_mul(rate.burst.saturating_sub(1)) {
            return false;
        }
        self.0 = full + interval;
        true
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

    /// Buckets of the same rate, all full.
    pub(super) fn new(rate: Rate, keyed: Keyed) -> Self {
        Self {
            rate,
            keyed,
            buckets: vec![Bucket::default(); Self::COUNT].into(),
        }
    }

    /// Takes a token from the bucket of `key`, if there is one.
    pub fn take<const LENGTH: usize>(&mut self, key: [u8; LENGTH], now: Instant) -> bool {
        let hash = self.keyed.hash_one(key) as usize;
        self.buckets[hash % Self::COUNT].take(self.rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, 3);
        let mut bucket = Bucket::default();
        let taken = (0..5).filter(|_| bucket.take(rate, START)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(rate, START + Duration::from_millis(99)));
        assert!(bucket.take(rate, START + Duration::from_millis(100)));
        assert!(!bucket.take(rate, START + Duration::from_millis(100)));
    }

    #[test]
    fn rate_zero_forbids() {
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

    proptest! {
        #[test]
        fn never_more_than_the_rate(
            per_second in 1_u32..50, burst in 1_u32..20,
            gaps in prop::collection::vec(0_u64..300, 1..200),
        ) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = Bucket::default();
            let mut now = START;
            let mut taken: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if bucket.take(rate, now) {
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
    }
}
