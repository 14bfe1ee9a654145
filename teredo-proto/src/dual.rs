//! The common entry of a server and a relay that share one UDP port (requirement S-30).

use std::net::Ipv4Addr;

use teredo_common::{
    address::{ServicePrefix, server_link_local},
    scope::is_link_local,
    time::Instant,
    wire::ALL_ROUTERS,
};

use crate::relay::Relay;
use crate::wire::{encapsulation, ipv6::Header};

/// Which of the two a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server: what it does not want either is its to count.
    Server,
    /// The relay.
    Relay,
}

/// The common entry of a server and a relay.
#[derive(Clone, Debug)]
pub struct Entry {
    link_local: [u8; 16],
    prefixes: Vec<ServicePrefix>,
}

impl Entry {
    /// For the server with this primary address and port, and these service prefixes.
    #[must_use]
    pub fn new(primary: Ipv4Addr, port: u16, prefixes: Vec<ServicePrefix>) -> Self {
        Self {
            link_local: server_link_local(primary, port).octets(),
            prefixes,
        }
    }

    /// Whom the UDP payload of a datagram to the common port is for. The relay gets the packets
    /// of the peers that it knows, and the bubbles that bring its cookies back; never one to
    /// another Teredo client.
    #[must_use]
    pub fn role(&self, relay: &Relay, now: Instant, payload: &[u8]) -> Role {
        let Ok(parts) = encapsulation::parse(payload) else {
            return Role::Server;
        };
        let Ok(header) = Header::parse(parts.packet) else {
            return Role::Server;
        };
        let (source, destination) = (header.source(), header.destination());
        let is_for_server = parts.authentication.is_some()
            || parts.origin.is_some()
            || destination == ALL_ROUTERS
            || destination == self.link_local
            || self.is_teredo(&destination)
            || !self.is_teredo(&source);
        if is_for_server {
            return Role::Server;
        }
        if is_link_local(&destination) && header.is_bubble() || relay.is_usable(now, &source) {
            return Role::Relay;
        }
        // A connectivity test, or nothing that anybody wants.
        Role::Server
    }

    fn is_teredo(&self, address: &[u8; 16]) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }
}
