//! The JSON of the API's answers. Both the daemon and the command use these types.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddrV4},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use teredo_common::{time::Instant, traffic::Traffic, verdict::Direction};

use crate::{
    condition::{Lasting, Severity},
    metrics::{Attachment, ClientStatus, Path, Rate, Role, RoleState, Snapshot},
};

/// The state of a daemon, and all its counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Name of the instance.
    pub name: String,
    /// Version of the daemon.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: f64,
    /// Running roles.
    pub roles: Vec<String>,
    /// Roles that no longer accept new peers or clients.
    #[serde(default)]
    pub draining: Vec<String>,
    /// Dates on which roles end, by role.
    #[serde(default)]
    pub sunset: BTreeMap<String, String>,
    /// Whether all roles do their jobs.
    #[serde(default)]
    pub verdict: Verdict,
    /// The conditions that are true.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The local UDP endpoints of the roles that have them.
    #[serde(default)]
    pub endpoints: BTreeMap<String, Vec<SocketAddrV4>>,
    /// The traffic per second, by direction.
    #[serde(default)]
    pub rates: BTreeMap<String, Rate>,
    /// How the fast path is attached to each interface.
    pub xdp: Vec<Attachment>,
    /// Forwarded packets.
    pub packets: Directions,
    /// Octets of forwarded IPv6 packets.
    pub bytes: Directions,
    /// Dropped packets, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Frames that the fast path passed to the kernel and the daemon, by reason.
    pub passed: BTreeMap<String, u64>,
    /// Numbers of bubbles.
    pub bubbles: Bubbles,
    /// Numbers of peers.
    pub peers: PeerCounts,
    /// The status of the server, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// The status of the client, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientStatus>,
}

/// Whether all roles of a daemon do their jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All do.
    #[default]
    Ok,
    /// All do, but slower or not completely.
    Degraded,
    /// At least one does not.
    Down,
}

impl Verdict {
    fn of(snapshot: &Snapshot) -> Self {
        let severities = snapshot
            .conditions
            .iter()
            .map(|lasting| lasting.condition.kind.severity());
        match severities.max() {
            None => Self::Ok,
            Some(Severity::Degraded) => Self::Degraded,
            Some(Severity::Down) => Self::Down,
        }
    }
}

/// A way in which a role does not do its whole job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// Name of the kind.
    pub kind: String,
    /// Name of the role.
    pub role: String,
    /// The interface, address, prefix or file that it concerns; may be empty.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// The reason and the remedy, as a sentence.
    pub text: String,
    /// Seconds since it began.
    pub since_seconds: f64,
}

impl Condition {
    /// Describes a condition at the time `now`.
    fn new(lasting: &Lasting, now: Instant) -> Self {
        let condition = &lasting.condition;
        Self {
            kind: condition.kind.name().to_owned(),
            role: condition.role.name().to_owned(),
            subject: condition.subject.clone(),
            severity: condition.kind.severity(),
            text: condition.text.clone(),
            since_seconds: now.saturating_since(lasting.since).as_secs_f64(),
        }
    }
}

/// The status of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerStatus {
    /// Packets that it handled, by kind and result.
    pub requests: BTreeMap<String, BTreeMap<String, Paths>>,
    /// Clients that the tunnel service has bindings for.
    pub bindings: u64,
}

/// A number for each direction and path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Directions {
    /// From native IPv6, or this host, to Teredo clients.
    pub encap: Paths,
    /// From Teredo clients to native IPv6, or this host.
    pub decap: Paths,
}

/// A number for each path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Paths {
    /// In the XDP program.
    pub xdp: u64,
    /// In the daemon.
    pub userspace: u64,
}

/// Numbers of bubbles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bubbles {
    /// Bubbles sent.
    pub sent: u64,
    /// Bubbles received.
    pub received: u64,
}

/// Numbers of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerCounts {
    /// Peers whose mapping is confirmed.
    pub trusted: u64,
    /// Peers whose mapping is not confirmed yet.
    pub untrusted: u64,
    /// Trusted peers of a relay whose mapping is proved.
    #[serde(default)]
    pub proved: u64,
    /// The most peers that there can be; 0 without a relay and a client.
    #[serde(default)]
    pub maximum: u64,
}

