//! The part of a peer's entry that only the client needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::{
    connectivity::Tests,
    extensions::{port_preserving::RandomPorts, sequential::EchoTest, symmetric::Nonces},
};
use crate::shared::peers::{Patience, Peer, Queue, RoleState};

/// The time for which a discovery bubble makes a peer a local one (RFC 4380 section 5.2.4).
pub const LOCAL_MEMORY: Duration = Duration::from_secs(600);

/// The part of a peer's entry that only the client needs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Contact {
    /// The local port from which packets to the peer are sent.
    pub port: u16,
    /// The destination of packets to the peer: its mapping, but for X-23.
    pub destination: Endpoint,
    /// Bubbles or tests were sent, or packets wait: the next packet of the peer is an answer.
    pub awaits: bool,
    /// A direct bubble may follow the last burst: the answer to the peer's own indirect bubble.
    pub may_answer: bool,
    /// The mapping was proved once: a hint after that (P-03).
    pub is_known: bool,
    /// The peer's endpoint on the same link (C-62).
    pub local: Option<Local>,
    /// Its connectivity tests.
    pub tests: Option<Box<Tests>>,
    /// Packets for the host that wait for a test (C-41). They are stored by themselves, since they belong
    /// to a budget.
    #[serde(skip)]
    pub held: Queue,
    /// The common source of [`Contact::held`].
    pub held_from: Endpoint,
    /// Another relay that brought a packet of the native host, and when it did so last.
    #[serde(skip)]
    pub elsewhere: Option<(Endpoint, Instant)>,
    /// The nonces of bubbles (RFC 6081 section 5.2).
    pub nonces: Nonces,
    /// The local port, the source and the time of a bubble that this client, behind a symmetric
    /// NAT, relies on as soon as it can prove itself to the peer.
    pub proved: Option<(u16, Endpoint, Instant)>,
    /// The ports of the peer (RFC 6081 section 5.4).
    pub random: RandomPorts,
    /// The test that finds the port of the NAT's next mapping (RFC 6081 section 5.5).
    pub echo: Option<Box<EchoTest>>,
    /// Whether the last packet of the peer was one for the host, not the answer to a test.
    pub is_talking: bool,
    /// When the first packet since then was sent to the peer.
    pub unanswered_since: Option<Instant>,
    /// Other endpoints at which the peer may be (RFC 6081 section 5.6).
    pub alternates: Vec<Endpoint>,
}

/// A peer on the same link.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Local {
    /// The source of its discovery bubble.
    pub endpoint: Endpoint,
    /// The time of the last one.
    pub heard: Instant,
}

impl RoleState for Contact {
    const PATIENCE: Patience = Patience::Window;

    /// A peer on the same link is remembered as such.
    fn needed_until(&self) -> Instant {
        self.local
            .map_or(Instant::ZERO, |local| local.heard + LOCAL_MEMORY)
    }

    /// Whether the last procedure was answered, or is too long ago to matter.
    fn may_refresh(peer: &Peer<Self>, now: Instant, lifetime: Duration) -> bool {
        let last_test = peer.state.tests.as_ref().map(|tests| tests.last());
        let last_asked = peer.last_burst().max(last_test.unwrap_or_default());
        let is_over = !peer.state.awaits || now.saturating_since(last_asked) >= lifetime;
        is_over && !peer.is_asked()
    }

    /// Packets may wait for the answer.
    fn displaces_untrusted(peer: &Peer<Self>) -> bool {
        peer.is_asked()
    }
}

impl Contact {
    /// Whether this is the peer's endpoint on the same link.
    pub fn is_at_local(&self, endpoint: Endpoint) -> bool {
        self.local.is_some_and(|local| local.endpoint == endpoint)
    }

    /// Lets everything that is remembered age by a time that the clock does not count.
    pub fn age(&mut self, duration: Duration) {
        let local = self.local.filter(|_| duration < LOCAL_MEMORY);
        self.local = local.map(|local| Local {
            heard: local.heard - duration,
            ..local
        });
        self.tests = None;
        self.proved = None;
        self.is_known = false;
        self.unanswered_since = None;
        self.elsewhere = None;
    }

    /// Returns the peer's endpoint on the same link, if a discovery bubble arrived lately.
    pub fn local(&self, now: Instant) -> Option<Endpoint> {
        let local = self.local?;
        (now.saturating_since(local.heard) < LOCAL_MEMORY).then_some(local.endpoint)
    }
}
