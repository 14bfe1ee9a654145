//! The rate of bubbles.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_mapping, embedded_server},
    scope::is_link_local,
    time::Instant,
    wire::SERVER_PORT,
};
use teredo_proto::wire::{
    encapsulation::Encapsulation,
    ipv6::Header,
    trailer::{self, Trailer},
};

use super::{Violation, destinations::name};
use crate::node::Node;

/// The least time between two bursts to a peer.
const GAP: Duration = Duration::from_secs(2);
/// Bursts within [`WINDOW`] that may remain without answer.
const MAX_UNANSWERED: usize = 4;
/// The period of [`MAX_UNANSWERED`].
const WINDOW: Duration = Duration::from_secs(300);
/// The pause after [`MAX_UNANSWERED`] of a relay's bursts, or answers to a relay, in seconds; twice as
/// long after each further one.
const FIRST_PAUSE: u64 = 8;
/// How often it is doubled.
const MAX_DOUBLINGS: usize = 3;
/// Questions to one endpoint for the proof of mappings within [`QUESTION_TIME`]: a peer whose mapping
/// changes is asked at once.
const MAX_QUESTIONS: usize = 4;
/// See [`MAX_QUESTIONS`].
const QUESTION_TIME: Duration = Duration::from_secs(1);
/// Bubbles of the two echo tests of one burst, and the answer to the peer.
const MAX_TESTS: usize = 3;

/// The bubbles of a client or relay. Servers forward those of others, and have limits of their own.
#[derive(Debug, Default)]
pub(super) struct Bubbles {
    /// Indirect bubbles, by peer.
    indirect: BTreeMap<[u8; 16], History>,
    /// Direct bubbles, by destination.
    direct: BTreeMap<Endpoint, History>,
    /// Times of the last questions for a proof, by mapping.
    questions: BTreeMap<Endpoint, Vec<Instant>>,
    /// Mappings of a client's own ports, which its server told it.
    mappings: BTreeSet<Endpoint>,
}

/// A bubble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Indirect,
    /// From the service port.
    Direct,
    /// From another port.
    Test,
}

/// Bubbles to one peer.
#[derive(Debug, Default)]
struct History {
    last: Option<Instant>,
    unanswered: Vec<Instant>,
    /// Peer and time of the additional direct bubble that ends a burst: the answer to the peer's
    /// own indirect bubble.
    ended: BTreeMap<[u8; 16], Instant>,
    /// Whether the last bubble may have been the late end of the previous burst instead of the
    /// start of one, to this peer.
    late: Option<[u8; 16]>,
    /// The burst's bubbles from ports other than the service port, which echo tests need.
    tests: usize,
}

impl History {
    fn sent(
        &mut self,
        now: Instant,
        peer: [u8; 16],
        kind: Kind,
        backs_off: bool,
    ) -> Result<(), String> {
        let is_direct = kind != Kind::Indirect;
        let gap = self.last.map(|last| now.saturating_since(last));
        match gap {
            // Further bubbles of the same burst.
            Some(Duration::ZERO) => return Ok(()),
            Some(gap) if gap < GAP => {
                if is_direct && *self.ended.entry(peer).or_insert(now) == now {
                    return Ok(());
                }
                if kind == Kind::Test && self.tests < MAX_TESTS {
                    self.tests += 1;
                    return Ok(());
                }
                if self.late != Some(peer) {
                    return Err(format!("only {gap:?} apart"));
                }
                self.unanswered.pop();
            }
            _ => (),
        }
        let is_open =
            is_direct && gap.is_some_and(|gap| gap >= GAP) && !self.ended.contains_key(&peer);
        self.late = is_open.then_some(peer);
        self.last = Some(now);
        self.ended.clear();
        self.tests = 0;
        self.unanswered
            .retain(|&sent| now.saturating_since(sent) < WINDOW);
        self.unanswered.push(now);
        let Some(excess) = self.unanswered.len().checked_sub(MAX_UNANSWERED + 1) else {
            return Ok(());
        };
        let pause = Duration::from_secs(FIRST_PAUSE << excess.min(MAX_DOUBLINGS));
        if backs_off && gap.is_none_or(|gap| gap >= pause) {
            return Ok(());
        }
        Err(format!("{} without answer", self.unanswered.len()))
    }
}

