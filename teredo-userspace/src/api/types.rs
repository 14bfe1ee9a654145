//! What the API answers, as JSON. Both the daemon and the command use these types.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddrV4},
};

use serde::{Deserialize, Serialize};
use teredo_common::verdict::Direction;

use crate::metrics::{Attachment, ClientStatus, Path, Role, RoleState, Snapshot};

/// `GET /status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the instance.
    pub name: String,
    /// Version of the daemon.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_seconds: f64,
    /// Roles that run.
    pub roles: Vec<String>,
    /// Those of them that take no new peers or clients any more.
    #[serde(default)]
    pub draining: Vec<String>,
    /// The days on which they end, by role.
    #[serde(default)]
    pub sunset: BTreeMap<String, String>,
    /// Where and how the fast path is attached.
    pub xdp: Vec<Attachment>,
    /// Packets that were forwarded.
    pub packets: Directions,
    /// Octets of IPv6 packets that were forwarded.
    pub bytes: Directions,
    /// Packets that were dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Frames that the fast path left to the kernel and the daemon, by reason.
    pub passed: BTreeMap<String, u64>,
    /// Bubbles.
    pub bubbles: Bubbles,
    /// How many peers the daemon knows.
    pub peers: PeerCounts,
    /// What the server does, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// How the client is, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientStatus>,
}

/// What the server does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Packets that it served, by kind and result.
    pub requests: BTreeMap<String, BTreeMap<String, Paths>>,
    /// Clients of the tunnel service that were there.
    pub bindings: u64,
}

/// A number for each direction and path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directions {
    /// From native IPv6, or this host, to Teredo clients.
    pub encap: Paths,
    /// From Teredo clients to native IPv6, or this host.
    pub decap: Paths,
}

/// A number for each path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// In the XDP program.
    pub xdp: u64,
    /// In the daemon.
    pub userspace: u64,
}

/// Numbers of bubbles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bubbles {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// Numbers of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// Known to be where their mapping says.
    pub trusted: u64,
    /// Proof is awaited.
    pub untrusted: u64,
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
            },
            server: snapshot
                .roles
                .contains_key(&Role::Server)
                .then(|| server(snapshot)),
            client: snapshot.client.clone(),
        }
    }
}

/// The names of the roles that are like this.
fn roles(snapshot: &Snapshot, is_so: impl Fn(&RoleState) -> bool) -> Vec<String> {
    let roles = snapshot.roles.iter().filter(|(_, state)| is_so(state));
    roles.map(|(role, _)| role.name().to_owned()).collect()
}

fn server(snapshot: &Snapshot) -> Server {
    let mut requests: BTreeMap<String, BTreeMap<String, Paths>> = BTreeMap::new();
    for (&(request, path), &packets) in &snapshot.requests {
        let kind = requests.entry(request.kind.to_owned()).or_default();
        let paths = kind.entry(request.result.to_owned()).or_default();
        match path {
            Path::Xdp => paths.xdp += packets,
            Path::Userspace => paths.userspace += packets,
        }
    }
    Server {
        requests,
        bindings: snapshot.bindings,
    }
}

/// One element of `GET /peers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its Teredo address.
    pub address: Ipv6Addr,
    /// Where its datagrams come from and go to.
    pub mapped: SocketAddrV4,
    /// Whether the mapping is proved.
    pub state: PeerState,
    /// Whether the mapping differs from the one in the address.
    pub symmetric: bool,
    /// Seconds since a packet of the peer arrived; absent before the first.
    pub last_received_seconds: Option<f64>,
    /// Seconds since a packet was sent to the peer; absent before the first.
    pub last_sent_seconds: Option<f64>,
    /// Whether it is on the same link.
    #[serde(default)]
    pub local: bool,
    /// Whether the fast path has the peer.
    pub xdp: bool,
}

/// What the daemon knows of a peer's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Proved.
    Trusted,
    /// Proof is awaited.
    Untrusted,
}
