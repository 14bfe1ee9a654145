//! A rate of packets.

use std::time::{Duration, Instant};

/// Tells how many packets are due.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    due: f64,
    last: Instant,
}

impl Pace {
    /// The most seconds that are made up for after a delay.
    const MOST: Duration = Duration::from_millis(100);

    /// Starts a pace of this number of packets in each second.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        Self {
            per_second,
            due: 0.0,
            last: Instant::now(),
        }
    }

    /// Returns how many packets are due since the last call.
    pub fn due(&mut self) -> u32 {
        let now = Instant::now();
        let passed = (now - self.last).min(Self::MOST);
        self.last = now;
        self.due += passed.as_secs_f64() * self.per_second;
        let whole = self.due.floor();
        self.due -= whole;
        whole as u32
    }
}
