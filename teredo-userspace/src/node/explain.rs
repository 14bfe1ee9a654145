//! The node's part of explanations.

use std::net::Ipv6Addr;

use teredo_common::time::Instant;

use super::{
    Node, clock,
    parameters::random,
    requests::{client_peer, relay_peer},
};
use crate::{
    api::types::Status,
    explain::{Facts, KnownPeer, Question, RelayFacts, ServerFacts},
};

impl Node {
    /// Copies what decides about packets of the peers in question: their entries, and the tables of the
    /// limits. The time for it does not depend on the number of peers.
    pub(super) fn facts(&self, question: &Question) -> Facts {
        let now = clock::now();
        let addresses: Vec<_> = question.addresses.iter().map(Ipv6Addr::octets).collect();
        // The seed makes the bubbles of copies, which nobody sends.
        let seed = random().unwrap_or_default();
        let relay = self.roles.relay.as_ref().map(|role| {
            let relay = role.relay();
            let machine = relay.copy(now, seed, &addresses);
            RelayFacts {
                config: machine.config().clone(),
                machine,
                queued: relay.statistics().queue_octets,
            }
        });
        let server = self.roles.server.as_ref().map(|role| ServerFacts {
            machine: role.protocol().copy(now),
            config: role.parameters().clone(),
        });
        let client = self.client.as_ref();
        let known = question.addresses.iter();
        let status = Status::from(&self.snapshot());
        Facts {
            peers: known
                .filter_map(|address| self.known_peer(*address, now))
                .collect(),
            relay,
            server,
            client: client.map(|role| role.client.copy(now, seed)),
            fast_path: self.fast_path.copy(
                &self.upkeep.snapshot,
                &self.roles.in_program(&self.config),
                &question.addresses,
                now,
            ),
            ..Facts::new(now, status, self.config.node.prefix)
        }
    }

    fn known_peer(&self, address: Ipv6Addr, now: Instant) -> Option<KnownPeer> {
        let octets = address.octets();
        let mut known = if let Some(role) = &self.roles.relay {
            let relay = role.relay();
            let slot = relay.slot(&octets)?;
            let (_, peer) = relay.peers_in(slot..slot + 1).next()?;
            KnownPeer {
                peer: relay_peer(&peer, self.counts_traffic(), now),
                queued: peer.queued,
                unanswered: relay.unanswered(&octets),
                elsewhere: None,
            }
        } else {
            let client = &self.client.as_ref()?.client;
            let peer = client.peers().find(|peer| peer.address == address)?;
            KnownPeer {
                peer: client_peer(&peer, self.config.node.prefix, now),
                queued: peer.queued,
                unanswered: client.unanswered(&octets),
                elsewhere: peer.elsewhere.map(|(relay, last)| {
                    let seconds = now.saturating_since(last).as_secs_f64();
                    (relay.into(), seconds)
                }),
            }
        };
        known.peer.xdp = self.fast_path.has(&octets);
        Some(known)
    }
}
