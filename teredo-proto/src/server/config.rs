//! The configuration of a server.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    limiter::{Limits, Rate},
    scope::Ipv4Scope,
    wire::{MTU, SERVER_PORT},
};

use crate::wire::authentication::Key;

/// The configuration of a server; [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Primary address, which the Teredo addresses of clients contain.
    pub primary: Ipv4Addr,
    /// Secondary address (S-01).
    pub secondary: Ipv4Addr,
    /// UDP port of both addresses, host byte order.
    pub port: u16,
    /// Service prefixes of the clients that are served, at least one. The first is advertised.
    pub prefixes: Vec<ServicePrefix>,
    /// IPv4 addresses of this host at the start; see [`Server::set_own_addresses`].
    ///
    /// [`Server::set_own_addresses`]: super::Server::set_own_addresses
    pub own_ipv4: Vec<Ipv4Addr>,
    /// Endpoint of the relay in the same process, if there is one (S-30).
    pub relay: Option<Endpoint>,
    /// IPv4 addresses that count as global unicast (L-05).
    pub ipv4_scope: Ipv4Scope,
    /// Advertised MTU, in octets; `None` leaves the option out.
    pub mtu: Option<u16>,
    /// Whether solicitations without valid authentication of a known client are dropped (S-07).
    pub require_authentication: bool,
    /// Clients that have a key. Of two with the same identification, the first counts.
    pub clients: Vec<RegisteredClient>,
    /// Whether echo requests of clients leave for native IPv6 (S-13).
    pub forward_echo: bool,
    /// Whether echo replies of clients leave for native IPv6 (S-13).
    pub forward_echo_reply: bool,
    /// Whether packets of clients are forwarded to clients of other servers (DEC-8).
    pub forward_foreign: bool,
    /// Largest ICMPv6 message that is forwarded or answered, in octets (DEC-20).
    pub icmpv6_payload: u16,
    /// Outer sources that are served (S-24); all of them if this is empty.
    pub allow: Vec<Ipv4Net>,
    /// Limits on what is sent because of one source, one network, and in total (S-23).
    pub limits: Limits,
}

/// A client that has a key.
#[derive(Clone, Debug)]
pub struct RegisteredClient {
    /// Client identification, at most 255 octets.
    pub id: Vec<u8>,
    /// The client's key.
    pub key: Key,
    /// Retired keys, which still work but are reported.
    pub retired: Vec<Key>,
    /// The /64 that the client has wherever it is, if it is one of the tunnel service (T-01). Its
    /// prefix is unique among the clients.
    pub prefix: Option<Ipv6Net>,
}

impl Config {
    /// Creates the default configuration of a server with these two addresses. The caller replaces
    /// the seed of [`Config::limits`] by a random number.
    pub fn new(primary: Ipv4Addr, secondary: Ipv4Addr) -> Self {
        Self {
            primary,
            secondary,
            port: SERVER_PORT,
            prefixes: vec![ServicePrefix::STANDARD],
            own_ipv4: Vec::new(),
            relay: None,
            ipv4_scope: Ipv4Scope::Strict,
            mtu: Some(MTU),
            require_authentication: false,
            clients: Vec::new(),
            forward_echo: true,
            forward_echo_reply: false,
            forward_foreign: false,
            icmpv6_payload: 88,
            allow: Vec::new(),
            limits: Limits {
                seed: 0,
                source: Rate::new(10, 20),
                network: Rate::new(100, 200),
                total: Rate::new(1_000_000, 100_000),
            },
        }
    }
}
