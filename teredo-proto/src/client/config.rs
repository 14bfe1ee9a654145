//! What a client is told when it starts, and what it is told of the host it runs on.

use std::{net::Ipv4Addr, time::Duration};

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    scope::Ipv4Scope,
    wire::SERVER_PORT,
};

use crate::{ServerAddress, shared::limiter::Rate, wire::authentication::Key};

/// What a client is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Prefix of the Teredo service.
    pub prefix: ServicePrefix,
    /// The servers, in the order in which they are tried (C-01). At least one.
    pub servers: Vec<Server>,
    /// The service port: a local UDP port that is open already (C-04). Host byte order, not 0.
    pub port: u16,
    /// The key of secure qualification.
    pub credentials: Option<Credentials>,
    /// Which IPv4 addresses are global unicast (requirement L-05).
    pub ipv4_scope: Ipv4Scope,
    /// How the interval between maintenance solicitations is found (C-44, C-52).
    pub refresh: Refresh,
    /// Probes for a cone NAT first, as RFC 4380 does and RFC 5991 does not (DEC-3).
    pub cone_probe: bool,
    /// Flags of the address are 0 or the cone flag, as before RFC 5991 (C-15).
    pub draft_flags: bool,
    /// Solicitations come from a new link-local address each (DEC-4).
    pub random_link_local: bool,
    /// Sends directly to peers whose address has the cone flag (C-51).
    pub honor_cone: bool,
    /// Accepts advertisements without authentication header.
    pub legacy_server: bool,
    /// Takes an advertised draft prefix for the standard one (section 6).
    pub legacy_prefix: bool,
    /// Accepts a prefix of the tunnel service (T-11). Needs [`Config::credentials`].
    pub allow_tunnel: bool,
    /// Accepts packets of hosts that nothing was sent to, after a connectivity test (C-41).
    pub accept_unsolicited: bool,
    /// Finds other clients on the same link (C-60).
    pub local_discovery: bool,
    /// The extensions of RFC 6081.
    pub extensions: Extensions,
    /// Peers remembered, trusted or not; at least two. An eighth may be untrusted (P-06).
    pub max_peers: usize,
    /// Packets that may wait for one peer (P-07).
    pub queue_per_peer: usize,
    /// Octets that may wait in total (P-07), with [`crate::QUEUE_OVERHEAD`] for each
    /// packet.
    pub queue_total_bytes: usize,
    /// Connectivity tests (C-58).
    pub test_rate: Rate,
    /// Destination Unreachable messages.
    pub unreachable_rate: Rate,
    /// Direct bubbles to one IPv4 address (L-12).
    pub direct_bubble_rate: Rate,
    /// Indirect bubbles to one server (L-12).
    pub indirect_bubble_rate: Rate,
}

impl Config {
    /// The defaults for a client of these servers with this service port.
    #[must_use]
    pub fn new(servers: Vec<Server>, port: u16) -> Self {
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
            direct_bubble_rate: Rate::new(20, 20),
            indirect_bubble_rate: Rate::new(500, 500),
        }
    }
}

/// The addresses of one Teredo server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The one that clients' addresses name.
    pub primary: Ipv4Addr,
    /// The other one, for detecting symmetric NATs.
    pub secondary: Ipv4Addr,
    /// UDP port of both, host byte order.
    pub port: u16,
}

impl Server {
    /// A server at `primary`, with the next address and the usual port (C-01).
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

    /// Where solicitations to the primary address go.
    #[must_use]
    pub const fn primary(self) -> Endpoint {
        Endpoint::new(self.primary, self.port)
    }

    /// Where solicitations to the secondary address go.
    #[must_use]
    pub const fn secondary(self) -> Endpoint {
        Endpoint::new(self.secondary, self.port)
    }
}

/// What a client authenticates itself with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client identification, at most 255 octets.
    pub id: Vec<u8>,
    /// The key that it shares with the server.
    pub key: Key,
}

/// How the interval between maintenance solicitations is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Measured with the secondary port; 30 seconds until that is done (C-52).
    Auto,
    /// Given, 5 seconds at least (C-53).
    Fixed(Duration),
}

/// The extensions of RFC 6081, each with its switch. All build upon
/// [`Extensions::symmetric`]; without it those for symmetric NATs do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// Symmetric NAT support (section 5.2).
    pub symmetric: bool,
    /// For symmetric NATs that preserve ports (section 5.4).
    pub port_preserving: bool,
    /// For symmetric NATs that count ports up (section 5.5).
    pub sequential: bool,
    /// For peers behind the same NAT (section 5.6).
    pub hairpinning: bool,
    /// Server load reduction (section 5.7).
    pub load_reduction: bool,
}

impl Extensions {
    /// All of them.
    pub const ALL: Self = Self {
        symmetric: true,
        port_preserving: true,
        sequential: true,
        hairpinning: true,
        load_reduction: true,
    };
    /// RFC 4380 alone.
    pub const NONE: Self = Self {
        symmetric: false,
        port_preserving: false,
        sequential: false,
        hairpinning: false,
        load_reduction: false,
    };
}

/// The host's network, as far as it matters for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The address from which packets to the IPv4 internet leave; none: there is no way to it.
    pub source: Option<Ipv4Addr>,
    /// The addresses of the host with their networks, loopback left out.
    pub attached: Vec<Attached>,
    /// Whether the host has other IPv6 connectivity than the client's (C-03, Z-01). A client that
    /// is to run nevertheless is not told.
    pub native_ipv6: bool,
    /// Where a port mapping protocol (UPnP) made the service port reachable from outside.
    pub port_mapping: Option<Endpoint>,
}

/// An IPv4 address of the host, and the network that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 0 to 32.
    pub prefix_length: u8,
}
