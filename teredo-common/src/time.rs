//! One monotonic clock for the protocol, the XDP stamps and the tests' virtual time.

use core::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

use bytemuck::{Pod, Zeroable};

/// A moment on `CLOCK_MONOTONIC`, in nanoseconds since an arbitrary start.
///
/// The kernel's `bpf_ktime_get_coarse_ns` and the daemon's `clock_gettime` read the same clock, so
/// the two may be compared. All arithmetic saturates.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Instant(u64);

impl Instant {
    /// The earliest moment: older than any stamp.
    pub const ZERO: Self = Self(0);

    /// The moment `nanoseconds` after the clock's start.
    #[inline(always)]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock's start.
    #[inline(always)]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`; zero if that lies in the future.
    #[inline(always)]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    #[inline]
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }
}

/// Without the 128-bit arithmetic of `Duration::as_nanos`.
#[inline]
const fn nanoseconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let now = Instant::from_nanos(5_000_000_000);
        assert_eq!(
            now + Duration::from_millis(1),
            Instant::from_nanos(5_001_000_000)
        );
        assert_eq!(now - Duration::from_secs(6), Instant::ZERO);
        assert_eq!(now + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(
            now.saturating_since(now + Duration::from_secs(1)),
            Duration::ZERO
        );
        assert_eq!(now.saturating_since(Instant::ZERO), Duration::from_secs(5));
    }
}
