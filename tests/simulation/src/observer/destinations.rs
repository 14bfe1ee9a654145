//! The permitted destinations of datagrams.

use std::collections::BTreeSet;

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    scope::Ipv4Scope,
};
use teredo_proto::wire::{
    encapsulation::Encapsulation,
    ipv6::Header,
    trailer::{self, Trailer},
};

use super::Violation;
use crate::node::Node;

/// Endpoints that are not global but permitted, because they are of peers behind the same NAT.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    nearby: BTreeSet<Endpoint>,
}

impl Destinations {
    /// Notes a neighbour that has announced itself on the link.
    pub fn discovered(&mut self, from: Endpoint) {
        self.nearby.insert(from);
    }

    /// Notes endpoints of a peer behind the same NAT: its alternate addresses, and the
    /// source of its bubbles once it has proved that it is there.
    pub fn arrived(
        &mut self,
        node: &Node,
        from: Endpoint,
        is_proved: bool,
        parts: &Encapsulation<'_>,
    ) {
        let (Node::Client(client), Ok(header)) = (node, Header::parse(parts.packet)) else {
            return;
        };
        let own = client.client.identity().map(|own| own.mapped.address);
        if own != Some(embedded_mapping(&header.source()).address) {
            return;
        }
        if is_proved {
            self.nearby.insert(from);
        }
        for trailer in trailer::parse(parts.trailers) {
            if let Ok(Trailer::AlternateAddresses(list)) = trailer {
                self.nearby.extend(list.endpoints());
            }
        }
    }

    pub fn sent(&mut self, node: &Node, to: Endpoint) -> Result<(), Violation> {
        let refuse = |why: &str| Err(format!("{} sends to {to}: {why}", name(node)));
        if to.port() == 0 {
            return refuse("port 0");
        }
        if node.ipv4().contains(&to.ip()) {
            return refuse("its own address (L-02)");
        }
        if !Ipv4Scope::Lab.accepts(to.address) {
            return refuse("never unicast (L-05)");
        }
        if !Ipv4Scope::Strict.accepts(to.address) && !self.nearby.contains(&to) {
            return refuse("not global, and no neighbour has it (L-05, X-53)");
        }
        if let Node::Client(client) = node
            && client.client.identity().is_some_and(|own| own.mapped == to)
        {
            return refuse("its own mapped endpoint (L-02)");
        }
        Ok(())
    }
}

/// The kind of a node.
pub(super) const fn name(node: &Node) -> &'static str {
    match node {
        Node::Server(_) => "the server",
        Node::Relay(_) => "the relay",
        Node::Client(_) => "a client",
        Node::Host(_) => "a host",
        Node::Probe(_) => "a probe",
    }
}
