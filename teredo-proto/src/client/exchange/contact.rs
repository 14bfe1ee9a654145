//! What the client knows about one peer besides what every role does.

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    connectivity::Tests,
    extensions::{port_preserving::RandomPorts, sequential::EchoTest, symmetric::Nonces},
};
use crate::shared::peers::{Peer, Queue, RoleState};

/// How long a discovery bubble makes a peer a local one (RFC 4380 section 5.2.4).
pub const LOCAL_MEMORY: Duration = Duration::from_secs(600);

/// What the client knows about a peer.
#[derive(Debug, Default)]
pub struct Contact {
    /// The local port that the peer is sent to from.
    pub port: u16,
    /// Where the peer is sent to: its mapping, but for X-23.
    pub destination: Endpoint,
    /// Bubbles or tests were sent, or packets wait: the next packet of the peer is an answer.
    pub awaits: bool,
    /// A direct bubble may follow the last burst: the answer to the peer's own indirect bubble.
    pub may_answer: bool,
    /// The mapping was proved once: a hint after that (P-03).
    pub is_known: bool,
    /// Where the peer is on the same link (C-62).
    pub local: Option<Local>,
    /// Its connectivity tests.
    pub tests: Option<Box<Tests>>,
    /// Packets for the host that wait for a test (C-41), and where all of them came from.
    pub held: Queue,
    /// See [`Contact::held`].
    pub held_from: Endpoint,
    /// The nonces of bubbles (RFC 6081 section 5.2).
    pub nonces: Nonces,
    /// Where a bubble of the peer came to and from that this client, behind a symmetric NAT, may
    /// rely on as soon as it can tell the peer so, and when.
    pub proved: Option<(u16, Endpoint, Instant)>,
    /// The ports of the peer (RFC 6081 section 5.4).
    pub random: RandomPorts,
    /// The test of which port the NAT gives (RFC 6081 section 5.5).
    pub echo: Option<Box<EchoTest>>,
    /// Where else the peer may be (RFC 6081 section 5.6).
    pub alternates: Vec<Endpoint>,
}

/// A peer on the same link.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Where its discovery bubble came from.
    pub endpoint: Endpoint,
    /// When the last one came.
    pub heard: Instant,
}

impl RoleState for Contact {
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
    /// Whether this is where the peer is on the same link.
    pub fn is_at_local(&self, endpoint: Endpoint) -> bool {
        self.local.is_some_and(|local| local.endpoint == endpoint)
    }

    /// Where the peer is on the same link, if it told so lately.
    pub fn local(&self, now: Instant) -> Option<Endpoint> {
        let local = self.local?;
        (now.saturating_since(local.heard) < LOCAL_MEMORY).then_some(local.endpoint)
    }
}
