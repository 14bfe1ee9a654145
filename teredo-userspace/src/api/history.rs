//! `GET /v1/history`: the last hour, in memory.
//!
//! The API takes a snapshot of the statistics every [`INTERVAL`] and keeps the differences, each in a
//! record of constant size. With all [`INTERVALS`] of them the history takes less than 128 KiB.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval_at, timeout};

use super::{
    handle::Handle,
    types::{Bubbles, Directions, Paths, PeerCounts},
};
use crate::metrics::{DIRECTIONS, NOISE, Path, Snapshot, direction_name};

/// The time between two snapshots.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// The intervals that are kept.
pub const INTERVALS: usize = 360;
/// The time that they cover.
pub const SPAN: Duration = Duration::from_secs(INTERVAL.as_secs() * INTERVALS as u64);
/// The reasons of drops that each interval tells apart: those with most packets.
pub const REASONS: usize = 6;

/// The memory that all intervals may take, in octets.
const MEMORY: usize = 128 * 1024;
const _: () = assert!(INTERVALS * size_of::<Interval>() <= MEMORY);

/// One interval.
#[derive(Clone, Copy, Debug)]
struct Interval {
    end: Instant,
    length: Duration,
    packets: Directions,
    bytes: Directions,
    requests: Paths,
    bubbles: Bubbles,
    peers: PeerCounts,
    bindings: u64,
    dropped: u64,
    /// The reasons with most packets, in descending order; places without packets are free.
    reasons: [(&'static str, u64); REASONS],
}

/// The counters of a snapshot.
#[derive(Clone, Debug)]
struct Counters {
    time: Instant,
    packets: Directions,
    bytes: Directions,
    requests: Paths,
    bubbles: Bubbles,
    dropped: BTreeMap<&'static str, u64>,
}

impl Counters {
    fn of(time: Instant, snapshot: &Snapshot) -> Self {
        let mut dropped = BTreeMap::new();
        for (&(_, _, reason), packets) in &snapshot.dropped {
            // Each host sends such packets all the time; they are no loss.
            if reason != NOISE {
                *dropped.entry(reason).or_default() += packets;
            }
        }
        let mut requests = Paths::default();
        for (&(_, path), packets) in &snapshot.requests {
            match path {
                Path::Xdp => requests.xdp += packets,
                Path::Userspace => requests.userspace += packets,
            }
        }
        Self {
            time,
            packets: directions(snapshot, |traffic| traffic.packets),
            bytes: directions(snapshot, |traffic| traffic.bytes),
            requests,
            bubbles: Bubbles {
                sent: snapshot.bubbles_sent(),
                received: snapshot.bubbles_received(),
            },
            dropped,
        }
    }
}

fn directions(snapshot: &Snapshot, of: fn(crate::metrics::Traffic) -> u64) -> Directions {
    let [encap, decap] = DIRECTIONS.map(|direction| {
        let traffic = |path| {
            let key = (direction_name(direction), path);
            snapshot.traffic.get(&key).copied().unwrap_or_default()
        };
        Paths {
            xdp: of(traffic(Path::Xdp)),
            userspace: of(traffic(Path::Userspace)),
        }
    });
    Directions { encap, decap }
}

/// The last intervals, oldest first.
#[derive(Debug, Default)]
pub struct History {
    last: Option<Counters>,
    intervals: VecDeque<Interval>,
}

impl History {
    /// Adds the time since the snapshot before. The first one begins the history.
    pub fn record(&mut self, now: Instant, snapshot: &Snapshot) {
        let counters = Counters::of(now, snapshot);
        if let Some(last) = &self.last {
            if self.intervals.len() == INTERVALS {
                self.intervals.pop_front();
            }
            self.intervals
                .push_back(interval(last, &counters, snapshot));
        }
        self.last = Some(counters);
    }

    /// Describes the intervals of the last hour.
    #[must_use]
    pub fn describe(&self, now: Instant) -> Hour {
        let intervals = self.intervals.iter().map(|interval| Past {
            age_seconds: now.saturating_duration_since(interval.end).as_secs_f64(),
            seconds: interval.length.as_secs_f64(),
            packets: interval.packets,
            bytes: interval.bytes,
            requests: interval.requests,
            bubbles: interval.bubbles,
            peers: interval.peers,
            bindings: interval.bindings,
            dropped: Dropped {
                total: interval.dropped,
                reasons: interval
                    .reasons
                    .iter()
                    .filter(|(_, packets)| *packets > 0)
                    .map(|&(reason, packets)| (reason.to_owned(), packets))
                    .collect(),
            },
        });
        Hour {
            interval_seconds: INTERVAL.as_secs(),
            span_seconds: SPAN.as_secs(),
            intervals: intervals
                .filter(|past| past.age_seconds < SPAN.as_secs_f64())
                .collect(),
        }
    }
}

/// Returns the interval between two snapshots, the second of which is also given as a whole.
fn interval(before: &Counters, after: &Counters, snapshot: &Snapshot) -> Interval {
    let mut dropped: Vec<_> = after
        .dropped
        .iter()
        .map(|(&reason, packets)| {
            let earlier = before.dropped.get(reason).copied().unwrap_or_default();
            (reason, packets.saturating_sub(earlier))
        })
        .collect();
    // Of equals those that come first in the alphabet.
    dropped.sort_by_key(|&(_, packets)| std::cmp::Reverse(packets));
    let mut reasons = [("", 0); REASONS];
    for (place, reason) in reasons.iter_mut().zip(&dropped) {
        *place = *reason;
    }
    Interval {
        end: after.time,
        length: after.time.saturating_duration_since(before.time),
        packets: difference(before.packets, after.packets),
        bytes: difference(before.bytes, after.bytes),
        requests: paths(before.requests, after.requests),
        bubbles: Bubbles {
            sent: after.bubbles.sent.saturating_sub(before.bubbles.sent),
            received: (after.bubbles.received).saturating_sub(before.bubbles.received),
        },
        peers: PeerCounts {
            trusted: snapshot.peers_trusted,
            untrusted: snapshot.peers_untrusted,
            proved: snapshot.peers_proved,
            maximum: snapshot.peers_max,
        },
        bindings: snapshot.bindings,
        dropped: dropped.iter().map(|(_, packets)| packets).sum(),
        reasons,
    }
}

fn difference(before: Directions, after: Directions) -> Directions {
    Directions {
        encap: paths(before.encap, after.encap),
        decap: paths(before.decap, after.decap),
    }
}

/// Returns what was counted in between; a role that began anew counts from zero.
fn paths(before: Paths, after: Paths) -> Paths {
    Paths {
        xdp: after.xdp.saturating_sub(before.xdp),
        userspace: after.userspace.saturating_sub(before.userspace),
    }
}

/// A history that the API's listening sockets share.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    /// Takes a snapshot in each interval, as long as there is a node.
    pub async fn run(self, handle: Handle) {
        let start = tokio::time::Instant::now() + INTERVAL;
        let mut ticks = interval_at(start, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A node that hangs leaves a longer interval behind.
            let Ok(answer) = timeout(INTERVAL, handle.snapshot()).await else {
                continue;
            };
            let Ok(snapshot) = answer else { return };
            let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            history.record(Instant::now(), &snapshot);
        }
    }

    /// Describes the last hour.
    #[must_use]
    pub fn describe(&self) -> Hour {
        let history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        history.describe(Instant::now())
    }
}

/// `GET /v1/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hour {
    /// The usual length of an interval.
    pub interval_seconds: u64,
    /// The most time that the intervals cover.
    pub span_seconds: u64,
    /// The intervals, oldest first.
    pub intervals: Vec<Past>,
}

