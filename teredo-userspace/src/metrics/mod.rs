//! All statistics of a running daemon in one place: `teredo status`, the API and Prometheus show a
//! [`Snapshot`].

mod client;
mod conditions;
#[cfg(test)]
mod document;
mod fleet;
pub mod meaning;
mod process;
mod prometheus;
mod request;
mod role;
mod text;
mod turns;

use std::{collections::BTreeMap, fmt, net::SocketAddrV4, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use teredo_common::{
    maps,
    time::Instant,
    verdict::{Action, Direction, Verdict},
    wire::{ENCAPSULATION, ETHERNET_HEADER},
};
use teredo_proto::{Durations, Unreachable, relay::Statistics, server};

use crate::condition::Lasting;
pub use client::{ClientStatus, STATES};
pub use fleet::FleetStatus;
#[cfg(test)]
pub use fleet::well;
pub use prometheus::render;
pub use request::ServedRequest;
pub use role::{Role, RoleState};
pub use text::Format;
pub use turns::Turns;

/// Drop reason: the kernel did not accept a packet from the tunnel.
pub const DECAP_NOT_TAKEN: &str = "decap-not-taken";
/// Drop reason: the kernel did not accept a datagram into the tunnel.
pub const ENCAP_NOT_TAKEN: &str = "encap-not-taken";
/// Drop reason: datagrams from the tunnel arrived faster than the daemon received them.
pub const DECAP_OVERRUN: &str = "decap-overrun";
/// Drop reason: packets into the tunnel came faster than the daemon read them.
pub const ENCAP_OVERRUN: &str = "encap-overrun";
/// Drop reason: datagrams to the server arrived faster than the daemon received them.
pub const OVERRUN: &str = "overrun";
/// Drop reason: the kernel did not accept a datagram of the server.
pub const DATAGRAM_NOT_TAKEN: &str = "datagram-not-taken";
/// Drop reason: the kernel did not accept a connectivity test of the server.
pub const NATIVE_NOT_TAKEN: &str = "native-not-taken";
/// Drop reason: the kernel did not accept a packet of the server's tunnel service.
pub const TUNNEL_NOT_TAKEN: &str = "tunnel-not-taken";

/// Drop reason that is no defect: the kernel's own packets.
pub const NOISE: &str = "encap-multicast";

/// The path that handled a packet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The XDP program.
    Xdp,
    /// The daemon.
    Userspace,
}

impl Path {
    /// Both paths.
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

/// Both directions of forwarding.
pub const DIRECTIONS: [Direction; 2] = [Direction::Encap, Direction::Decap];

/// Returns the name of a direction in statistics.
#[must_use]
pub const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Encap => "encap",
        Direction::Decap => "decap",
        Direction::Respond => "respond",
    }
}

/// Forwarded packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of packets.
    pub packets: u64,
    /// Octets of the IPv6 packets, without encapsulation.
    pub bytes: u64,
}

/// Traffic per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rate {
    /// Packets per second.
    pub packets: f64,
    /// Octets of IPv6 packets per second, without encapsulation.
    pub bytes: f64,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// How the program is attached.
    pub mode: Mode,
    /// Why the program is not attached in a better mode; empty without a reason.
    pub reason: String,
    /// Frames that the program sent natively and that the driver dropped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A number that has a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The number.
    pub value: u64,
    /// The limit.
    pub limit: u64,
}

