//! The status and the counters of a client.

use std::{
    net::{Ipv6Addr, SocketAddrV4},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use teredo_common::verdict::Direction;
use teredo_proto::{
    client::{Client, Nat, Offline, State},
    nat::Behaviour,
};

use super::{Path, Role, RoleState, Snapshot};

/// Every state of a client, as statistics name them.
pub const STATES: [&str; 9] = [
    "stopped",
    "starting",
    "second",
    "qualified",
    "offline-no-answer",
    "offline-symmetric",
    "offline-no-network",
    "offline-native-ipv6",
    "offline-secondary-silent",
];

/// The status of a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientStatus {
    /// Its state, one of [`STATES`].
    pub state: String,
    /// Its address, while it has identity.
    pub address: Option<Ipv6Addr>,
    /// Its endpoint as the server sees it.
    pub mapped: Option<SocketAddrV4>,
    /// The service port.
    pub port: u16,
    /// The primary endpoint of the server that is used or tried.
    pub server: Option<SocketAddrV4>,
    /// The type of the NAT: `cone`, `restricted` or `symmetric`.
    pub nat: Option<String>,
    /// The same in the words of `teredo probe`, those of RFC 4787 and of game consoles.
    pub nat_behaviour: Option<String>,
    /// Whether the mapped port equals the service port.
    pub port_preserving: bool,
    /// The endpoint that the gateway forwards to the service port.
    pub port_mapping: Option<SocketAddrV4>,
    /// Whether the address is from the tunnel service.
    pub tunnel: bool,
    /// The largest IPv6 packet in the tunnel, in octets.
    pub mtu: Option<u16>,
    /// Longest interval between maintenance solicitations, in seconds.
    pub refresh_seconds: f64,
    /// Number of qualifications.
    pub qualified: u64,
    /// Number of router solicitations sent.
    pub solicitations: u64,
}

impl ClientStatus {
    /// Returns the status of `client`, whose service port is `port`. `refresh` is the interval between
    /// maintenance solicitations.
    #[must_use]
    pub fn of(client: &Client, port: u16, refresh: Duration) -> Self {
        let identity = client.identity();
        let statistics = client.statistics();
        Self {
            state: state_name(client.state()).to_owned(),
            address: identity.map(|identity| identity.address),
            mapped: identity.map(|identity| identity.mapped.into()),
            port,
            server: client.server().map(|server| server.primary().into()),
            nat: identity.map(|identity| nat_name(identity.nat).to_owned()),
            nat_behaviour: identity.map(|identity| Behaviour::from(identity).to_string()),
            port_preserving: identity.is_some_and(|identity| identity.port_preserving),
            port_mapping: None,
            tunnel: identity.is_some_and(|identity| identity.tunnel),
            mtu: identity.map(|identity| identity.mtu),
            refresh_seconds: refresh.as_secs_f64(),
            qualified: statistics.qualified,
            solicitations: statistics.solicitations,
        }
    }
}

impl Snapshot {
    /// Adds a running client with its status and counters.
    pub fn add_client(&mut self, status: ClientStatus, client: &Client) {
        self.roles.insert(Role::Client, RoleState::default());
        self.client = Some(status);
        let statistics = client.statistics();
        for (direction, traffic) in [
            (Direction::Encap, statistics.encapsulated),
            (Direction::Decap, statistics.decapsulated),
        ] {
            self.add_traffic(direction, Path::Userspace, traffic.packets, traffic.octets);
        }
        for (reason, packets) in statistics.dropped.iter() {
            self.add_dropped(Role::Client, reason.reason(), packets);
        }
        for (kind, count) in statistics.bubbles.iter() {
            *self.bubbles.entry(kind.reason()).or_default() += count;
        }
        for (kind, count) in statistics.tests.iter() {
            *self.tests.entry(kind.reason()).or_default() += count;
        }
        for (outcome, count) in statistics.unreachable.iter() {
            let total = self.unreachable.entry((Role::Client, outcome.reason()));
            *total.or_default() += count;
        }
        self.peers_trusted += statistics.trusted_peers as u64;
        self.peers_untrusted += statistics.untrusted_peers as u64;
        self.queue_packets += statistics.queue_packets as u64;
        self.queue_bytes += statistics.queue_octets as u64;
        self.waits = statistics.waits;
        self.first_waits = statistics.first_waits;
        self.round_trips = statistics.round_trips;
        self.qualifications = statistics.qualifications;
        self.events_lost += statistics.events_lost;
    }
}

const fn state_name(state: State) -> &'static str {
    STATES[match state {
        State::Stopped => 0,
        State::Starting => 1,
        State::Second => 2,
        State::Qualified => 3,
        State::Offline(Offline::NoAnswer) => 4,
        State::Offline(Offline::Symmetric) => 5,
        State::Offline(Offline::NoNetwork) => 6,
        State::Offline(Offline::NativeIpv6) => 7,
        State::Offline(Offline::SecondarySilent) => 8,
    }]
}

const fn nat_name(nat: Nat) -> &'static str {
    match nat {
        Nat::Cone => "cone",
        Nat::Restricted => "restricted",
        Nat::Symmetric => "symmetric",
    }
}

#[cfg(test)]
mod tests {
    use teredo_proto::{
        Unreachable,
        client::{Bubble, Config, DropReason, ServerEndpoints},
    };

    use super::*;

    #[test]
    fn all_counters_of_the_client_are_shown() {
        let servers = vec![ServerEndpoints::new([9, 0, 0, 1].into())];
        let client = Client::new(Config::new(servers, 4096), [0; 32]);
        let status = ClientStatus::of(&client, 4096, Duration::from_secs(30));
        assert_eq!(status.state, "stopped");
        assert_eq!(status.server, Some("9.0.0.1:3544".parse().unwrap()));
        assert_eq!(status.address, None);
        let mut snapshot = Snapshot::default();
        snapshot.add_client(status.clone(), &client);
        assert!(snapshot.roles.contains_key(&Role::Client));
        assert_eq!(snapshot.client, Some(status));
        assert_eq!(snapshot.dropped.len(), DropReason::ALL.len());
        assert_eq!(snapshot.bubbles.len(), Bubble::ALL.len());
        assert_eq!(snapshot.unreachable.len(), Unreachable::ALL.len());
    }
}
