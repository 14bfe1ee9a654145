//! Tells the datagrams of a server from those of a relay where both share one UDP port (requirement
//! S-30).

use std::net::Ipv4Addr;

use teredo_common::{
    address::{ServicePrefix, server_link_local},
    scope::is_link_local,
    time::Instant,
    wire::ALL_ROUTERS,
};

use crate::relay::Relay;
use crate::wire::{encapsulation, ipv6::Header};

/// The machine that a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The server, which also counts the datagrams that neither of the two accepts.
    Server,
    /// The relay.
    Relay,
}

/// A UDP port that a server and a relay share.
#[derive(Clone, Debug)]
pub struct SharedPort {
    link_local: [u8; 16],
    prefixes: Vec<ServicePrefix>,
}

impl SharedPort {
    /// Creates the port of the server with this primary address and port (host byte order), and
    /// these service prefixes.
    #[must_use]
    pub fn new(primary: Ipv4Addr, port: u16, prefixes: Vec<ServicePrefix>) -> Self {
        Self {
            link_local: server_link_local(primary, port).octets(),
            prefixes,
        }
    }

    /// Returns the machine that the UDP payload of a datagram to the shared port is for. The relay
    /// gets the packets of the peers that it knows and the bubbles that bring its cookies back, and
    /// never a packet to another Teredo client.
    #[must_use]
    pub fn recipient(&self, relay: &Relay, now: Instant, payload: &[u8]) -> Recipient {
        let Ok(parts) = encapsulation::parse(payload) else {
            return Recipient::Server;
        };
        let Ok(header) = Header::parse(parts.packet) else {
            return Recipient::Server;
        };
        let (source, destination) = (header.source(), header.destination());
        let is_for_server = parts.authentication.is_some()
            || parts.origin.is_some()
            || destination == ALL_ROUTERS
            || destination == self.link_local
            || self.is_teredo(&destination)
            || !self.is_teredo(&source);
        if is_for_server {
            return Recipient::Server;
        }
        if is_link_local(&destination) && header.is_bubble() || relay.is_usable(now, &source) {
            return Recipient::Relay;
        }
        // A connectivity test, or nothing that anybody wants.
        Recipient::Server
    }

    fn is_teredo(&self, address: &[u8; 16]) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }
}
