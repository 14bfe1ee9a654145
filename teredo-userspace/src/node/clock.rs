//! The clock that the relay is told the time from.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use teredo_common::time::Instant;

/// Longer than any deadline.
pub const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time on `CLOCK_MONOTONIC`, which is the fast path's too.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("Linux has a monotonic clock")
        .into();
    Instant::ZERO + time
}
