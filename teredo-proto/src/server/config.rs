//! What a server is told when it starts.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    limiter::{Limits, Rate},
    scope::Ipv4Scope,
    wire::{MTU, SERVER_PORT},
};

use crate::wire::authentication::Key;

/// What a server is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address that clients' addresses name.
    pub primary: Ipv4Addr,
    /// The other one (S-01).
    pub secondary: Ipv4Addr,
    /// UDP port on both, host byte order.
    pub port: u16,
    /// Prefixes of the clients that are served; the first is advertised. At least one.
    pub prefixes: Vec<ServicePrefix>,
    /// See [`super::Server::set_own_addresses`].
    pub own_ipv4: Vec<Ipv4Addr>,
    /// The endpoint of the relay in the same process (S-30).
    pub relay: Option<Endpoint>,
    /// Which IPv4 addresses are global unicast (L-05).
    pub ipv4_scope: Ipv4Scope,
    /// The MTU that is advertised, in octets; `None` leaves the option out.
    pub mtu: Option<u16>,
    /// Solicitations without valid authentication of a known client are dropped (S-07).
    pub require_authentication: bool,
    /// Who has a key. Identifications and prefixes are unique: what is there twice counts once.
    pub clients: Vec<Client>,
    /// Echo requests of clients leave for native IPv6 (S-13).
    pub forward_echo: bool,
    /// Echo replies of clients leave for native IPv6 (S-13).
    pub forward_echo_reply: bool,
    /// Packets of clients are forwarded to clients of other servers (DEC-8).
    pub forward_foreign: bool,
    /// The most octets of ICMPv6 in a packet (DEC-20).
    pub icmpv6_payload: u16,
    /// The outer sources that are served (S-24); all if there are none.
    pub allow: Vec<Ipv4Net>,
    /// How often something is sent (S-23).
    pub limits: Limits,
}

/// A client that has a key.
#[derive(Clone, Debug)]
pub struct Client {
    /// Client identification: up to 255 octets.
    pub id: Vec<u8>,
    /// Its key.
    pub key: Key,
    /// Keys that it had before, and should use no more.
    pub retired: Vec<Key>,
    /// The /64 that it has wherever it is: makes it a client of the tunnel service (T-01).
    pub prefix: Option<Ipv6Net>,
}

impl Config {
    /// The defaults for a server with these two addresses. The limits' seed is to be replaced by a
    /// random number.
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