/// One element of [`Hour::intervals`]. All numbers count within the interval, except where another time
/// is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Past {
    /// Seconds since its end.
    pub age_seconds: f64,
    /// Its length.
    pub seconds: f64,
    /// Forwarded packets.
    pub packets: Directions,
    /// Octets of forwarded IPv6 packets.
    pub bytes: Directions,
    /// Packets that the server handled.
    pub requests: Paths,
    /// Bubbles.
    pub bubbles: Bubbles,
    /// Numbers of peers at its end.
    pub peers: PeerCounts,
    /// Clients of the tunnel service at its end.
    pub bindings: u64,
    /// Dropped packets.
    pub dropped: Dropped,
}

/// Packets dropped in an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// For all reasons, other than multicast of the host itself.
    pub total: u64,
    /// By reason; at most [`REASONS`] of them, those with most packets.
    pub reasons: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use teredo_common::verdict::Direction;

    use super::*;
    use crate::metrics::Role;

    fn record(history: &mut History, snapshot: &Snapshot, number: usize, start: Instant) {
        history.record(start + INTERVAL * number as u32, snapshot);
    }

    #[test]
    fn intervals_have_what_was_counted_in_them() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut snapshot = Snapshot::default();
        snapshot.add_traffic(Direction::Encap, Path::Xdp, 1_000, 64_000);
        snapshot.add_dropped(Role::Relay, "source", 50);
        record(&mut history, &snapshot, 0, start);
        assert!(history.describe(start).intervals.is_empty());
        snapshot.add_traffic(Direction::Encap, Path::Xdp, 20, 1_200);
        snapshot.add_traffic(Direction::Decap, Path::Userspace, 3, 180);
        snapshot.add_dropped(Role::Relay, "source", 5);
        snapshot.add_dropped(Role::Server, "source", 2);
        snapshot.add_dropped(Role::Relay, NOISE, 1_000);
        snapshot.peers_trusted = 4;
        record(&mut history, &snapshot, 1, start);
        let hour = history.describe(start + INTERVAL * 3);
        let [past] = &*hour.intervals else {
            panic!("{hour:?}")
        };
        assert_eq!((past.age_seconds, past.seconds), (20.0, 10.0));
        assert_eq!((past.packets.encap.xdp, past.bytes.encap.xdp), (20, 1_200));
        assert_eq!(past.packets.decap.userspace, 3);
        assert_eq!(past.peers.trusted, 4);
        assert_eq!(past.dropped.total, 7);
        assert_eq!(
            past.dropped.reasons,
            BTreeMap::from([("source".to_owned(), 7)])
        );
    }

    #[test]
    fn a_role_that_begins_anew_counts_from_zero() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut snapshot = Snapshot::default();
        snapshot.add_traffic(Direction::Encap, Path::Xdp, 1_000, 64_000);
        record(&mut history, &snapshot, 0, start);
        record(&mut history, &Snapshot::default(), 1, start);
        let hour = history.describe(start + INTERVAL);
        assert_eq!(hour.intervals[0].packets, Directions::default());
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let (mut history, start) = (History::default(), Instant::now());
        let snapshot = Snapshot::default();
        for number in 0..=2 * INTERVALS {
            record(&mut history, &snapshot, number, start);
        }
        let now = start + INTERVAL * 2 * INTERVALS as u32;
        let hour = history.describe(now);
        assert_eq!(hour.intervals.len(), INTERVALS);
        assert_eq!(
            hour.intervals[0].age_seconds,
            (SPAN - INTERVAL).as_secs_f64()
        );
        // The host was asleep.
        assert_eq!(history.describe(now + SPAN).intervals, []);
    }

    #[test]
    fn the_reasons_with_most_packets_are_told_apart() {
        const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let (mut history, start) = (History::default(), Instant::now());
        let mut snapshot = Snapshot::default();
        record(&mut history, &snapshot, 0, start);
        for (packets, name) in NAMES.into_iter().enumerate() {
            snapshot.add_dropped(Role::Relay, name, packets as u64);
        }
        record(&mut history, &snapshot, 1, start);
        let hour = history.describe(start + INTERVAL);
        let dropped = &hour.intervals[0].dropped;
        assert_eq!(dropped.total, 45);
        let names: Vec<_> = dropped.reasons.keys().collect();
        assert_eq!(names, ["e", "f", "g", "h", "i", "j"]);
    }
}
