//! Bounds of tables and queues.

use super::Violation;
use crate::node::Node;

/// Ports that a client may have open besides the service port, for each peer that it knows; and
/// the secondary port.
const PORTS_FOR_PEER: usize = 2;

pub(super) fn settled(node: &Node) -> Result<(), Violation> {
    let (what, is, may_be) = match node {
        Node::Client(client) => {
            let (config, statistics) = (&client.config, client.client.statistics());
            let peers = client.client.peers().count();
            let ports = client.open_ports().len();
            let queued = client.client.peers().map(|peer| peer.queued).max();
            [
                ("peers", peers, config.max_peers),
                ("queued packets", queued.unwrap_or(0), config.queue_per_peer),
                (
                    "queued octets",
                    statistics.queue_octets,
                    config.queue_total_bytes,
                ),
                ("open ports", ports, 2 + PORTS_FOR_PEER * peers),
            ]
            .into_iter()
            .find(|&(_, is, may_be)| is > may_be)
        }
        Node::Relay(relay) => {
            let (config, statistics) = (&relay.config, relay.relay.statistics());
            let queued = relay.relay.peers().map(|peer| peer.queued).max();
            [
                ("peers", relay.relay.peers().count(), config.max_peers),
                ("queued packets", queued.unwrap_or(0), config.queue_per_peer),
                (
                    "queued octets",
                    statistics.queue_octets,
                    config.queue_total_bytes,
                ),
            ]
            .into_iter()
            .find(|&(_, is, may_be)| is > may_be)
        }
        Node::Server(_) | Node::Host(_) | Node::Probe(_) => None,
    }
    .unwrap_or(("", 0, 0));
    if is > may_be {
        return Err(format!("{is} {what}, the maximum is {may_be}"));
    }
    Ok(())
}
