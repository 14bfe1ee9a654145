//! Rates: the differences between two answers.

use std::collections::BTreeMap;

use crate::api::types::{Directions, Paths, Status};

/// The reason of drops that are no defect: the kernel's own packets.
pub const NOISE: &str = "encap-multicast";
/// A shorter time gives no meaningful rate.
const SHORTEST: f64 = 0.05;

/// The rates of a daemon, each in one second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flows {
    /// Forwarded packets.
    pub packets: Rates,
    /// Octets of forwarded packets.
    pub bytes: Rates,
    /// Bubbles sent and received.
    pub bubbles: (f64, f64),
    /// Dropped packets, by reason.
    pub dropped: BTreeMap<String, f64>,
    /// Frames passed by the fast path, by reason.
    pub passed: BTreeMap<String, f64>,
    /// Requests to the server, by kind and result.
    pub requests: BTreeMap<(String, String), f64>,
}

/// The rates of a group of counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// To Teredo clients: in the fast path, and in the daemon.
    pub encap: [f64; 2],
    /// From them.
    pub decap: [f64; 2],
}

impl Rates {
    /// The sum for a direction.
    pub fn totals(&self) -> [f64; 2] {
        [self.encap.iter().sum(), self.decap.iter().sum()]
    }

    fn between(before: &Directions, after: &Directions, seconds: f64) -> Self {
        let rates = |before: Paths, after: Paths| {
            [
                rate(before.xdp, after.xdp, seconds),
                rate(before.userspace, after.userspace, seconds),
            ]
        };
        Self {
            encap: rates(before.encap, after.encap),
            decap: rates(before.decap, after.decap),
        }
    }
}

impl Flows {
    /// Returns the rates between two answers of one process, by the daemon's own clock; `None` if they
    /// are of different processes, or at the same time.
    pub fn between(before: &Status, after: &Status) -> Option<Self> {
        let seconds = after.uptime_seconds - before.uptime_seconds;
        if seconds < SHORTEST {
            return None;
        }
        let by_reason = |before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>| {
            let rates = after.iter().map(|(reason, &count)| {
                let before = before.get(reason).copied().unwrap_or_default();
                (reason.clone(), rate(before, count, seconds))
            });
            rates.collect()
        };
        Some(Self {
            packets: Rates::between(&before.packets, &after.packets, seconds),
            bytes: Rates::between(&before.bytes, &after.bytes, seconds),
            bubbles: (
                rate(before.bubbles.sent, after.bubbles.sent, seconds),
                rate(before.bubbles.received, after.bubbles.received, seconds),
            ),
            dropped: by_reason(&before.dropped, &after.dropped),
            passed: by_reason(&before.passed, &after.passed),
            requests: requests(before, after, seconds),
        })
    }

    /// Dropped packets, without the kernel's own.
    pub fn dropped(&self) -> f64 {
        let reasons = self.dropped.iter();
        let counted = reasons.filter(|(reason, _)| *reason != NOISE);
        counted.map(|(_, rate)| rate).sum()
    }
}

/// Whether the second answer is of a process that started after the first answer.
pub fn is_restarted(before: &Status, after: &Status) -> bool {
    after.uptime_seconds < before.uptime_seconds
}

fn requests(before: &Status, after: &Status, seconds: f64) -> BTreeMap<(String, String), f64> {
    let mut rates = BTreeMap::new();
    let Some(server) = &after.server else {
        return rates;
    };
    let count = |paths: Paths| paths.xdp.saturating_add(paths.userspace);
    for (kind, results) in &server.requests {
        for (result, &paths) in results {
            let earlier = before.server.as_ref();
            let earlier = earlier.and_then(|server| server.requests.get(kind)?.get(result));
            let earlier = earlier.copied().map(count).unwrap_or_default();
            let rate = rate(earlier, count(paths), seconds);
            rates.insert((kind.clone(), result.clone()), rate);
        }
    }
    rates
}

/// Returns the increase of a counter in a second. One that began anew has none.
fn rate(before: u64, after: u64, seconds: f64) -> f64 {
    after.saturating_sub(before) as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::{super::tests::status, *};

    #[test]
    fn rates_follow_the_daemons_clock() {
        let before = status(10.0);
        let mut after = status(12.0);
        after.packets.encap.xdp += 1_000;
        after.bytes.decap.userspace += 500;
        after.bubbles.sent += 3;
        after.dropped.insert("encap-too-big".to_owned(), 8);
        after.dropped.insert(NOISE.to_owned(), 80);
        let flows = Flows::between(&before, &after).unwrap();
        assert_eq!(flows.packets.encap, [500.0, 0.0]);
        assert_eq!(flows.bytes.decap, [0.0, 250.0]);
        assert_eq!(flows.bubbles, (1.5, 0.0));
        assert_eq!(flows.dropped(), 4.0);
    }

    #[test]
    fn another_process_has_no_rates_with_the_last() {
        let (before, after) = (status(10.0), status(1.0));
        assert_eq!(Flows::between(&before, &after), None);
        assert!(is_restarted(&before, &after));
        assert!(!is_restarted(&before, &before));
        assert_eq!(Flows::between(&before, &before), None);
    }
}
