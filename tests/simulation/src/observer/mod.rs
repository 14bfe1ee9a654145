//! What holds for every node after everything it does, judged from the wire.
//!
//! | Module | Holds always |
//! |---|---|
//! | [`destinations`] | No datagram goes where none may go (L-02, L-05, L-06). |
//! | [`bubbles`] | Two seconds between bubbles to a peer, four without answer (P-09). |
//! | [`trust`] | Who is trusted has proved to be where packets are sent (P-08). |
//! | [`packets`] | No packet of a host is multiplied, or carried by a server (L-08, S-05). |
//! | [`solicitations`] | Servers are not asked more often than once in two seconds (C-46). |
//! | [`bounds`] | Tables and queues are bounded (P-06, P-07). |
//! | [`addresses`] | A client has one address, and sends from no other (C-45). |
//!
//! What follows from one stimulus ends (L-09), and a client is woken at one moment a bounded number
//! of times.

mod addresses;
mod bounds;
mod bubbles;
mod destinations;
mod packets;
mod solicitations;
mod trace;
mod trust;

use std::collections::BTreeMap;

use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::wire::encapsulation::{self, Encapsulation};

use super::{
    node::{Node, Output},
    world::NodeId,
};

/// How many nodes may, one after the other, send something because something arrived. The longest
/// way is that of a first request to a native host that answers it, and is answered.
const LONGEST_CHAIN: u16 = 24;

/// A rule that was broken: what happened.
type Violation = String;

/// Watches all nodes.
#[derive(Debug, Default)]
pub(super) struct Observer {
    trace: trace::Trace,
    nodes: BTreeMap<NodeId, Watched>,
    packets: packets::Packets,
    longest_chain: u16,
}

/// What was seen of one node.
#[derive(Debug, Default)]
struct Watched {
    addresses: addresses::Addresses,
    bubbles: bubbles::Bubbles,
    destinations: destinations::Destinations,
    solicitations: solicitations::Solicitations,
    trust: trust::Trust,
}

impl Observer {
    /// The last things that happened, for a reader.
    pub fn recent(&self) -> String {
        self.trace.to_string()
    }

    /// A datagram is about to be handled.
    pub fn arrived(
        &mut self,
        now: Instant,
        id: NodeId,
        node: &Node,
        from: Endpoint,
        to: Endpoint,
        payload: &[u8],
    ) {
        self.trace.arrived(now, id, from, to, payload);
        let Ok(parts) = encapsulation::parse(payload) else {
            return;
        };
        let watched = self.nodes.entry(id).or_default();
        watched.bubbles.arrived(node, from, &parts);
        watched.trust.arrived(node, from, &parts);
        let is_proved = watched.trust.is_proved(from, &parts);
        watched.destinations.arrived(node, from, is_proved, &parts);
        self.packets.arrived(id, parts.packet);
    }

    /// A discovery bubble is about to be handled.
    pub fn discovered(&mut self, now: Instant, id: NodeId, from: Endpoint, payload: &[u8]) {
        self.trace
            .arrived(now, id, from, Endpoint::default(), payload);
        if let Ok(parts) = encapsulation::parse(payload) {
            let watched = self.nodes.entry(id).or_default();
            watched.destinations.discovered(from);
            watched.trust.discovered(from, &parts);
        }
    }

    /// A packet from native IPv6 is about to be handled.
    pub fn arrived_ipv6(&mut self, now: Instant, id: NodeId, packet: &[u8]) {
        let nowhere = Endpoint::default();
        self.trace.arrived(now, id, nowhere, nowhere, packet);
        self.packets.arrived(id, packet);
    }

    /// A node has done something.
    ///
    /// # Panics
    ///
    /// If that breaks a rule.
    pub fn acted(&mut self, now: Instant, id: NodeId, node: &Node, depth: u16, output: &[Output]) {
        self.trace.acted(now, id, output);
        self.longest_chain = self.longest_chain.max(depth);
        if let Err(violation) = self.check(now, id, node, output) {
            panic!("{violation}\n{}", self.trace);
        }
        assert!(
            output.is_empty() || depth < LONGEST_CHAIN,
            "one stimulus keeps {depth} nodes busy\n{}",
            self.trace
        );
    }

    fn check(
        &mut self,
        now: Instant,
        id: NodeId,
        node: &Node,
        output: &[Output],
    ) -> Result<(), Violation> {
        let clock = match node {
            Node::Client(client) => client.clock(now),
            _ => now,
        };
        let watched = self.nodes.entry(id).or_default();
        for one in output {
            match one {
                Output::Datagram { from, to, payload } => {
                    let Ok(parts) = encapsulation::parse(payload) else {
                        return Err(format!("{node:?} sends what is not Teredo: {payload:?}"));
                    };
                    watched.sent(clock, node, *from, *to, &parts)?;
                    self.packets.sent(id, node, parts.packet)?;
                }
                Output::Multicast { .. } => (),
                Output::Ipv6(packet) => self.packets.sent(id, node, packet)?,
            }
        }
        if watched.addresses.settled(node)? {
            watched.bubbles.forgotten();
        }
        watched.trust.settled(node)?;
        bounds::settled(node)
    }
}

impl Watched {
    fn sent(
        &mut self,
        now: Instant,
        node: &Node,
        from: Endpoint,
        to: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), Violation> {
        self.destinations.sent(node, to)?;
        self.bubbles.sent(now, node, (from, to), parts)?;
        self.solicitations.sent(now, node, from, to, parts)?;
        self.addresses.sent(node, parts)?;
        self.trust.sent(parts);
        Ok(())
    }
}
