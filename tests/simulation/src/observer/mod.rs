//! The rules that hold for every node after every action, judged from the wire.
//!
//! | Module | Rule |
//! |---|---|
//! | [`destinations`] | Datagrams go to permitted destinations only (L-02, L-05, L-06). |
//! | [`bubbles`] | Bubbles to a peer are two seconds apart, and rare after four without answer (P-09). |
//! | [`trust`] | A trusted peer has proved that it is at the endpoint used for it (P-08, R-35). |
//! | [`packets`] | No packet of a host is multiplied, or carried by a server (L-08, S-05). |
//! | [`solicitations`] | Servers are solicited at most once in two seconds (C-46). |
//! | [`bounds`] | Tables and queues are bounded (P-06, P-07). |
//! | [`addresses`] | A client has one address, and sends from no other (C-45). |
//!
//! Every chain of packets from one stimulus ends (L-09), and a client is woken a bounded number of
//! times at one moment.

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

/// Longest chain of nodes that send a packet because of the previous node's packet. The longest
/// legitimate chain is a first request to a native host, which answers it and is answered.
const LONGEST_CHAIN: u16 = 24;

/// A broken rule, with a description of the violation.
type Violation = String;

/// Watches all nodes.
#[derive(Debug, Default)]
pub(super) struct Observer {
    trace: trace::Trace,
    nodes: BTreeMap<NodeId, Watched>,
    /// The proofs that nodes got; those of a fleet are those of its first relay.
    trusts: BTreeMap<NodeId, trust::Trust>,
    /// The first relay of the fleet that a relay is in.
    fleets: BTreeMap<NodeId, NodeId>,
    packets: packets::Packets,
    longest_chain: u16,
}

/// The observations of one node.
#[derive(Debug, Default)]
struct Watched {
    addresses: addresses::Addresses,
    bubbles: bubbles::Bubbles,
    destinations: destinations::Destinations,
    solicitations: solicitations::Solicitations,
}

impl Observer {
    /// The last events, for a reader.
    pub fn recent(&self) -> String {
        self.trace.to_string()
    }

    /// Forgets what a node did that has no memory of it any more.
    pub fn restarted(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        if !self.fleets.contains_key(&id) {
            self.trusts.remove(&id);
        }
    }

    /// Notes that what one of these relays is shown is proved to all.
    pub fn joined_fleet(&mut self, relays: &[NodeId]) {
        let first = relays.iter().copied().min();
        let pairs = relays.iter().copied().zip(std::iter::repeat(first));
        (self.fleets).extend(pairs.filter_map(|(id, first)| Some((id, first?))));
    }

    /// The node whose proofs are those of this one.
    fn prover(&self, id: NodeId) -> NodeId {
        self.fleets.get(&id).copied().unwrap_or(id)
    }

    /// Notes a datagram before it is handled.
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
        let trust = self.trusts.entry(self.prover(id)).or_default();
        trust.arrived(node, from, &parts);
        let is_proved = trust.is_proved(from, &parts);
        let watched = self.nodes.entry(id).or_default();
        watched.destinations.arrived(node, from, is_proved, &parts);
        self.answered(id, node, from, &parts);
        self.packets.arrived(id, parts.packet);
    }

    /// Notes what may answer the bubbles of a node. Those of a fleet tell each other.
    fn answered(&mut self, id: NodeId, node: &Node, from: Endpoint, parts: &Encapsulation<'_>) {
        let prover = self.prover(id);
        for (other, watched) in &mut self.nodes {
            if self.fleets.get(other).unwrap_or(other) == &prover {
                watched.bubbles.arrived(node, from, parts);
            }
        }
    }

    /// Notes a discovery bubble before it is handled.
    pub fn discovered(&mut self, now: Instant, id: NodeId, from: Endpoint, payload: &[u8]) {
        self.trace
            .arrived(now, id, from, Endpoint::default(), payload);
        if let Ok(parts) = encapsulation::parse(payload) {
            let watched = self.nodes.entry(id).or_default();
            watched.destinations.discovered(from);
            let trust = self.trusts.entry(self.prover(id)).or_default();
            trust.discovered(from, &parts);
        }
    }

    /// Notes a packet from native IPv6 before it is handled.
    pub fn arrived_ipv6(&mut self, now: Instant, id: NodeId, packet: &[u8]) {
        let nowhere = Endpoint::default();
        self.trace.arrived(now, id, nowhere, nowhere, packet);
        self.packets.arrived(id, packet);
    }

    /// Judges the output of a node.
    ///
    /// # Panics
    ///
    /// Returns the rule that the output breaks.
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
        // The rules are those of roles. A measurement talks to the server and to its own host.
        if matches!(node, Node::Probe(_)) {
            return Ok(());
        }
        let clock = match node {
            Node::Client(client) => client.clock(now),
            _ => now,
        };
        let prover = self.prover(id);
        let trust = self.trusts.entry(prover).or_default();
        let watched = self.nodes.entry(id).or_default();
        for packet in output {
            match packet {
                Output::Datagram { from, to, payload } => {
                    let Ok(parts) = encapsulation::parse(payload) else {
                        return Err(format!(
                            "{node:?} sends a datagram that is not Teredo: {payload:?}"
                        ));
                    };
                    watched.sent(clock, node, *from, *to, &parts)?;
                    trust.sent(*to, &parts);
                    self.packets.sent(id, node, parts.packet)?;
                }
                Output::Multicast { .. } | Output::Fleet(_) => (),
                Output::Ipv6(packet) => self.packets.sent(id, node, packet)?,
            }
        }
        if watched.addresses.settled(node)? {
            watched.bubbles.forgotten();
        }
        trust.settled(node)?;
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
        Ok(())
    }
}
