//! Evidence of a firewall on this host: packets that the XDP program saw on their way to the daemon, and
//! that never came out of the socket or the tunnel.

use std::time::Duration;

use teredo_common::time::Instant;

/// The number of packets in a row whose loss is no accident.
const ENOUGH: u64 = 3;
/// The time that a packet may take from the program to the daemon.
const DELAY: Duration = Duration::from_secs(2);
/// Evidence without a successor is forgotten after this time.
const LIFETIME: Duration = Duration::from_secs(120);

/// Counts of the packets of one way, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Packets that the program passed towards the daemon; more than those since the start if the daemon
    /// adopted the maps of one before it.
    pub passed: u64,
    /// Packets of any kind that the daemon received that way.
    pub received: u64,
}

/// The evidence of one way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The counts when the daemon received the last packet, or before that; none before the first counts.
    last: Option<Passage>,
    /// The time since when packets are missing.
    since: Option<Instant>,
    /// The time of the last packet that is missing.
    latest: Instant,
    seen: u64,
}

impl Evidence {
    /// Adds counts, and returns whether packets are dropped on the way. To be called about once a second.
    pub fn observe(&mut self, now: Instant, passage: Passage) -> bool {
        let last = match self.last {
            Some(last) if passage.received == last.received && passage.passed >= last.passed => {
                last
            }
            _ => {
                *self = Self {
                    last: Some(passage),
                    seen: passage.passed,
                    ..Self::default()
                };
                return false;
            }
        };
        if passage.passed > self.seen {
            self.seen = passage.passed;
            self.latest = now;
            self.since.get_or_insert(now);
        }
        let Some(since) = self.since else {
            return false;
        };
        if now.saturating_since(self.latest) > LIFETIME {
            self.last = Some(passage);
            self.since = None;
            return false;
        }
        passage.passed - last.passed >= ENOUGH && now.saturating_since(since) >= DELAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1_000 + seconds)
    }

    const fn passage(passed: u64, received: u64) -> Passage {
        Passage { passed, received }
    }

    #[test]
    fn packets_that_never_come_out_are_evidence() {
        let mut evidence = Evidence::default();
        assert!(!evidence.observe(at(0), passage(10, 50)));
        // One may be lost, and they need time.
        assert!(!evidence.observe(at(1), passage(11, 50)));
        assert!(!evidence.observe(at(2), passage(13, 50)));
        assert!(evidence.observe(at(3), passage(13, 50)));
        assert!(evidence.observe(at(60), passage(13, 50)));
        // One that comes through disproves it.
        assert!(!evidence.observe(at(61), passage(14, 51)));
        assert!(!evidence.observe(at(70), passage(15, 51)));
        assert!(!evidence.observe(at(80), passage(15, 51)));
    }

    #[test]
    fn old_evidence_is_forgotten() {
        let mut evidence = Evidence::default();
        evidence.observe(at(0), passage(0, 7));
        evidence.observe(at(1), passage(5, 7));
        assert!(evidence.observe(at(4), passage(5, 7)));
        assert!(!evidence.observe(at(200), passage(5, 7)));
        assert!(!evidence.observe(at(201), passage(6, 7)));
        assert!(!evidence.observe(at(204), passage(6, 7)));
        assert!(evidence.observe(at(205), passage(8, 7)));
    }

    #[test]
    fn counters_of_an_earlier_process_are_no_evidence() {
        let mut evidence = Evidence::default();
        assert!(!evidence.observe(at(0), passage(1_000, 0)));
        assert!(!evidence.observe(at(5), passage(1_000, 0)));
        assert!(!evidence.observe(at(6), passage(1_002, 0)));
        assert!(!evidence.observe(at(9), passage(1_002, 0)));
        assert!(evidence.observe(at(10), passage(1_003, 0)));
    }

    #[test]
    fn counters_that_begin_anew_are_no_evidence() {
        let mut evidence = Evidence::default();
        evidence.observe(at(0), passage(100, 7));
        assert!(!evidence.observe(at(5), passage(3, 7)));
        assert!(!evidence.observe(at(10), passage(3, 7)));
    }
}
