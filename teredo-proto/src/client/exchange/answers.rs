//! Bubbles of peers and relays, and the answers to them (RFC 4380 section 5.2.3).

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    scope::{is_global_unicast, is_link_local},
    time::Instant,
};

use super::{Exchange, Shared, contact::Contact, discovery::is_on_link, extensions::Trailers};
use crate::{
    client::{
        Nat,
        statistics::{Bubble, DropReason},
    },
    shared::peers::{GAP, PeerIndex, RoleState as _},
    wire::{bubble, encapsulation::Encapsulation, trailer::Trailer},
};

/// The time for which a bubble counts that could not be relied upon yet.
const PROOF_LIFETIME: Duration = Duration::from_secs(8);

impl Exchange {
    /// Handles a bubble that came through the own server (C-34).
    pub(super) fn receive_indirect(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        source: &[u8; 16],
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        if !shared.config.prefix.contains(source) {
            return self.answer_relay(shared, now, source, parts.origin);
        }
        let trailers = Trailers::parse(parts.trailers)?;
        if !self.may_be_peer(shared, source) {
            return Err(DropReason::BubbleTarget);
        }
        let index = self.admit(shared, *source)?;
        shared.statistics.bubbles[Bubble::ReceivedIndirect] += 1;
        if shared.config.extensions.symmetric {
            self.peers[index].state.nonces.received = trailers.nonce.unwrap_or_default();
        }
        self.record_peer_port(shared, now, index, trailers.random_port);
        self.record_alternates(shared, index, trailers.alternates);
        let proved = self.peers[index].state.proved.take();
        let is_recent = |at| now.saturating_since(at) < PROOF_LIFETIME;
        match proved {
            Some((port, from, at)) if trailers.nonce.is_some() && is_recent(at) => {
                // Before the packets: the peer could not identify them otherwise.
                self.recognise(shared, now, index, port, from);
                if !self.is_reached_by_anybody() {
                    self.trust(shared, now, index, port, from);
                }
            }
            _ => self.answer(shared, now, index),
        }
        Ok(())
    }

    /// Answers a relay's bubble that came through the own server: with a direct bubble to the
    /// relay.
    fn answer_relay(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        source: &[u8; 16],
        origin: Option<Endpoint>,
    ) -> Result<(), DropReason> {
        if !is_link_local(source) && !is_global_unicast(source) {
            return Err(DropReason::Source);
        }
        let origin = origin.ok_or(DropReason::NoOrigin)?;
        if !self.may_reach(shared, origin) {
            return Err(DropReason::BubbleTarget);
        }
        shared.statistics.bubbles[Bubble::ReceivedRelay] += 1;
        if !self.limits.take_relay(origin, now) {
            shared.statistics.bubbles[Bubble::LimitedDirect] += 1;
            return Ok(());
        }
        self.relays.note(origin, now);
        let payload = bubble::build(&self.own, source).to_vec();
        let port = shared.config.port;
        shared.send(port, origin, payload);
        shared.statistics.bubbles[Bubble::SentDirect] += 1;
        Ok(())
    }

    /// Answers a peer's indirect bubble: with a direct one, and, if the peer is not trusted yet, an
    /// indirect one. Within two seconds of a burst of this side's own, one direct bubble ends
    /// that burst.
    pub(super) fn answer(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let is_usable = self.peers.is_usable(now, index);
        let peer = &mut self.peers[index];
        match peer.pending_mut().history.check(now, Contact::PATIENCE) {
            Ok(()) => {
                peer.state.nonces.begin();
                peer.state.random.is_unpredictable = false;
                let mut is_sent = self.greet_local(shared, now, index);
                if shared.config.extensions.symmetric && !is_usable {
                    is_sent |= self.send_burst(shared, now, index, false);
                } else {
                    is_sent |= self.send_directs(shared, now, index);
                }
                if is_sent {
                    self.count_burst(now, index);
                }
            }
            Err(_) => self.end_burst(shared, now, index),
        }
        if !is_usable {
            self.peers.arm_removal(index);
        }
    }

    /// Whether direct bubbles, one to each endpoint, may follow the last burst: once, and soon.
    pub(super) fn may_end_burst(&self, now: Instant, index: PeerIndex) -> bool {
        let peer = &self.peers[index];
        peer.state.may_answer && now.saturating_since(peer.last_burst()) < GAP
    }

    /// Sends the direct bubbles that may follow a burst.
    fn end_burst(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        if !self.may_end_burst(now, index) {
            shared.statistics.bubbles[Bubble::LimitedDirect] += 1;
            return;
        }
        self.peers[index].state.may_answer = false;
        self.peers.prolong_burst(now, index, &mut shared.random);
        let mut targets = self.targets(shared, now, index);
        let embedded = embedded_mapping(&self.peers[index].address);
        if self.random_target(shared, index, embedded).is_some() && targets.len() > 1 {
            // The bubble to the endpoint in the address did not help.
            targets.remove(0);
        }
        for (port, to) in targets {
            if self.may_reach_peer(shared, index, to) && self.limits.take_answer(to, now) {
                self.send_bubble(shared, port, index, to);
            } else {
                shared.statistics.bubbles[Bubble::LimitedDirect] += 1;
            }
        }
    }

    /// Whether bubbles arrive although their sender may not accept this client's packets: the
    /// mapping for incoming packets is not the one for outgoing packets.
    fn is_reached_by_anybody(&self) -> bool {
        self.identity
            .is_some_and(|own| own.nat == Nat::Symmetric && own.upnp)
    }

