//! Every number that a running daemon tells, in one place: `teredo status`, the API and Prometheus
//! all show a [`Snapshot`].

mod prometheus;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use teredo_common::{
    maps,
    verdict::{Action, Direction, Verdict},
    wire::{ENCAPSULATION, ETHERNET_HEADER},
};

pub use prometheus::{CONTENT_TYPE, render};

/// Which of the two paths handled a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The XDP program.
    Xdp,
    /// The daemon.
    Userspace,
}

impl Path {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xdp, Self::Userspace];

    /// The name in statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Userspace => "userspace",
        }
    }
}

/// Both directions.
pub const DIRECTIONS: [Direction; 2] = [Direction::Encap, Direction::Decap];

/// The name of a direction in statistics.
#[must_use]
pub const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Encap => "encap",
        Direction::Decap => "decap",
    }
}

/// Forwarded packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of packets.
    pub packets: u64,
    /// Octets of IPv6 packet, without anything around it.
    pub bytes: u64,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's generic hook.
    Generic,
    /// Not at all.
    Off,
}

impl Mode {
    /// The name in statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// The XDP program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// How the program is attached.
    pub mode: Mode,
    /// Why it is not attached in a better way; empty when there is none.
    pub reason: String,
}

/// Where every number stood at one moment. Counters start with the daemon (the fast path's: with
/// its maps, which survive a crash) and never fall.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Name of the instance.
    pub name: String,
    /// Since the daemon started.
    pub uptime: Duration,
    /// Where and how the fast path is attached.
    pub xdp: Vec<Attachment>,
    /// Forwarded packets, by direction and path.
    pub traffic: BTreeMap<(&'static str, Path), Traffic>,
    /// Packets that were dropped, by path and reason.
    pub dropped: BTreeMap<(Path, &'static str), u64>,
    /// Frames that the fast path left to the kernel or the daemon as they were, by reason.
    pub passed: BTreeMap<&'static str, u64>,
    /// Bubbles sent; one for each datagram.
    pub bubbles_sent: u64,
    /// Bubbles received.
    pub bubbles_received: u64,
    /// Peers that are known to be where their mapping says.
    pub peers_trusted: u64,
    /// Peers of which proof is awaited.
    pub peers_untrusted: u64,
}

impl Snapshot {
    /// Forwarded packets of a direction on a path.
    #[must_use]
    pub fn traffic(&self, direction: Direction, path: Path) -> Traffic {
        let key = (direction_name(direction), path);
        self.traffic.get(&key).copied().unwrap_or_default()
    }

    /// Adds forwarded packets; `bytes` are octets of IPv6 packet.
    pub fn add_traffic(&mut self, direction: Direction, path: Path, packets: u64, bytes: u64) {
        let traffic = self
            .traffic
            .entry((direction_name(direction), path))
            .or_default();
        traffic.packets += packets;
        traffic.bytes += bytes;
    }

    /// Adds packets that the daemon dropped.
    pub fn add_dropped(&mut self, reason: &'static str, packets: u64) {
        *self.dropped.entry((Path::Userspace, reason)).or_default() += packets;
    }

    /// Adds what the fast path has counted, summed over the CPUs.
    pub fn add_verdicts(&mut self, counters: &[(Verdict, maps::Counter)]) {
        for &(verdict, counter) in counters {
            match (verdict.action(), verdict.direction()) {
                (Action::Forward, Some(direction)) => self.add_traffic(
                    direction,
                    Path::Xdp,
                    counter.packets,
                    ipv6_octets(direction, counter),
                ),
                (Action::Drop, _) => {
                    let dropped = self.dropped.entry((Path::Xdp, verdict.reason()));
                    *dropped.or_default() += counter.packets;
                }
                (Action::Pass | Action::Forward, _) => {
                    *self.passed.entry(verdict.reason()).or_default() += counter.packets;
                }
            }
        }
    }
}

/// The program counts frames as they arrive: takes off what is around the IPv6 packets.
fn ipv6_octets(direction: Direction, counter: maps::Counter) -> u64 {
    let around = match direction {
        Direction::Encap => ETHERNET_HEADER,
        Direction::Decap => ETHERNET_HEADER + ENCAPSULATION,
    };
    let around = (around as u64).saturating_mul(counter.packets);
    counter.bytes.saturating_sub(around)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_go_where_their_action_says() {
        let mut snapshot = Snapshot::default();
        let counters: Vec<_> = Verdict::ALL
            .iter()
            .map(|&verdict| {
                (
                    verdict,
                    maps::Counter {
                        packets: 10,
                        bytes: 10_000,
                    },
                )
            })
            .collect();
        snapshot.add_verdicts(&counters);
        for (direction, bytes) in [
            (Direction::Encap, 10_000 - 140),
            (Direction::Decap, 10_000 - 420),
        ] {
            let expected = Traffic { packets: 10, bytes };
            assert_eq!(snapshot.traffic(direction, Path::Xdp), expected);
            assert_eq!(
                snapshot.traffic(direction, Path::Userspace),
                Traffic::default()
            );
        }
        assert_eq!(
            snapshot.traffic.len() + snapshot.dropped.len() + snapshot.passed.len(),
            Verdict::ALL.len()
        );
        assert_eq!(snapshot.dropped[&(Path::Xdp, "decap-own-source")], 10);
        assert_eq!(snapshot.passed["encap-unknown-peer"], 10);
    }

    #[test]
    fn counts_add_up() {
        let mut snapshot = Snapshot::default();
        for _ in 0..2 {
            snapshot.add_traffic(Direction::Encap, Path::Userspace, 1, 1280);
            snapshot.add_dropped("source", 3);
        }
        let traffic = snapshot.traffic(Direction::Encap, Path::Userspace);
        assert_eq!((traffic.packets, traffic.bytes), (2, 2560));
        assert_eq!(snapshot.dropped[&(Path::Userspace, "source")], 6);
    }
}
