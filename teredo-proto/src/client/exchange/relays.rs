//! The relays that exchanged packets with the client lately: a packet from one of them is a reason
//! to test a host, others are not (C-41).

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

/// Maximum number of relays.
const MAX: usize = 64;
/// The time for which a relay is remembered.
const MEMORY: Duration = Duration::from_secs(30);

/// Relays whose bubbles were answered, or that proved to serve a host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Relays(VecDeque<(Endpoint, Instant)>);

impl Relays {
    /// Records a relay; if there are too many, the one of longest silence is forgotten.
    pub fn note(&mut self, relay: Endpoint, now: Instant) {
        match self.0.iter().position(|&(known, _)| known == relay) {
            Some(position) => drop(self.0.remove(position)),
            None if self.0.len() >= MAX => drop(self.0.pop_front()),
            None => (),
        }
        self.0.push_back((relay, now));
    }

    /// Whether a relay was noted lately.
    pub fn knows(&self, relay: Endpoint, now: Instant) -> bool {
        let mut relays = self.0.iter();
        relays.any(|&(known, at)| known == relay && now.saturating_since(at) < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c41_relays_are_forgotten_after_thirty_seconds_and_bounded() {
        let start = Instant::from_nanos(1_000_000_000_000);
        let relay = |port| Endpoint::new([5, 6, 7, 8].into(), port);
        let mut relays = Relays::default();
        relays.note(relay(1), start);
        assert!(relays.knows(relay(1), start + MEMORY - Duration::from_nanos(1)));
        assert!(!relays.knows(relay(1), start + MEMORY));
        assert!(!relays.knows(relay(2), start));
        for port in 2..=200 {
            relays.note(relay(1), start);
            relays.note(relay(port), start);
            assert!(relays.0.len() <= MAX);
        }
        assert!(
            relays.knows(relay(1), start),
            "the most recently noted stay"
        );
        assert!(!relays.knows(relay(2), start));
    }
}
