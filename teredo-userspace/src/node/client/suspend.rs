//! Noticing that the host was suspended.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Less than this is no suspension that a NAT would notice.
const NOTICEABLE: Duration = Duration::from_secs(5);

/// How far the clock that goes on while the host is suspended is ahead of the one that does not.
#[derive(Debug)]
pub struct SuspendClock(Duration);

impl SuspendClock {
    pub fn new() -> Self {
        Self(ahead())
    }

    /// Whether the host was suspended since the last time that this was asked.
    pub fn was_suspended(&mut self) -> bool {
        self.follow(ahead())
    }

    fn follow(&mut self, ahead: Duration) -> bool {
        let before = std::mem::replace(&mut self.0, ahead);
        ahead.saturating_sub(before) >= NOTICEABLE
    }
}

fn ahead() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock).expect("Linux has both clocks");
        Duration::from(time)
    };
    // In this order the difference is never too large by the time between both.
    let with = read(ClockId::CLOCK_BOOTTIME);
    with.saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c46_a_suspension_is_noticed_once() {
        let mut clock = SuspendClock(Duration::from_secs(7));
        let mut was_suspended = |ahead: u64| clock.follow(Duration::from_millis(ahead));
        assert!(!was_suspended(7_000));
        assert!(!was_suspended(7_001));
        assert!(was_suspended(12_001));
        assert!(!was_suspended(12_001));
        // Nothing but a suspension moves one of the clocks.
        assert!(!SuspendClock::new().was_suspended());
    }
}
