//! The packets of hosts: none is multiplied or lost to a server.

use std::collections::HashMap;

use super::{Violation, destinations::name};
use crate::{
    node::Node,
    packet::{self, Message},
    world::NodeId,
};

/// Requests and replies, with the number of times that each came to a node and left it.
#[derive(Debug, Default)]
pub(super) struct Packets {
    came: HashMap<(NodeId, u64, bool), usize>,
    left: HashMap<(NodeId, u64, bool), usize>,
}

impl Packets {
    pub fn arrived(&mut self, id: NodeId, packet: &[u8]) {
        if let Some((number, is_reply)) = number(packet) {
            *self.came.entry((id, number, is_reply)).or_default() += 1;
        }
    }

    pub fn sent(&mut self, id: NodeId, node: &Node, packet: &[u8]) -> Result<(), Violation> {
        let Some((number, is_reply)) = number(packet) else {
            return Ok(());
        };
        let came = |is_reply| self.came.get(&(id, number, is_reply)).copied();
        let allowed = match node {
            Node::Server(_) | Node::Probe(_) => 0,
            // A host sends a request once, and one reply for each request received.
            Node::Client(_) | Node::Host(_) if is_reply => came(false).unwrap_or(0),
            Node::Client(_) | Node::Host(_) => 1,
            Node::Relay(relay) if relay.config.host_specific && is_reply => {
                came(false).unwrap_or(0)
            }
            Node::Relay(relay) if relay.config.host_specific => 1,
            Node::Relay(_) => came(is_reply).unwrap_or(0),
        };
        let left = self.left.entry((id, number, is_reply)).or_default();
        *left += 1;
        if *left > allowed {
            let kind = if is_reply { "reply" } else { "request" };
            let name = name(node);
            return Err(format!(
                "{name} sends {kind} {number} {left} times, not {allowed}"
            ));
        }
        Ok(())
    }
}

fn number(packet: &[u8]) -> Option<(u64, bool)> {
    match packet::read(packet) {
        Message::Request(number) => Some((number, false)),
        Message::Reply(number) => Some((number, true)),
        _ => None,
    }
}
