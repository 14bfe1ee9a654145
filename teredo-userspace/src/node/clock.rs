//! The clock of the protocol.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use teredo_common::time::Instant;

/// Longer than any deadline.
pub const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Returns the time on `CLOCK_MONOTONIC`, which the fast path uses, too.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("Linux has a monotonic clock")
        .into();
    Instant::ZERO + time
}
