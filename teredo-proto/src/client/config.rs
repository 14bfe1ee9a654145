//! The configuration of a client, and the state of the host that it runs on.

use std::{net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    prefixes::TeredoPrefixes,
    scope::Ipv4Scope,
    wire::SERVER_PORT,
};

use crate::{
    ServerAddress,
    shared::{
        limiter::{Ipv4Rates, Rate},
        turns::Pace,
    },
    wire::authentication::Key,
};

/// The configuration of a client; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Prefix of the Teredo service.
    pub prefix: ServicePrefix,
    /// Servers in the order in which the client tries them (C-01), at least one.
    pub servers: Vec<ServerEndpoints>,
    /// Service port: a local UDP port that is open already (C-04). Host byte order, not 0.
    pub port: u16,
    /// Key of secure qualification, if the client has one.
    pub credentials: Option<Credentials>,
    /// IPv4 addresses that count as global unicast (L-05).
    pub ipv4_scope: Ipv4Scope,
    /// Source of the interval between maintenance solicitations (C-44, C-52).
    pub refresh: Refresh,
    /// Whether the client tests for a cone NAT first, as RFC 4380 does and RFC 5991 does not
    /// (DEC-3).
    pub cone_probe: bool,
    /// Whether the flags of the address are 0 or the cone flag, as before RFC 5991 (C-15).
    pub draft_flags: bool,
    /// Whether each solicitation comes from a new link-local address (DEC-4).
    pub random_link_local: bool,
    /// Whether the client sends directly to peers whose address has the cone flag (C-51).
    pub honor_cone: bool,
    /// Whether the client accepts advertisements without authentication header.
    pub legacy_server: bool,
    /// Whether the client takes an advertised draft prefix, 3ffe:831f::/32, for the standard one.
    pub legacy_prefix: bool,
    /// Whether the client accepts a prefix of the tunnel service (T-11). Needs
    /// [`Config::credentials`].
    pub allow_tunnel: bool,
    /// Whether the client accepts packets of hosts that it sent nothing to, after a connectivity
    /// test (C-41).
    pub accept_unsolicited: bool,
    /// Whether the client looks for other clients on the same link (C-60).
    pub local_discovery: bool,
    /// Extensions of RFC 6081 that the client uses.
    pub extensions: Extensions,
    /// Upper bound on the number of peers, at least two. An eighth of them may be untrusted (P-06).
    pub max_peers: usize,
    /// Upper bound on the number of packets that wait for one peer (P-07).
    pub queue_per_peer: usize,
    /// Upper bound on the octets of all packets that wait (P-07), counting
    /// [`QUEUE_OVERHEAD`](crate::QUEUE_OVERHEAD) for each packet.
    pub queue_total_bytes: usize,
    /// Rate of connectivity tests (C-58).
    pub test_rate: Rate,
    /// Rate of Destination Unreachable messages.
    pub unreachable_rate: Rate,
    /// Rates of direct bubbles (L-12).
    pub direct_bubble_rates: Ipv4Rates,
    /// Pace of indirect bubbles and connectivity tests through one server (L-18).
    pub server_pace: Pace,
}

impl Config {
    /// Whether the address is one of another Teredo service than the client's. It is neither a peer's nor
    /// a native host's.
    pub(super) fn is_foreign(&self, address: &[u8; 16]) -> bool {
        TeredoPrefixes::STANDARD.contains(address) && !self.prefix.contains(address)
    }

    /// Creates the default configuration of a client of these servers with this service port (host
    /// byte order).
    #[must_use]
    pub fn new(servers: Vec<ServerEndpoints>, port: u16) -> Self {
        Self {
            prefix: ServicePrefix::STANDARD,
            servers,
            port,
            credentials: None,
            ipv4_scope: Ipv4Scope::Strict,
            refresh: Refresh::Auto,
            cone_probe: false,
            draft_flags: false,
            random_link_local: false,
            honor_cone: false,
            legacy_server: false,
            legacy_prefix: false,
            allow_tunnel: false,
            accept_unsolicited: false,
            local_discovery: true,
            extensions: Extensions::ALL,
            max_peers: 1024,
            queue_per_peer: 16,
            queue_total_bytes: 4 << 20,
            test_rate: Rate::new(20, 20),
            unreachable_rate: Rate::new(10, 10),
            direct_bubble_rates: Ipv4Rates {
                address: Rate::new(20, 20),
                network: Rate::new(40, 80),
                total: Rate::new(50, 400),
            },
            server_pace: Pace {
                first: 8,
                most: 8,
                network: 100,
                total: 400,
            },
        }
    }
}

