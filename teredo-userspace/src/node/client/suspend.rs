//! Detection of suspensions of the host.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The shortest suspension that matters to a NAT.
const NOTICEABLE: Duration = Duration::from_secs(5);

/// The time that the host has been suspended since boot: the difference between the clock that
/// continues during suspension and the one that stops.
#[derive(Debug)]
pub struct SuspendClock(Duration);

impl SuspendClock {
    pub fn new() -> Self {
        Self(suspended())
    }

    /// Returns whether the host was suspended since the last call.
    pub fn was_suspended(&mut self) -> bool {
        self.update(suspended())
    }

    fn update(&mut self, suspended: Duration) -> bool {
        let before = std::mem::replace(&mut self.0, suspended);
        suspended.saturating_sub(before) >= NOTICEABLE
    }
}

fn suspended() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock).expect("Linux has both clocks");
        Duration::from(time)
    };
    // Read in this order, so that the time between both reads never adds to the difference.
    let with = read(ClockId::CLOCK_BOOTTIME);
    with.saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c46_a_suspension_is_noticed_once() {
        let mut clock = SuspendClock(Duration::from_secs(7));
        let mut was_suspended = |suspended: u64| clock.update(Duration::from_millis(suspended));
        assert!(!was_suspended(7_000));
        assert!(!was_suspended(7_001));
        assert!(was_suspended(12_001));
        assert!(!was_suspended(12_001));
        // Nothing but a suspension moves one of the clocks.
        assert!(!SuspendClock::new().was_suspended());
    }
}