impl From<&Snapshot> for Status {
    fn from(snapshot: &Snapshot) -> Self {
        let numbers = |of: fn(crate::metrics::Traffic) -> u64| {
            let paths = |direction| Paths {
                xdp: of(snapshot.traffic(direction, Path::Xdp)),
                userspace: of(snapshot.traffic(direction, Path::Userspace)),
            };
            Directions {
                encap: paths(Direction::Encap),
                decap: paths(Direction::Decap),
            }
        };
        let mut dropped = BTreeMap::new();
        for (&(_, _, reason), packets) in &snapshot.dropped {
            *dropped.entry(reason.to_owned()).or_default() += packets;
        }
        Self {
            name: snapshot.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: snapshot.uptime.as_secs_f64(),
            roles: roles(snapshot, |_| true),
            draining: roles(snapshot, |state| state.is_draining),
            sunset: snapshot
                .roles
                .iter()
                .filter_map(|(role, state)| {
                    Some((role.name().to_owned(), state.sunset?.to_string()))
                })
                .collect(),
            verdict: Verdict::of(snapshot),
            endpoints: snapshot
                .endpoints
                .iter()
                .map(|(role, endpoints)| (role.name().to_owned(), endpoints.clone()))
                .collect(),
            rates: snapshot
                .rates
                .iter()
                .map(|(&direction, &rate)| (direction.to_owned(), rate))
                .collect(),
            conditions: snapshot
                .conditions
                .iter()
                .map(|lasting| Condition::new(lasting, snapshot.time))
                .collect(),
            xdp: snapshot.xdp.clone(),
            packets: numbers(|traffic| traffic.packets),
            bytes: numbers(|traffic| traffic.bytes),
            dropped,
            passed: snapshot
                .passed
                .iter()
                .map(|(&reason, &packets)| (reason.to_owned(), packets))
                .collect(),
            bubbles: Bubbles {
                sent: snapshot.bubbles_sent(),
                received: snapshot.bubbles_received(),
            },
            peers: PeerCounts {
                trusted: snapshot.peers_trusted,
                untrusted: snapshot.peers_untrusted,
                proved: snapshot.peers_proved,
                maximum: snapshot.peers_max,
            },
            server: snapshot
                .roles
                .contains_key(&Role::Server)
                .then(|| server(snapshot)),
            client: snapshot.client.clone(),
        }
    }
}

/// Returns the names of the roles whose state satisfies the condition.
fn roles(snapshot: &Snapshot, condition: impl Fn(&RoleState) -> bool) -> Vec<String> {
    let roles = snapshot.roles.iter().filter(|(_, state)| condition(state));
    roles.map(|(role, _)| role.name().to_owned()).collect()
}

fn server(snapshot: &Snapshot) -> ServerStatus {
    let mut requests: BTreeMap<String, BTreeMap<String, Paths>> = BTreeMap::new();
    for (&(request, path), &packets) in &snapshot.requests {
        let kind = requests.entry(request.kind.to_owned()).or_default();
        let paths = kind.entry(request.result.to_owned()).or_default();
        match path {
            Path::Xdp => paths.xdp += packets,
            Path::Userspace => paths.userspace += packets,
        }
    }
    ServerStatus {
        requests,
        bindings: snapshot.bindings,
    }
}

/// `GET /v1/peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerList {
    /// The peers, in no particular order. Those that come or go meanwhile may be missing.
    pub peers: Vec<Peer>,
    /// The cursor at which the list goes on; null at its end.
    pub next: Option<u64>,
}

/// One peer of the relay or of the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its Teredo address.
    pub address: Ipv6Addr,
    /// Source and destination of its datagrams.
    pub mapped: SocketAddrV4,
    /// Whether the mapping is confirmed.
    pub state: PeerState,
    /// Whether the mapping differs from the one in the address.
    pub symmetric: bool,
    /// Whether something that a relay sent only to the mapping came back from there, so that the fast
    /// path may serve the peer.
    #[serde(default)]
    pub proved: bool,
    /// Seconds since a packet of the peer arrived; absent before the first.
    pub last_received_seconds: Option<f64>,
    /// Seconds since a packet was sent to the peer; absent before the first.
    pub last_sent_seconds: Option<f64>,
    /// Whether it is on the same link.
    #[serde(default)]
    pub local: bool,
    /// Whether the fast path has the peer.
    pub xdp: bool,
    /// Packets since the peer was known, on both paths; absent if they are not counted.
    pub packets: Option<Count>,
    /// Octets of these packets, as IPv6 packets; absent if they are not counted.
    pub bytes: Option<Count>,
}

impl Peer {
    /// Returns the octets in both directions; none if they are not counted.
    #[must_use]
    pub fn traffic(&self) -> u64 {
        let octets = self.bytes.unwrap_or_default();
        octets.encap.saturating_add(octets.decap)
    }
}

/// A number for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// To the peer.
    pub encap: u64,
    /// From the peer.
    pub decap: u64,
}

impl Count {
    /// Returns the packets and the octets of a peer.
    #[must_use]
    pub const fn of(traffic: Traffic) -> (Self, Self) {
        let Traffic { encap, decap } = traffic;
        let packets = Self {
            encap: encap.packets,
            decap: decap.packets,
        };
        let octets = Self {
            encap: encap.octets,
            decap: decap.octets,
        };
        (packets, octets)
    }
}

/// The state of a peer's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// The mapping is confirmed.
    Trusted,
    /// The mapping is not confirmed yet.
    Untrusted,
}
