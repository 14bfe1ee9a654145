//! Detection of suspensions of the host.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::clock::NEVER;

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

    /// Returns for how long the host was suspended since the last call, if that matters.
    pub fn suspension(&mut self) -> Option<Duration> {
        self.update(suspended())
    }

    fn update(&mut self, suspended: Duration) -> Option<Duration> {
        let before = std::mem::replace(&mut self.0, suspended);
        let duration = suspended.saturating_sub(before);
        (duration >= NOTICEABLE).then_some(duration)
    }
}

fn suspended() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock).expect("Linux has both clocks");
        Duration::from(time)
    };
    // Read in this order, so that the time between both reads never adds to the difference.
    let with = read(ClockId::CLOCK_BOOTTIME);
    // A time namespace may set either clock ahead of the other.
    (with + NEVER).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c46_a_suspension_is_noticed_once() {
        let mut clock = SuspendClock(Duration::from_secs(7));
        let mut suspension = |suspended: u64| clock.update(Duration::from_millis(suspended));
        assert_eq!(suspension(7_000), None);
        assert_eq!(suspension(7_001), None);
        assert_eq!(suspension(12_001), Some(Duration::from_secs(5)));
        assert_eq!(suspension(12_001), None);
        // Nothing but a suspension moves one of the clocks.
        assert_eq!(SuspendClock::new().suspension(), None);
    }
}
