//! Support for symmetric NATs that preserve ports (RFC 6081 section 5.4): the client announces to
//! each peer a port of its own, which the NAT has not used yet and will most likely preserve.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::super::{Exchange, Shared, TIMING, contact::Contact};
use crate::{
    client::{Nat, statistics::DropReason},
    shared::peers::PeerIndex,
};

/// A port that was announced this long ago, and not answered, is not used in another procedure: the
/// NAT may have preserved it for the peer's former endpoint.
const STALE: Duration = Duration::from_secs(8);
/// Maximum number of bubbles that keep a peer's port open while there are no data.
pub const MAX_REFRESHES: u8 = 20;

/// The ports of one peer.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RandomPorts {
    /// The own one, and when it was opened.
    pub own: Option<(u16, Instant)>,
    /// The external port that the NAT is expected to use for it; announced to the peer.
    pub predicted: u16,
    /// No prediction was possible in this procedure.
    pub is_unpredictable: bool,
    /// The external port that the peer announced; 0 if none.
    pub peer: u16,
    /// Bubbles sent to keep the own one open since there were data.
    pub refreshes: u8,
}

impl Contact {
    /// Whether a peer at a port of its own needs a bubble to keep it open; counts it.
    pub fn needs_refresh(&mut self, service_port: u16) -> bool {
        let needs = self.port != service_port && self.random.refreshes < MAX_REFRESHES;
        self.random.refreshes += u8::from(needs);
        needs
    }
}

impl Exchange {
    /// Whether the client is behind a symmetric NAT that preserves ports.
    pub(super) fn preserves_ports(&self, shared: &Shared) -> bool {
        let extensions = shared.config.extensions;
        let is_preserving = |identity: &super::super::Identity| {
            identity.nat == Nat::Symmetric && identity.port_preserving
        };
        extensions.symmetric
            && extensions.port_preserving
            && self.identity.as_ref().is_some_and(is_preserving)
    }

    /// Makes sure that a peer that is not trusted has a port of its own.
    pub(in super::super) fn prepare_random_port(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) {
        if !self.preserves_ports(shared) || self.peers.is_usable(now, index) {
            return;
        }
        let is_fresh = |at: Instant| now.saturating_since(at) < STALE;
        let own = self.peers[index].state.random.own;
        if own.is_none_or(|(_, at)| !is_fresh(at)) {
            self.renew_random_port(shared, now, index);
        }
    }

    /// Opens a new port for a peer, in place of its last one.
    pub(super) fn renew_random_port(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) {
        self.close_random_port(shared, index);
        let port = self.ports.open(shared, self.peers[index].address);
        let random = &mut self.peers[index].state.random;
        random.own = port.map(|port| (port, now));
        random.predicted = port.unwrap_or_default();
    }

    /// Closes a peer's own port.
    pub(in super::super) fn close_random_port(&mut self, shared: &mut Shared, index: PeerIndex) {
        if let Some((port, _)) = self.peers[index].state.random.own {
            self.forget_random_port(index, port);
            self.ports.close(shared, port);
        }
    }

    /// Forgets a port that could not be opened: the next burst announces another one.
    pub(in super::super) fn random_port_failed(&mut self, port: u16) {
        let address = self.ports.forget(port);
        if let Some(index) = address.and_then(|address| self.peers.find(&address)) {
            self.forget_random_port(index, port);
        }
    }

    /// Forgets everything about a peer that its own port, which is not open any more, was for.
    fn forget_random_port(&mut self, index: PeerIndex, port: u16) {
        let state = &mut self.peers[index].state;
        state.random.own = None;
        state.random.predicted = 0;
        state.echo = None;
        // A bubble that came to the port cannot be answered from there.
        state.proved = state.proved.filter(|&(proved, ..)| proved != port);
    }

    /// Records the port that a peer announces in a bubble.
    pub(in super::super) fn record_peer_port(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        port: Option<u16>,
    ) {
        let extensions = shared.config.extensions;
        let Some(port) = port.filter(|&port| port != 0) else {
            return;
        };
        let peer = &mut self.peers[index];
        let known = peer.state.random.peer;
        if !extensions.symmetric || !extensions.port_preserving || known == port {
            return;
        }
        let last = peer.last_sent.max(peer.last_received);
        let is_busy = last != Instant::ZERO && now.saturating_since(last) < TIMING.lifetime;
        if known != 0 && is_busy {
            return;
        }
        peer.state.random.peer = port;
        if known != 0 && !self.peers.is_usable(now, index) {
            self.close_random_port(shared, index);
        }
    }

    /// Returns the source port and the destination of a direct bubble besides the one to the
    /// endpoint in the peer's address. The own port is used only after the peer's indirect
    /// bubble announced a port or none: the NAT preserves it for the first destination alone.
    pub(in super::super) fn random_target(
        &self,
        shared: &Shared,
        index: PeerIndex,
        embedded: Endpoint,
    ) -> Option<(u16, Endpoint)> {
        let state = &self.peers[index].state;
        let is_heard = state.nonces.received != [0; 4];
        let own = state.random.own.filter(|_| is_heard).map(|(port, _)| port);
        let to = Endpoint {
            port: state.random.peer.to_be_bytes(),
            ..embedded
        };
        match (state.random.peer, own) {
            (0, None) => None,
            (0, Some(own)) => Some((own, embedded)),
            (_, own) => Some((own.unwrap_or(shared.config.port), to)),
        }
    }

    /// Handles a bubble of a known peer that came from another endpoint, without proof:
    /// gives the former endpoint up, at once if the peer had a port of its own, else only after
    /// silence; and asks the peer through its server.
    pub(in super::super) fn recheck_peer(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: u16,
        from: Endpoint,
        source: &[u8; 16],
    ) {
        let extensions = shared.config.extensions;
        let is_enabled = extensions.symmetric && extensions.port_preserving;
        let found = self.peers.find(source);
        let Some(index) = found.filter(|_| is_enabled && self.may_reach(shared, from)) else {
            return;
        };
        let peer = &self.peers[index];
        let is_own_port = to == peer.state.port && to != shared.config.port;
        if !peer.state.is_known || !is_own_port && self.peers.is_usable(now, index) {
            return;
        }
        if is_own_port {
            self.close_random_port(shared, index);
        }
        if self.peers[index].is_trusted() {
            self.distrust(shared, index);
        }
        self.answer(shared, now, index);
    }

    /// Checks that the peer may send to this port.
    pub(in super::super) fn check_port(
        &self,
        shared: &Shared,
        to: u16,
        source: &[u8; 16],
    ) -> Result<(), DropReason> {
        if to == shared.config.port || self.ports.peer(to) == Some(*source) {
            return Ok(());
        }
        Err(DropReason::Port)
    }
}
