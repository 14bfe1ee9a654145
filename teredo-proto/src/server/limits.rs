//! How often the server sends something (requirement S-23).

use std::sync::atomic::{AtomicU64, Ordering};

use teredo_common::{
    limiter::{self, BUCKETS, Exhausted, Limits, TOTAL_SLOT},
    time::Instant,
};

use super::statistics::DropReason;

/// The buckets of a server's limits. The fast path may take from the same ones.
pub struct Buckets(Box<dyn AsRef<[AtomicU64]> + Send + Sync>);

/// The storage has fewer than [`BUCKETS`] numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limits' buckets need room for {BUCKETS} numbers")]
pub struct TooFew;

impl Buckets {
    /// Full buckets of the server's own: two and a half MiB.
    #[must_use]
    pub fn new() -> Self {
        let numbers: Vec<_> = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self(Box::new(numbers))
    }

    /// Buckets that others know, too, such as a map of the fast path.
    ///
    /// # Errors
    ///
    /// If the storage is too small.
    pub fn shared(
        storage: impl AsRef<[AtomicU64]> + Send + Sync + 'static,
    ) -> Result<Self, TooFew> {
        if storage.as_ref().len() < BUCKETS as usize {
            return Err(TooFew);
        }
        Ok(Self(Box::new(storage)))
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