impl Bubbles {
    /// Judges a question or an answer to one.
    fn asked(&mut self, now: Instant, node: &Node, to: Endpoint) -> Result<(), Violation> {
        if !matches!(node, Node::Relay(_)) {
            return Ok(());
        }
        let asked = self.questions.entry(to).or_default();
        asked.retain(|&at| now.saturating_since(at) < QUESTION_TIME);
        asked.push(now);
        match asked.len() > MAX_QUESTIONS {
            true => Err(format!(
                "{} asks {} for proof {} times (R-35)",
                name(node),
                to,
                asked.len()
            )),
            false => Ok(()),
        }
    }

    /// Counts a packet directly from a peer as an answer, and notes mappings that a server tells.
    pub fn arrived(&mut self, node: &Node, from: Endpoint, parts: &Encapsulation<'_>) {
        let Ok(header) = Header::parse(parts.packet) else {
            return;
        };
        if is_server(node, from) {
            if is_link_local(&header.source()) {
                self.mappings.extend(parts.origin);
            }
            return;
        }
        if let Some(history) = self.indirect.get_mut(&header.source()) {
            history.unanswered.clear();
        }
        if let Some(history) = self.direct.get_mut(&from) {
            history.unanswered.clear();
        }
    }

    /// Clears the counts: a client that loses its address forgets its peers (C-45), and with them
    /// its bubbles.
    pub fn forgotten(&mut self) {
        self.indirect.clear();
    }

    /// Whether the bubble is to a port of the client itself, as when it measures the interval between
    /// solicitations (C-52). Its NAT may give each port another address.
    fn is_own(&self, node: &Node, address: &[u8; 16]) -> bool {
        let Node::Client(client) = node else {
            return false;
        };
        self.mappings.contains(&embedded_mapping(address))
            && client
                .client
                .identity()
                .is_some_and(|own| own.server.primary.octets() == embedded_server(address))
    }

    pub fn sent(
        &mut self,
        now: Instant,
        node: &Node,
        (from, to): (Endpoint, Endpoint),
        parts: &Encapsulation<'_>,
    ) -> Result<(), Violation> {
        let Ok(header) = Header::parse(parts.packet) else {
            return Ok(());
        };
        let peer = header.destination();
        if !header.is_bubble() || matches!(node, Node::Server(_)) || self.is_own(node, &peer) {
            return Ok(());
        }
        if is_question(&header, parts) {
            return self.asked(now, node, to);
        }
        let server = Endpoint::new(embedded_server(&peer).into(), SERVER_PORT);
        if embedded_mapping(&peer) == server {
            // The bubble may be direct or indirect.
            return Ok(());
        }
        let is_indirect = ServicePrefix::STANDARD.contains(&peer) && to == server;
        let history = if is_indirect {
            self.indirect.entry(peer).or_default()
        } else {
            self.direct.entry(to).or_default()
        };
        let is_test = matches!(node, Node::Client(client) if client.endpoint() != from);
        let kind = match (is_indirect, is_test) {
            (true, _) => Kind::Indirect,
            (false, false) => Kind::Direct,
            (false, true) => Kind::Test,
        };
        let is_for_relay = !ServicePrefix::STANDARD.contains(&peer);
        let backs_off = is_for_relay || matches!(node, Node::Relay(_));
        history.sent(now, peer, kind, backs_off).map_err(|what| {
            format!(
                "{} sends {kind:?} bubbles to {to}: {what} (P-09)",
                name(node)
            )
        })
    }
}

/// Whether a bubble is a relay's question for the proof of a mapping, or a client's answer to it
/// (R-35, C-43).
fn is_question(header: &Header<'_>, parts: &Encapsulation<'_>) -> bool {
    trailer::parse(parts.trailers).any(|trailer| match trailer {
        Ok(Trailer::NeighborSolicitation) => is_link_local(&header.source()),
        Ok(Trailer::NeighborAdvertisement) => is_link_local(&header.destination()),
        _ => false,
    })
}

/// Whether a datagram comes from the client's server.
fn is_server(node: &Node, from: Endpoint) -> bool {
    let Node::Client(client) = node else {
        return false;
    };
    client
        .client
        .server()
        .is_some_and(|server| [server.primary(), server.secondary()].contains(&from))
}
