//! Limits on what the server sends (S-23).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use teredo_common::{
    limiter::{self, BUCKETS, Exhausted, Limits, TOTAL_SLOT},
    time::Instant,
};

use super::statistics::DropReason;

/// The token buckets of a server's limits, which a fast path may share.
pub struct Buckets(Box<dyn AsRef<[AtomicU64]> + Send + Sync>);

/// The error of [`Buckets::shared`]: the storage has fewer than [`BUCKETS`] numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limits' buckets need room for {BUCKETS} numbers")]
pub struct TooFew;

impl Buckets {
    /// Creates full buckets in memory of their own, of 2.5 MiB.
    #[must_use]
    pub fn new() -> Self {
        let numbers: Vec<_> = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self(Box::new(numbers))
    }

    /// Uses buckets that others have as well, such as those in a BPF map of a fast path.
    ///
    /// # Errors
    ///
    /// Returns [`TooFew`] if `storage` is too small.
    pub fn shared(
        storage: impl AsRef<[AtomicU64]> + Send + Sync + 'static,
    ) -> Result<Self, TooFew> {
        if storage.as_ref().len() < BUCKETS as usize {
            return Err(TooFew);
        }
        Ok(Self(Box::new(storage)))
    }

    /// Returns the buckets that are not full, each with its place.
    pub(super) fn save(&self, now: Instant) -> Vec<(u32, u64)> {
        let numbered = (0..).zip((*self.0).as_ref());
        numbered
            .map(|(slot, bucket)| (slot, bucket.load(Ordering::Relaxed)))
            .filter(|(_, full_at)| *full_at > now.as_nanos())
            .collect()
    }

    /// Takes from the buckets what was taken from these before.
    pub(super) fn restore(&self, saved: &[(u32, u64)]) {
        for (slot, full_at) in saved {
            if let Some(bucket) = (*self.0).as_ref().get(*slot as usize) {
                bucket.fetch_max(*full_at, Ordering::Relaxed);
            }
        }
    }

    /// Gives back the tokens that a time brings which the clock does not count.
    pub(super) fn age(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        for bucket in (*self.0).as_ref() {
            let full_at = bucket.load(Ordering::Relaxed);
            if full_at > 0 {
                bucket.store(full_at.saturating_sub(nanoseconds), Ordering::Relaxed);
            }
        }
    }

    /// Takes a token for a packet from `source`. Two that do so at once may both get the last one.
    pub(super) fn take(
        &self,
        limits: Limits,
        source: [u8; 4],
        now: Instant,
    ) -> Result<(), DropReason> {
        let numbers = (*self.0).as_ref();
        let slots = [
            limits.source_slot(source),
            limits.network_slot(source),
            TOTAL_SLOT,
        ];
        let [Some(source), Some(network), Some(total)] =
            slots.map(|slot| numbers.get(slot as usize))
        else {
            return Err(DropReason::TotalRate);
        };
        let buckets = limiter::Buckets {
            source: source.load(Ordering::Relaxed),
            network: network.load(Ordering::Relaxed),
            total: total.load(Ordering::Relaxed),
        };
        let taken = limits
            .take(buckets, now)
            .map_err(|exhausted| match exhausted {
                Exhausted::Source => DropReason::SourceRate,
                Exhausted::Network => DropReason::NetworkRate,
                Exhausted::Total => DropReason::TotalRate,
            })?;
        source.store(taken.source, Ordering::Relaxed);
        network.store(taken.network, Ordering::Relaxed);
        total.store(taken.total, Ordering::Relaxed);
        Ok(())
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Buckets(..)")
    }
}
