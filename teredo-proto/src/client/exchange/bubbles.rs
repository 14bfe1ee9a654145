//! Bubbles to peers (RFC 4380 section 5.2.6).

use teredo_common::{
    address::{Endpoint, embedded_mapping, embedded_server},
    time::Instant,
    wire::SERVER_PORT,
};

use super::{Exchange, Shared, discovery::is_on_link};
use crate::{
    client::statistics::Bubble,
    shared::peers::PeerIndex,
    wire::{bubble, trailer::Trailer},
};

impl Exchange {
    /// Sends the bubbles of one burst that the rates allow (L-12): direct ones and an indirect one,
    /// or an echo test that has to come before that. `has_turn` tells whether the server's pace
    /// permits the indirect one already (L-18). Returns whether any were sent.
    pub(super) fn send_burst(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        has_turn: bool,
    ) -> bool {
        let server = embedded_server(&self.peers[index].address);
        let has_turn = has_turn || self.turns.take(server, now);
        self.prepare_random_port(shared, now, index);
        let is_direct = self.send_directs(shared, now, index);
        if is_direct && has_turn && self.needs_echo_test(shared, now, index) {
            self.start_echo_test(shared, now, index, 1);
            return true;
        }
        if !has_turn {
            shared.statistics.bubbles[Bubble::LimitedIndirect] += 1;
            return is_direct;
        }
        self.send_indirect(shared, now, index) || is_direct
    }

    /// Records a burst of any kind (P-09).
    pub(super) fn count_burst(&mut self, now: Instant, index: PeerIndex) {
        let peer = &mut self.peers[index];
        peer.state.awaits = true;
        peer.state.may_answer = true;
        peer.pending_mut().history.sent(now);
    }

    /// Sends direct bubbles to all endpoints at which the peer is or may be.
    pub(super) fn send_directs(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) -> bool {
        let mut sent = Vec::new();
        for (port, to) in self.targets(shared, now, index) {
            let is_allowed = self.may_reach_peer(shared, index, to)
                && match sent.contains(&to) {
                    // From another port.
                    true => self.limits.take_answer(to, now),
                    false => self.limits.take_direct(to, now),
                };
            if is_allowed {
                sent.push(to);
                self.send_bubble(shared, port, index, to);
            } else {
                shared.statistics.bubbles[Bubble::LimitedDirect] += 1;
            }
        }
        !sent.is_empty()
    }

    /// Returns the source ports and destinations of direct bubbles to a peer: its endpoint while it
    /// is usable, else the endpoint in its address and those that its bubbles announced.
    pub(super) fn targets(
        &self,
        shared: &Shared,
        now: Instant,
        index: PeerIndex,
    ) -> Vec<(u16, Endpoint)> {
        let peer = &self.peers[index];
        if self.peers.is_usable(now, index) {
            return vec![(peer.state.port, peer.state.destination)];
        }
        let embedded = embedded_mapping(&peer.address);
        let mut targets = vec![(shared.config.port, embedded)];
        targets.extend(self.random_target(shared, index, embedded));
        let alternates = peer.state.alternates.iter();
        targets.extend(alternates.map(|&alternate| (shared.config.port, alternate)));
        targets
    }

    /// Whether a datagram for a peer may be sent to an endpoint: a global one, that of a neighbor
    /// that made itself known, or that of a peer behind the same NAT.
    pub(super) fn may_reach_peer(&self, shared: &Shared, index: PeerIndex, to: Endpoint) -> bool {
        let state = &self.peers[index].state;
        self.may_reach(shared, to)
            || state.is_at_local(to) && is_on_link(shared, to)
            || self.may_be_alternate(shared, index, to)
    }

    /// A direct bubble, with the nonce of the peer's last indirect one.
    pub(super) fn send_bubble(
        &mut self,
        shared: &mut Shared,
        port: u16,
        index: PeerIndex,
        to: Endpoint,
    ) {
        let peer = &self.peers[index];
        let mut payload = bubble::build(&self.own, &peer.address).to_vec();
        let nonce = peer.state.nonces.received;
        if nonce != [0; 4] {
            Trailer::Nonce(nonce).write(&mut payload);
        }
        let random_port = peer.state.random.predicted;
        if random_port != 0 && port != shared.config.port {
            Trailer::RandomPort(random_port).write(&mut payload);
        }
        self.send_direct_payload(shared, port, to, payload);
    }

    /// Sends the payload of a direct bubble.
    pub(super) fn send_direct_payload(
        &self,
        shared: &mut Shared,
        port: u16,
        to: Endpoint,
        payload: Vec<u8>,
    ) {
        shared.send(port, to, payload);
        shared.statistics.bubbles[Bubble::SentDirect] += 1;
    }

    /// Sends an indirect bubble, whose turn it is, to the peer's server (L-06), with a nonce, and with the port
    /// and the endpoints at which the peer finds this client.
    pub(super) fn send_indirect(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) -> bool {
        let server = server_of(&self.peers[index].address);
        if !self.may_reach(shared, server) {
            shared.statistics.bubbles[Bubble::LimitedIndirect] += 1;
            return false;
        }
        let peer = &mut self.peers[index];
        let mut payload = bubble::build(&self.own, &peer.address).to_vec();
        if shared.config.extensions.symmetric {
            let nonce = peer.state.nonces.next(&mut shared.random);
            Trailer::Nonce(nonce).write(&mut payload);
        }
        let random_port = peer.state.random.predicted;
        if random_port != 0 {
            Trailer::RandomPort(random_port).write(&mut payload);
        }
        self.write_alternates(shared, now, index, &mut payload);
        let port = shared.config.port;
        shared.send(port, server, payload);
        shared.statistics.bubbles[Bubble::SentIndirect] += 1;
        true
    }
}

/// Returns the endpoint of the server that a Teredo address names (L-06).
pub(super) const fn server_of(address: &[u8; 16]) -> Endpoint {
    Endpoint {
        address: embedded_server(address),
        port: SERVER_PORT.to_be_bytes(),
    }
}
