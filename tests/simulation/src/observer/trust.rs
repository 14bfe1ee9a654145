//! The trust in peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_mapping},
    wire::{ECHO_REPLY, ECHO_REQUEST, ICMPV6, IPV6_HEADER},
};
use teredo_proto::wire::{
    encapsulation::Encapsulation,
    ipv6::Header,
    trailer::{self, Trailer},
};

use super::{Violation, destinations::name};
use crate::node::Node;

/// Longest part of an echo that is compared: its identifier, sequence number and data.
const ECHO: std::ops::RangeFrom<usize> = IPV6_HEADER + 4..;

/// Secrets that were sent to one receiver each, and the endpoints that proved to know them.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Nonces of indirect bubbles, by peer.
    nonces: BTreeMap<[u8; 16], BTreeSet<[u8; 4]>>,
    /// Identifiers, sequence numbers and nonces of connectivity tests, by host.
    echoes: BTreeMap<[u8; 16], BTreeSet<Vec<u8>>>,
    /// Sources of bubbles, by peer: a relay's are cookies.
    sources: BTreeMap<[u8; 16], BTreeSet<[u8; 16]>>,
    /// Sources of peers' discovery bubbles.
    discovered: BTreeSet<([u8; 16], Endpoint)>,
    /// Peers and endpoints that belong together.
    proved: BTreeSet<([u8; 16], Endpoint)>,
    /// What was sent to one endpoint of a peer alone: sources of bubbles, and echoes.
    questions: BTreeMap<([u8; 16], Endpoint), BTreeSet<Vec<u8>>>,
    /// Peers, and endpoints that something came back from.
    confirmed: BTreeSet<([u8; 16], Endpoint)>,
}

impl Trust {
    pub fn sent(&mut self, to: Endpoint, parts: &Encapsulation<'_>) {
        let Ok(header) = Header::parse(parts.packet) else {
            return;
        };
        let peer = header.destination();
        let question = match echo(parts, ECHO_REQUEST) {
            Some(echo) => echo.to_vec(),
            None => header.source().to_vec(),
        };
        let questions = self.questions.entry((peer, to)).or_default();
        questions.insert(question);
        if header.is_bubble() {
            let sources = self.sources.entry(peer).or_default();
            sources.insert(header.source());
            self.nonces.entry(peer).or_default().extend(nonce(parts));
        }
        if let Some(echo) = echo(parts, ECHO_REQUEST) {
            self.echoes.entry(peer).or_default().insert(echo.to_vec());
        }
    }

    pub fn discovered(&mut self, from: Endpoint, parts: &Encapsulation<'_>) {
        if let Ok(header) = Header::parse(parts.packet) {
            self.discovered.insert((header.source(), from));
        }
    }

    pub fn arrived(&mut self, node: &Node, from: Endpoint, parts: &Encapsulation<'_>) {
        let Ok(header) = Header::parse(parts.packet) else {
            return;
        };
        let peer = header.source();
        let answer = match echo(parts, ECHO_REPLY) {
            Some(echo) => echo.to_vec(),
            None => header.destination().to_vec(),
        };
        let questions = self.questions.get(&(peer, from));
        if questions.is_some_and(|questions| questions.contains(&answer)) {
            self.confirmed.insert((peer, from));
        }
        let is_teredo = ServicePrefix::STANDARD.contains(&peer);
        let knows_nonce = nonce(parts).is_some_and(|nonce| {
            let nonces = self.nonces.get(&peer);
            nonces.is_some_and(|nonces| nonces.contains(&nonce))
        });
        // A relay's cookie.
        let knows_cookie = matches!(node, Node::Relay(_))
            && header.is_bubble()
            && self
                .sources
                .get(&peer)
                .is_some_and(|sources| sources.contains(&header.destination()));
        let is_embedded = is_teredo && embedded_mapping(&peer) == from;
        let is_discovered = self.discovered.contains(&(peer, from));
        if is_embedded || is_discovered || knows_nonce || knows_cookie {
            self.proved.insert((peer, from));
        }
        let knows_echo = echo(parts, ECHO_REPLY).is_some_and(|echo| {
            let echoes = self.echoes.get(&peer);
            echoes.is_some_and(|echoes| echoes.contains(echo))
        });
        if knows_echo || refuses_echo(&self.echoes, &header, parts) {
            // The server's origin indication names the sender (C-36).
            self.proved.insert((peer, parts.origin.unwrap_or(from)));
            self.proved.insert((peer, from));
        }
    }

    /// Whether the sender of a packet proved to be where it came from.
    pub fn is_proved(&self, from: Endpoint, parts: &Encapsulation<'_>) -> bool {
        Header::parse(parts.packet)
            .is_ok_and(|header| self.proved.contains(&(header.source(), from)))
    }

    pub fn settled(&self, node: &Node) -> Result<(), Violation> {
        let check = |peer: Ipv6Addr, mapped: Endpoint| {
            if self.proved.contains(&(peer.octets(), mapped)) {
                return Ok(());
            }
            Err(format!(
                "{} trusts {peer} at {mapped} without proof (P-08)",
                name(node)
            ))
        };
        match node {
            Node::Relay(relay) => {
                let mut peers = relay.relay.peers().filter(|peer| peer.trusted);
                peers.try_for_each(|peer| check(peer.address, peer.mapped))?;
                let confirmed = |address: Ipv6Addr, mapped| {
                    if self.confirmed.contains(&(address.octets(), mapped)) {
                        return Ok(());
                    }
                    Err(format!(
                        "a relay serves {address} at {mapped}, where nothing came back from (R-35)"
                    ))
                };
                let mut peers = relay.relay.peers().filter(|peer| peer.proved);
                peers.try_for_each(|peer| confirmed(peer.address, peer.mapped))?;
                let mut result = Ok(());
                if let Some(fast_path) = &relay.fast_path {
                    fast_path.for_each_peer(|address, mapped| {
                        if result.is_ok() {
                            result = confirmed(address, mapped);
                        }
                    });
                }
                result
            }
            Node::Client(client) => {
                let mut peers = client.client.peers().filter(|peer| peer.trusted);
                peers.try_for_each(|peer| check(peer.address, peer.mapped))
            }
            Node::Server(_) | Node::Host(_) | Node::Probe(_) => Ok(()),
        }
    }
}

fn nonce(parts: &Encapsulation<'_>) -> Option<[u8; 4]> {
    trailer::parse(parts.trailers).find_map(|trailer| match trailer {
        Ok(Trailer::Nonce(nonce)) => Some(nonce),
        _ => None,
    })
}

/// The payload of an echo of this type.
fn echo<'p>(parts: &Encapsulation<'p>, kind: u8) -> Option<&'p [u8]> {
    let header = Header::parse(parts.packet).ok()?;
    let is_echo = header.next_header() == ICMPV6 && parts.packet.get(IPV6_HEADER) == Some(&kind);
    parts.packet.get(ECHO).filter(|_| is_echo)
}

/// The quoted payload: a host that refuses pings quotes them (C-57).
fn refuses_echo(
    echoes: &BTreeMap<[u8; 16], BTreeSet<Vec<u8>>>,
    header: &Header<'_>,
    parts: &Encapsulation<'_>,
) -> bool {
    let quoted = parts.packet.get(IPV6_HEADER + 8 + IPV6_HEADER + 4..);
    let echoes = echoes.get(&header.source());
    let (Some(quoted), Some(echoes)) = (quoted, echoes) else {
        return false;
    };
    echoes.contains(quoted)
}