/// The addresses of one Teredo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEndpoints {
    /// Primary address, which the Teredo addresses of clients contain.
    pub primary: Ipv4Addr,
    /// Secondary address, which tells clients whether their NAT is symmetric.
    pub secondary: Ipv4Addr,
    /// UDP port of both addresses, host byte order.
    pub port: u16,
}

impl ServerEndpoints {
    /// Creates the addresses of a server at `primary`, whose secondary address is the next one and
    /// whose port is 3544 (C-01).
    #[must_use]
    pub const fn new(primary: Ipv4Addr) -> Self {
        Self {
            primary,
            secondary: Ipv4Addr::from_bits(primary.to_bits().wrapping_add(1)),
            port: SERVER_PORT,
        }
    }

    /// Returns the endpoint with this address.
    #[must_use]
    pub const fn endpoint(self, address: ServerAddress) -> Endpoint {
        match address {
            ServerAddress::Primary => self.primary(),
            ServerAddress::Secondary => self.secondary(),
        }
    }

    /// Returns the endpoint with the primary address.
    #[must_use]
    pub const fn primary(self) -> Endpoint {
        Endpoint::new(self.primary, self.port)
    }

    /// Returns the endpoint with the secondary address.
    #[must_use]
    pub const fn secondary(self) -> Endpoint {
        Endpoint::new(self.secondary, self.port)
    }
}

/// The key of a client and its name at the server.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client identification, at most 255 octets.
    pub id: Vec<u8>,
    /// Key that the client shares with the server.
    pub key: Key,
}

/// The source of the interval between maintenance solicitations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// The client measures it with its secondary port; it is 30 seconds until then (C-52).
    Auto,
    /// The interval is given, and is at least 5 seconds (C-53).
    Fixed(Duration),
}

/// The extensions of RFC 6081, each with its switch. All build upon
/// [`Extensions::symmetric`]; without it those for symmetric NATs do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// Symmetric NAT support (RFC 6081 section 5.2).
    pub symmetric: bool,
    /// For symmetric NATs that preserve ports (RFC 6081 section 5.4).
    pub port_preserving: bool,
    /// For symmetric NATs that count ports up (RFC 6081 section 5.5).
    pub sequential: bool,
    /// For peers behind the same NAT (RFC 6081 section 5.6).
    pub hairpinning: bool,
    /// Server load reduction (RFC 6081 section 5.7).
    pub load_reduction: bool,
}

impl Extensions {
    /// All extensions.
    pub const ALL: Self = Self {
        symmetric: true,
        port_preserving: true,
        sequential: true,
        hairpinning: true,
        load_reduction: true,
    };
    /// No extension: RFC 4380 alone.
    pub const NONE: Self = Self {
        symmetric: false,
        port_preserving: false,
        sequential: false,
        hairpinning: false,
        load_reduction: false,
    };
}

/// The state of the host's network, as far as it matters to a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Source address of packets to the IPv4 internet; `None` if there is no route to it.
    pub source: Option<Ipv4Addr>,
    /// Addresses of the host with their networks, without loopback.
    pub attached: Vec<Attached>,
    /// Whether the host has other IPv6 connectivity than the client's (C-03, Z-01), because of which
    /// the client goes off-line. `false` for a client that is to run nevertheless.
    pub native_ipv6: bool,
    /// Endpoint at which a port mapping protocol (UPnP) made the service port reachable from outside
    ///
    pub port_mapping: Option<Endpoint>,
}

/// An IPv4 address of the host, with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Address of the host.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits, 0 to 32.
    pub prefix_length: u8,
}
