//! The settings of a client, and the state of the host's network.

use std::{net::Ipv4Addr, time::Duration};

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    scope::Ipv4Scope,
    wire::SERVER_PORT,
};

use crate::{ServerAddress, shared::limiter::Rate, wire::authentication::Key};

/// The settings of a client.
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
    /// The IPv4 addresses that count as global unicast (L-05).
    pub ipv4_scope: Ipv4Scope,
    /// The source of the interval between maintenance solicitations (C-44, C-52).
    pub refresh: Refresh,
    /// Probes for a cone NAT first, as RFC 4380 does and RFC 5991 does not (DEC-3).
    pub cone_probe: bool,
    /// Sets the flags of the address to 0 or the cone flag, as before RFC 5991 (C-15).
    pub draft_flags: bool,
    /// Sends each solicitation from a new link-local address (DEC-4).
    pub random_link_local: bool,
    /// Sends directly to peers whose address has the cone flag (C-51).
    pub honor_cone: bool,
    /// Accepts advertisements without authentication header.
    pub legacy_server: bool,
    /// Accepts an advertised 3ffe:831f::/32, the prefix of the 2002 draft, for the standard prefix.
    pub legacy_prefix: bool,
    /// Accepts a prefix of the tunnel service (T-11). Needs [`Config::credentials`].
    pub allow_tunnel: bool,
    /// Accepts packets of hosts that nothing was sent to, after a connectivity test (C-41).
    pub accept_unsolicited: bool,
    /// Finds other clients on the same link (C-60).
    pub local_discovery: bool,
    /// The extensions of RFC 6081.
    pub extensions: Extensions,
    /// Maximum number of peers, trusted or not; at least two. An eighth may be untrusted (P-06).
    pub max_peers: usize,
    /// Maximum number of packets that wait for one peer (P-07).
    pub queue_per_peer: usize,
    /// Maximum number of octets that wait in total (P-07), with [`crate::QUEUE_OVERHEAD`] for each
    /// packet.
    pub queue_total_bytes: usize,
    /// Rate of connectivity tests (C-58).
    pub test_rate: Rate,
    /// Rate of Destination Unreachable messages.
    pub unreachable_rate: Rate,
    /// Rate of direct bubbles to one IPv4 address (L-12).
    pub direct_bubble_rate: Rate,
    /// Rate of indirect bubbles to one server (L-12).
    pub indirect_bubble_rate: Rate,
}

impl Config {
    /// Returns the defaults for a client of these servers with this service port.
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
    /// The address that clients' addresses name.
    pub primary: Ipv4Addr,
    /// The other address, for detecting symmetric NATs.
    pub secondary: Ipv4Addr,
    /// UDP port of both addresses, host byte order.
    pub port: u16,
}

impl Server {
    /// Returns the server at `primary`, with the next address and the usual port (C-01).
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

/// The means by which a client authenticates itself.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client identification, at most 255 octets.
    pub id: Vec<u8>,
    /// The key that it shares with the server.
    pub key: Key,
}

/// The source of the interval between maintenance solicitations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Measured with the secondary port; 30 seconds until that is done (C-52).
    Auto,
    /// A fixed interval of at least 5 seconds (C-53).
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
    /// The source address of packets to the IPv4 internet; `None` if there is no route to it.
    pub source: Option<Ipv4Addr>,
    /// The addresses of the host with their networks, loopback left out.
    pub attached: Vec<Attached>,
    /// Whether the host has other IPv6 connectivity than the client's (C-03, Z-01). `false` for a
    /// client that is to run nevertheless.
    pub native_ipv6: bool,
    /// The endpoint at which a port mapping protocol (UPnP) made the service port reachable from
    /// outside.
    pub port_mapping: Option<Endpoint>,
}

/// An IPv4 address of the host, with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of the network's prefix, 0 to 32.
    pub prefix_length: u8,
}