    /// Whether a peer at `from` sees this client at another endpoint than the one in its address:
    /// behind a symmetric NAT, or inside of the NAT that both are behind. The peer could not
    /// attribute packets that come before a bubble.
    fn is_elsewhere_for(
        &self,
        shared: &Shared,
        now: Instant,
        index: PeerIndex,
        from: Endpoint,
    ) -> bool {
        let state = &self.peers[index].state;
        let is_symmetric = self.identity.is_some_and(|own| own.nat == Nat::Symmetric);
        let is_inside =
            state.local(now) != Some(from) && self.may_be_alternate(shared, index, from);
        let is_embedded = from == embedded_mapping(&self.peers[index].address);
        shared.config.extensions.symmetric && (is_symmetric || is_inside && !is_embedded)
    }

    /// Proves this client's mapping to a peer that cannot know it, by the peer's nonce, and asks
    /// for a sign that this arrived.
    fn recognise(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        port: u16,
        from: Endpoint,
    ) {
        let to = self.destination(shared, index, from);
        let is_allowed = self.may_reach_peer(shared, index, to)
            && match self.may_end_burst(now, index) {
                true => self.limits.take_answer(to, now),
                false => self.limits.take_direct(to, now),
            };
        if is_allowed {
            self.peers[index].state.may_answer = false;
            self.peers.prolong_burst(now, index, &mut shared.random);
            let peer = &self.peers[index];
            let mut payload = bubble::build(&self.own, &peer.address).to_vec();
            Trailer::Nonce(peer.state.nonces.received).write(&mut payload);
            if self.is_reached_by_anybody() {
                Trailer::NeighborSolicitation.write(&mut payload);
            }
            self.send_direct_payload(shared, port, to, payload);
        }
    }

    /// Handles a bubble that did not come through the own server.
    pub(super) fn receive_direct(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: u16,
        from: Endpoint,
        source: &[u8; 16],
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        let trailers = Trailers::parse(parts.trailers)?;
        if !shared.config.prefix.contains(source) {
            let is_question = trailers.is_solicitation && is_link_local(source);
            if !is_question || !self.relays.knows(from, now) {
                return Err(DropReason::RelayBubble);
            }
            self.prove_mapping(shared, now, to, from, source);
            return Ok(());
        }
        let found = self.peers.find(source);
        let is_mapped = found.is_some_and(|index| {
            let peer = &self.peers[index];
            (peer.is_trusted() || peer.state.is_known) && peer.mapped == from
        });
        let index = match found {
            Some(index) if is_mapped => index,
            _ => {
                let proved = self.prove(shared, now, from, source, trailers.nonce);
                proved.inspect_err(|_| self.recheck_peer(shared, now, to, from, source))?
            }
        };
        shared.statistics.bubbles[Bubble::ReceivedDirect] += 1;
        let is_elsewhere = self.is_elsewhere_for(shared, now, index, from);
        let is_news = !self.peers.is_usable(now, index);
        let peer = &self.peers[index];
        // the first bubble decides at which port the peer is.
        let to = match is_mapped && !is_news {
            true => peer.state.port,
            false => to,
        };
        let is_waiting = peer.queued() > 0;
        if is_news && is_elsewhere && is_waiting && !peer.state.is_known {
            if peer.state.nonces.received == [0; 4] {
                self.peers[index].state.proved = Some((to, from, now));
                return Ok(());
            }
            if !trailers.is_advertisement {
                self.recognise(shared, now, index, to, from);
                if self.is_reached_by_anybody() {
                    return Ok(());
                }
            }
        }
        self.trust(shared, now, index, to, from);
        if trailers.is_solicitation {
            self.advertise(shared, now, index);
        } else if is_news && !is_waiting && self.may_end_burst(now, index) {
            self.end_burst(shared, now, index);
        }
        Ok(())
    }

    /// Answers the question of a relay whether this client is at its mapping (C-43): its packets come
    /// from the fast path after that.
    fn prove_mapping(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        port: u16,
        relay: Endpoint,
        source: &[u8; 16],
    ) {
        if !self.limits.take_relay_again(relay, now) {
            shared.statistics.bubbles[Bubble::LimitedDirect] += 1;
            return;
        }
        let mut payload = bubble::build(&self.own, source).to_vec();
        Trailer::NeighborAdvertisement.write(&mut payload);
        self.send_direct_payload(shared, port, relay, payload);
    }

    /// Returns the sender of a packet, if the packet comes from the endpoint in the sender's
    /// address or on the link (C-40), or brings back a nonce.
    pub(super) fn prove(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        source: &[u8; 16],
        nonce: Option<[u8; 4]>,
    ) -> Result<PeerIndex, DropReason> {
        if from == embedded_mapping(source) && self.may_reach(shared, from) {
            return self.admit(shared, *source);
        }
        let index = self.peers.find(source).ok_or(DropReason::Mapping)?;
        let contact = &mut self.peers[index].state;
        if contact.local(now) == Some(from) && is_on_link(shared, from) {
            return Ok(index);
        }
        let is_echoed = shared.config.extensions.symmetric
            && nonce.is_some_and(|nonce| contact.nonces.accept(nonce));
        if is_echoed && self.may_reach_peer(shared, index, from) {
            return Ok(index);
        }
        Err(DropReason::Mapping)
    }
}