/// All statistics at one moment. Counters start at zero with the daemon (those of the fast path with
/// its maps, which survive a crash) and never decrease.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Name of the instance, `node.name`.
    pub name: String,
    /// Time since the daemon started.
    pub uptime: Duration,
    /// The time of the snapshot, on the clock of its conditions.
    pub time: Instant,
    /// The conditions that are true.
    pub conditions: Vec<Lasting>,
    /// The local endpoints of the roles that have sockets.
    pub endpoints: BTreeMap<Role, Vec<SocketAddrV4>>,
    /// The traffic of both paths per second, over the last seconds, by direction.
    pub rates: BTreeMap<&'static str, Rate>,
    /// The times for which packets waited for other work of the daemon, or for packets before them.
    pub turns: Turns,
    /// The most peers of the relay or the client; 0 if neither runs.
    pub peers_max: u64,
    /// The most of them whose mapping is not confirmed yet.
    pub untrusted_max: u64,
    /// The configured roles.
    pub roles: BTreeMap<Role, RoleState>,
    /// How the fast path is attached to each interface.
    pub xdp: Vec<Attachment>,
    /// How often the fast path had no room for a peer, whose packets then went through the daemon.
    pub xdp_refused: u64,
    /// The peers in the map of the fast path, if it forwards for the relay.
    pub xdp_peers: Option<Level>,
    /// The records that wait for the collector of the peers' traffic, if there is one.
    pub ipfix_waiting: Option<Level>,
    /// Frames that the fast path sent natively and that a driver dropped, by interface.
    pub xdp_dropped: BTreeMap<String, u64>,
    /// Packets that the relay forwarded, or the client sent and received, by direction and path.
    /// Relay and client never run in one daemon.
    pub traffic: BTreeMap<(&'static str, Path), Traffic>,
    /// Dropped packets, by role, path and reason.
    pub dropped: BTreeMap<(Role, Path, &'static str), u64>,
    /// Frames that the fast path passed unchanged to the kernel or the daemon, by reason.
    pub passed: BTreeMap<&'static str, u64>,
    /// Bubbles by kind and outcome, one for each datagram.
    pub bubbles: BTreeMap<&'static str, u64>,
    /// The relay's questions for the proof of a peer's mapping, by kind and outcome.
    pub questions: BTreeMap<&'static str, u64>,
    /// The client's connectivity tests by outcome.
    pub tests: BTreeMap<&'static str, u64>,
    /// ICMPv6 errors for destinations that do not answer, by role and outcome.
    pub unreachable: BTreeMap<(Role, &'static str), u64>,
    /// Packets that the server handled, by request and path.
    pub requests: BTreeMap<(ServedRequest, Path), u64>,
    /// Clients that the tunnel service has bindings for.
    pub bindings: u64,
    /// The clients that it can have bindings for: those with a prefix of their own.
    pub bindings_max: u64,
    /// The status of the client, if one runs.
    pub client: Option<ClientStatus>,
    /// Rare events that were lost from the log because too many came at once.
    pub events_lost: u64,
    /// Peers whose mapping is confirmed.
    pub peers_trusted: u64,
    /// Peers of the relay whose mapping is proved: the fast path may serve them.
    pub peers_proved: u64,
    /// Peers whose mapping is not confirmed yet.
    pub peers_untrusted: u64,
    /// Packets that wait for an answer of their peer.
    pub queue_packets: u64,
    /// Octets that they occupy, including the overhead of the queue.
    pub queue_bytes: u64,
    /// The most of those octets.
    pub queue_bytes_max: u64,
    /// Times for which packets waited until their peer answered.
    pub waits: Durations,
    /// The same of the first packet to each peer that answered.
    pub first_waits: Durations,
    /// Times between a bubble and its answer.
    pub round_trips: Durations,
    /// Times from a client's first solicitation without an address to the address.
    pub qualifications: Durations,
    /// The relay's part in a fleet.
    pub fleet: Option<FleetStatus>,
}

impl Snapshot {
    /// Returns the forwarded packets of a direction on a path.
    #[must_use]
    pub fn traffic(&self, direction: Direction, path: Path) -> Traffic {
        let key = (direction_name(direction), path);
        self.traffic.get(&key).copied().unwrap_or_default()
    }

    /// Returns the forwarded packets of a direction on both paths.
    #[must_use]
    pub fn total(&self, direction: Direction) -> Traffic {
        let mut total = Traffic::default();
        for path in Path::ALL {
            let traffic = self.traffic(direction, path);
            total.packets += traffic.packets;
            total.bytes += traffic.bytes;
        }
        total
    }

    /// Adds forwarded packets; `bytes` counts octets of the IPv6 packets.
    pub fn add_traffic(&mut self, direction: Direction, path: Path, packets: u64, bytes: u64) {
        let traffic = self
            .traffic
            .entry((direction_name(direction), path))
            .or_default();
        traffic.packets += packets;
        traffic.bytes += bytes;
    }

    /// Adds packets that the daemon dropped.
    pub fn add_dropped(&mut self, role: Role, reason: &'static str, packets: u64) {
        let dropped = self.dropped.entry((role, Path::Userspace, reason));
        *dropped.or_default() += packets;
    }

    /// Returns the number of bubbles sent, of every kind.
    #[must_use]
    pub fn bubbles_sent(&self) -> u64 {
        self.bubbles_of("sent-")
    }

    /// Returns the number of bubbles received, of every kind.
    #[must_use]
    pub fn bubbles_received(&self) -> u64 {
        self.bubbles_of("received-")
    }

    /// Sums the kinds whose names begin with `start`.
    fn bubbles_of(&self, start: &str) -> u64 {
        let kinds = self.bubbles.iter();
        let kinds = kinds.filter(|(kind, _)| kind.starts_with(start));
        kinds.map(|(_, count)| count).sum()
    }

    /// Adds a running relay with its counters.
    pub fn add_relay(&mut self, state: RoleState, relay: &Statistics) {
        self.roles.insert(Role::Relay, state);
        for (direction, traffic) in [
            (Direction::Encap, relay.encapsulated),
            (Direction::Decap, relay.decapsulated),
        ] {
            self.add_traffic(direction, Path::Userspace, traffic.packets, traffic.octets);
        }
        for (reason, packets) in relay.dropped.iter() {
            self.add_dropped(Role::Relay, reason.reason(), packets);
        }
        for (kind, count) in relay.bubbles.iter() {
            *self.bubbles.entry(kind.reason()).or_default() += count;
        }
        for (outcome, count) in relay.unreachable.iter() {
            let total = self.unreachable.entry((Role::Relay, outcome.reason()));
            *total.or_default() += count;
        }
        for (kind, count) in relay.questions.iter() {
            *self.questions.entry(kind.reason()).or_default() += count;
        }
        self.peers_trusted += relay.trusted_peers as u64;
        self.peers_proved += relay.proved_peers as u64;
        self.peers_untrusted += relay.untrusted_peers as u64;
        self.queue_packets += relay.queue_packets as u64;
        self.queue_bytes += relay.queue_octets as u64;
        self.waits = relay.waits;
        self.first_waits = relay.first_waits;
        self.round_trips = relay.round_trips;
    }

    /// Adds a running server with its counters. `bindings` is the number of clients of its tunnel
    /// service.
    pub fn add_server(&mut self, state: RoleState, server: &server::Statistics, bindings: usize) {
        self.roles.insert(Role::Server, state);
        for (service, traffic) in server.served.iter() {
            let total = self.requests.entry((service.into(), Path::Userspace));
            *total.or_default() += traffic.packets;
        }
        for (reason, packets) in server.dropped.iter() {
            self.add_dropped(Role::Server, reason.reason(), packets);
        }
        let sent = self
            .unreachable
            .entry((Role::Server, Unreachable::Sent.reason()));
        *sent.or_default() += server.unreachable_sent;
        self.bindings += bindings as u64;
        self.events_lost += server.events_lost;
    }

    /// Adds the counters of the fast path, summed over the CPUs.
    pub fn add_verdicts(&mut self, counters: &[(Verdict, maps::Counter)]) {
        for &(verdict, counter) in counters {
            match (verdict.action(), verdict.direction()) {
                (Action::Forward, Some(Direction::Respond)) => {
                    if let Some(request) = ServedRequest::answered(verdict) {
                        let count = self.requests.entry((request, Path::Xdp));
                        *count.or_default() += counter.packets;
                    }
                }
                (Action::Forward, Some(direction)) => self.add_traffic(
                    direction,
                    Path::Xdp,
                    counter.packets,
                    ipv6_octets(direction, counter),
                ),
                (Action::Drop, direction) => {
                    let role = match direction {
                        Some(Direction::Respond) => Role::Server,
                        _ => Role::Relay,
                    };
                    let key = (role, Path::Xdp, verdict.reason());
                    let dropped = self.dropped.entry(key);
                    *dropped.or_default() += counter.packets;
                }
                (Action::Pass | Action::Forward, _) => {
                    *self.passed.entry(verdict.reason()).or_default() += counter.packets;
                }
            }
        }
    }
}

/// Returns the octets of the IPv6 packets. The program counts whole frames as they arrive.
fn ipv6_octets(direction: Direction, counter: maps::Counter) -> u64 {
    let around = match direction {
        Direction::Encap => ETHERNET_HEADER,
        // The authentication headers of solicitations are counted as part of the packet.
        Direction::Decap | Direction::Respond => ETHERNET_HEADER + ENCAPSULATION,
    };
    let around = (around as u64).saturating_mul(counter.packets);
    counter.bytes.saturating_sub(around)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use teredo_proto::{
        client::{self as client_protocol, Test},
        relay::{Bubble, DropReason, Question},
    };

    use super::*;

    #[test]
    fn verdicts_are_counted_by_their_action() {
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
            snapshot.traffic.len()
                + snapshot.requests.len()
                + snapshot.dropped.len()
                + snapshot.passed.len(),
            Verdict::ALL.len()
        );
        assert_eq!(
            snapshot.dropped[&(Role::Relay, Path::Xdp, "decap-own-source")],
            10
        );
        assert_eq!(snapshot.passed["encap-unknown-peer"], 10);
        for service in [
            server::Service::Advertised,
            server::Service::BubbleForwarded,
        ] {
            assert_eq!(snapshot.requests[&(service.into(), Path::Xdp)], 10);
        }
        let dropped = (Role::Server, Path::Xdp, "respond-own-source");
        assert_eq!(snapshot.dropped[&dropped], 10);
    }

    #[test]
    fn all_counters_of_the_relay_are_shown() {
        let mut snapshot = Snapshot::default();
        let mut relay = Statistics::default();
        relay.encapsulated.packets = 2;
        relay.encapsulated.octets = 200;
        relay.trusted_peers = 5;
        relay.queue_packets = 6;
        snapshot.add_relay(RoleState::default(), &relay);
        assert!(snapshot.roles.contains_key(&Role::Relay));
        let traffic = snapshot.traffic(Direction::Encap, Path::Userspace);
        assert_eq!((traffic.packets, traffic.bytes), (2, 200));
        assert_eq!((snapshot.peers_trusted, snapshot.queue_packets), (5, 6));
        assert_eq!(snapshot.dropped.len(), DropReason::ALL.len());
        assert_eq!(snapshot.bubbles.len(), Bubble::ALL.len());
        assert_eq!(snapshot.questions.len(), Question::ALL.len());
        assert_eq!(snapshot.unreachable.len(), Unreachable::ALL.len());
    }

    #[test]
    fn all_counters_of_the_server_are_shown() {
        let mut snapshot = Snapshot::default();
        let server = server::Statistics {
            unreachable_sent: 3,
            events_lost: 4,
            ..server::Statistics::default()
        };
        let state = RoleState {
            is_draining: true,
            sunset: None,
        };
        snapshot.add_server(state, &server, 5);
        assert_eq!(snapshot.roles[&Role::Server], state);
        assert_eq!(snapshot.requests.len(), server::Service::ALL.len());
        assert_eq!(snapshot.dropped.len(), server::DropReason::ALL.len());
        assert_eq!(snapshot.unreachable[&(Role::Server, "sent")], 3);
        assert_eq!((snapshot.events_lost, snapshot.bindings), (4, 5));
    }

    #[test]
    fn every_kind_of_bubble_that_travels_counts() {
        for (kinds, sent, received) in [
            (Bubble::ALL.iter().map(|kind| kind.reason()).collect(), 2, 2),
            (
                client_protocol::Bubble::ALL
                    .iter()
                    .map(|kind| kind.reason())
                    .collect::<Vec<_>>(),
                4,
                5,
            ),
        ] {
            let snapshot = Snapshot {
                bubbles: kinds.into_iter().map(|kind| (kind, 1)).collect(),
                ..Snapshot::default()
            };
            let found = (snapshot.bubbles_sent(), snapshot.bubbles_received());
            assert_eq!(found, (sent, received));
        }
    }

    /// The documentation, with a table for each of these headings.
    const DOCUMENTATION: &str = include_str!("../../../docs/statistics.md");

    fn documented(heading: &str) -> BTreeSet<&'static str> {
        let heading = &format!("{heading}\n");
        let start = DOCUMENTATION.find(heading).expect(heading) + heading.len();
        let section = &DOCUMENTATION[start..];
        let section = section.split("\n## ").next().unwrap_or_default();
        section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name)
            .collect()
    }

    fn verdicts(action: Action) -> BTreeSet<&'static str> {
        let verdicts = Verdict::ALL.iter();
        verdicts
            .filter(|verdict| verdict.action() == action)
            .map(|verdict| verdict.reason())
            .collect()
    }

    #[test]
    fn every_reason_is_documented_and_no_other() {
        let daemon = DropReason::ALL.iter().map(|reason| reason.reason());
        let host = [
            DECAP_NOT_TAKEN,
            ENCAP_NOT_TAKEN,
            DECAP_OVERRUN,
            ENCAP_OVERRUN,
        ];
        let server = server::DropReason::ALL.iter().map(|reason| reason.reason());
        let client = client_protocol::DropReason::ALL.iter();
        let client = client.map(|reason| reason.reason());
        let of_server = [
            OVERRUN,
            DATAGRAM_NOT_TAKEN,
            NATIVE_NOT_TAKEN,
            TUNNEL_NOT_TAKEN,
        ];
        for (heading, reasons) in [
            ("## Dropped by the relay", daemon.chain(host).collect()),
            (
                "## Dropped by the server",
                server.chain(of_server).collect(),
            ),
            ("## Dropped by the client", client.chain(host).collect()),
            (
                "## Bubbles of the client",
                client_protocol::Bubble::ALL
                    .iter()
                    .map(|kind| kind.reason())
                    .collect(),
            ),
            (
                "## Connectivity tests",
                Test::ALL.iter().map(|kind| kind.reason()).collect(),
            ),
            ("## State of the client", STATES.into_iter().collect()),
            ("## Dropped by the fast path", verdicts(Action::Drop)),
            ("## Passed by the fast path", verdicts(Action::Pass)),
            (
                "## Bubbles",
                Bubble::ALL.iter().map(|kind| kind.reason()).collect(),
            ),
            (
                "## Destination unreachable",
                Unreachable::ALL.iter().map(|kind| kind.reason()).collect(),
            ),
        ] {
            assert_eq!(documented(heading), reasons, "{heading}");
        }
    }

    #[test]
    fn every_request_is_documented_and_no_other() {
        let requests: Vec<ServedRequest> = server::Service::ALL
            .iter()
            .map(|&service| service.into())
            .collect();
        let start = DOCUMENTATION.find("## Requests").unwrap();
        let section = DOCUMENTATION[start + 1..].split("\n## ").next().unwrap();
        let documented: Vec<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"))
            .filter_map(|(kind, rest)| Some((kind, rest.split_once('`')?.0)))
            .collect();
        let named: Vec<_> = requests
            .iter()
            .map(|request| (request.kind, request.result))
            .collect();
        assert_eq!(documented, named);
        assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
    }

    #[test]
    fn every_metric_that_is_explained_is_there() {
        let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let list = std::fs::read_to_string(list).unwrap();
        for metric in documented("# Statistics") {
            assert!(list.contains(&format!("\n| `{metric}` | ")), "{metric}");
        }
    }

    #[test]
    fn counts_add_up() {
        let mut snapshot = Snapshot::default();
        for _ in 0..2 {
            snapshot.add_traffic(Direction::Encap, Path::Userspace, 1, 1280);
            snapshot.add_dropped(Role::Relay, "source", 3);
        }
        let traffic = snapshot.traffic(Direction::Encap, Path::Userspace);
        assert_eq!((traffic.packets, traffic.bytes), (2, 2560));
        assert_eq!(
            snapshot.dropped[&(Role::Relay, Path::Userspace, "source")],
            6
        );
    }
}
