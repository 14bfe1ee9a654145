//! The machines of the simulation: our server, relay and client, unmodified, and IPv6 hosts.

mod client;
mod fast_path;
mod probe;
mod relay;
mod server;

use std::net::{Ipv4Addr, Ipv6Addr};

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{fleet, probe::Measurement as _};

pub use client::ClientNode;
pub use fast_path::FastPath;
pub use probe::ProbeNode;
pub use relay::{Membership, RelayNode};
pub use server::ServerNode;

use super::stack::Stack;

/// A packet that a node puts on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A UDP datagram.
    Datagram {
        /// The node's own endpoint.
        from: Endpoint,
        /// Destination endpoint.
        to: Endpoint,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// A discovery bubble to all nodes on the link.
    Multicast {
        /// The node's own endpoint.
        from: Endpoint,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// A packet for native IPv6.
    Ipv6(Vec<u8>),
    /// A datagram to another relay of the fleet.
    Fleet(fleet::Transmit),
}

/// A machine.
#[derive(Debug)]
pub enum Node {
    /// A Teredo server.
    Server(Box<ServerNode>),
    /// A Teredo relay.
    Relay(Box<RelayNode>),
    /// A host with a Teredo client.
    Client(Box<ClientNode>),
    /// A host with native IPv6.
    Host(HostNode),
    /// A host that measures its NAT.
    Probe(Box<ProbeNode>),
}

/// A host with native IPv6 and nothing else.
#[derive(Debug)]
pub struct HostNode {
    /// The host's address.
    pub address: Ipv6Addr,
    /// Packets received.
    pub stack: Stack,
}

impl Node {
    /// The node's IPv4 addresses.
    pub(super) fn ipv4(&self) -> Vec<Ipv4Addr> {
        match self {
            Self::Server(server) => server.addresses().to_vec(),
            Self::Relay(relay) => vec![relay.endpoint.ip()],
            Self::Client(client) => vec![client.ipv4],
            Self::Host(_) => Vec::new(),
            Self::Probe(probe) => vec![probe.ipv4],
        }
    }

    /// The node's native IPv6 address.
    pub(super) fn ipv6(&self) -> Option<Ipv6Addr> {
        match self {
            Self::Relay(relay) => Some(relay.ipv6),
            Self::Host(host) => Some(host.address),
            Self::Server(_) | Self::Client(_) | Self::Probe(_) => None,
        }
    }

    /// The packets that the node's applications have received, if it has any.
    #[must_use]
    pub fn stack(&self) -> Option<&Stack> {
        match self {
            Self::Client(client) => Some(&client.stack),
            Self::Host(host) => Some(&host.stack),
            Self::Relay(relay) => relay.stack(),
            Self::Server(_) | Self::Probe(_) => None,
        }
    }

    /// Handles a datagram for one of the node's addresses.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        payload: Vec<u8>,
        output: &mut Vec<Output>,
    ) {
        match self {
            Self::Server(server) => server.handle_datagram(now, from, to, &payload, output),
            Self::Relay(relay) => relay.handle_datagram(now, from, to, payload, output),
            Self::Client(client) => client.handle_datagram(now, from, to, payload, output),
            Self::Probe(probe) => probe.handle_datagram(now, from, to, &payload, output),
            Self::Host(_) => (),
        }
    }

    /// Handles a discovery bubble from another node on the link.
    pub(super) fn handle_multicast(
        &mut self,
        now: Instant,
        from: Endpoint,
        payload: &[u8],
        output: &mut Vec<Output>,
    ) {
        if let Self::Client(client) = self {
            client.handle_multicast(now, from, payload, output);
        }
    }

    /// Handles a packet that native IPv6 has routed to the node.
    pub(super) fn handle_ipv6(&mut self, now: Instant, packet: Vec<u8>, output: &mut Vec<Output>) {
        match self {
            Self::Relay(relay) => relay.handle_ipv6(now, packet, output),
            Self::Host(host) => {
                let answer = host.stack.handle(now, host.address, &packet);
                output.extend(answer.map(Output::Ipv6));
            }
            Self::Server(_) | Self::Client(_) | Self::Probe(_) => (),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, output: &mut Vec<Output>) {
        match self {
            Self::Relay(relay) => relay.handle_timeout(now, output),
            Self::Client(client) => client.handle_timeout(now, output),
            Self::Probe(probe) => probe.handle_timeout(now, output),
            Self::Server(_) | Self::Host(_) => (),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Relay(relay) => relay.poll_timeout(),
            Self::Client(client) => client.poll_timeout(),
            Self::Probe(probe) => probe.probe.poll_timeout(),
            Self::Server(_) | Self::Host(_) => None,
        }
    }
}
