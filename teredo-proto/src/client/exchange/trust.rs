//! What happens to peers: they come, prove where they are, fall silent and go.

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    time::Instant,
};

use super::{Exchange, LIFETIME, REFRESH_AFTER, Shared, contact::LOCAL_MEMORY};
use crate::{
    client::{Transmit, statistics::DropReason},
    shared::{peers::PeerIndex, timers::coarse},
};

/// The rarer chores of a busy peer are done once in this time.
const UPKEEP: Duration = Duration::from_secs(1);
/// A peer that was sent something within this time is still sent to (P-12).
const STILL_SENDING: Duration = Duration::from_secs(5);

impl Exchange {
    /// Adds a peer of which nothing is known but its address (P-02). There is room.
    pub(super) fn insert(&mut self, shared: &Shared, address: [u8; 16]) -> PeerIndex {
        let index = self.peers.insert(address, embedded_mapping(&address));
        self.peers[index].state.port = shared.config.port;
        if let Some(history) = self.departed.recall(&address) {
            self.peers[index].pending_mut().history = history;
        }
        index
    }

    /// The entry of somebody whom the host has not asked for. It takes nobody's place for whom
    /// packets wait (P-06).
    pub(super) fn admit(
        &mut self,
        shared: &mut Shared,
        address: [u8; 16],
    ) -> Result<PeerIndex, DropReason> {
        if let Some(index) = self.peers.find(&address) {
            return Ok(index);
        }
        if let Some(oldest) = self.peers.make_room() {
            if self.is_asked(oldest) {
                return Err(DropReason::TooManyPeers);
            }
            self.remove(shared, oldest);
        }
        let index = self.insert(shared, address);
        self.arm_removal(index);
        Ok(index)
    }

    /// Whether a procedure for the peer is under way.
    pub(super) fn is_asked(&self, index: PeerIndex) -> bool {
        let pending = self.peers[index].pending.as_ref();
        pending.is_some_and(|pending| pending.procedure.is_some())
    }

    /// The peer proved to be at `mapped`, and talks with the local port `port`: trusts it, forgets
    /// its bubbles and tests, and sends and delivers what waited, in this order (P-05).
    pub(super) fn trust(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        port: u16,
        mapped: Endpoint,
    ) {
        let peer = &mut self.peers[index];
        let was_usable = peer.is_usable(now, LIFETIME);
        if was_usable && peer.mapped != mapped && peer.state.is_at_local(peer.mapped) {
            // The way over the link is the better one as long as it works (C-63).
            return;
        }
        peer.last_received = now;
        let is_same = was_usable && peer.mapped == mapped && peer.state.port == port;
        if is_same && !peer.state.awaits {
            if now >= peer.upkeep {
                self.upkeep(now, index);
            }
            return;
        }
        let destination = self.destination(shared, index, mapped);
        let peer = &mut self.peers[index];
        peer.mapped = mapped;
        peer.symmetric = mapped != embedded_mapping(&peer.address);
        peer.state.port = port;
        peer.state.destination = destination;
        peer.state.is_known = true;
        peer.state.awaits = false;
        peer.state.proved = None;
        peer.state.nonces.end();
        let mut queue = Default::default();
        if let Some(pending) = &mut peer.pending {
            pending.history.answered();
            pending.procedure = None;
            queue = std::mem::take(&mut pending.queue);
        }
        let mut held = std::mem::take(&mut peer.state.held);
        let is_proved = peer.state.held_from == mapped;
        if !peer.is_trusted() {
            if let Some(oldest) = self.peers.make_trusted_room() {
                self.remove(shared, oldest);
            }
            self.peers.trust(index);
        }
        if port == shared.config.port {
            // the first bubble decides.
            self.close_random_port(shared, index);
        } else {
            // An answer at the port itself: what it will be outside does not matter any more.
            self.peers[index].state.echo = None;
        }
        self.limits.answered(mapped);
        while let Some(packet) = self.queues.pop(&mut queue) {
            self.peers[index].last_sent = now;
            shared.statistics.encapsulated.add(packet.len());
            shared.send(port, destination, packet.into());
        }
        while let Some(packet) = self.held.pop(&mut held) {
            if is_proved {
                shared.statistics.decapsulated.add(packet.len());
                shared.transmits.push_back(Transmit::Ipv6(packet.into()));
            } else {
                shared.statistics.count_drop(DropReason::HeldElsewhere);
            }
        }
        if !is_same {
            self.upkeep(now, index);
        }
        self.arm_trusted(now, index);
    }

    /// What a busy peer needs now and then: its place among the most recently used.
    pub(super) fn upkeep(&mut self, now: Instant, index: PeerIndex) {
        self.peers[index].upkeep = now + UPKEEP;
        self.peers.touch(index);
        let peer = &self.peers[index];
        let is_fresh = now.saturating_since(peer.last_received) < UPKEEP;
        if is_fresh && peer.state.tests.is_some() {
            self.relays.note(peer.mapped, now);
        }
    }

    /// Asks a peer that is sent to but does not answer for a sign of life (P-12), once.
    pub(super) fn refresh(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        if !self.is_asked(index) && self.may_ask(now, index) {
            self.start_procedure(shared, now, index);
        }
    }

    /// Whether the last procedure was answered, or is too long ago to matter.
    fn may_ask(&self, now: Instant, index: PeerIndex) -> bool {
        let peer = &self.peers[index];
        let history = (peer.pending.as_ref()).map_or(Instant::ZERO, |one| one.history.last());
        let tests = (peer.state.tests.as_ref()).map_or(Instant::ZERO, |tests| tests.last());
        !peer.state.awaits || now.saturating_since(history.max(tests)) >= LIFETIME
    }

    /// The peer was silent for too long (P-03): it stays as a hint and for the memory of its
    /// bubbles, with its place among the untrusted.
    pub(super) fn distrust(&mut self, shared: &mut Shared, index: PeerIndex) {
        if let Some(oldest) = self.peers.make_room() {
            self.remove(shared, oldest);
        }
        self.peers.distrust(index);
        self.arm_removal(index);
    }

    /// Removes a peer, and drops what waits for it.
    pub(super) fn remove(&mut self, shared: &mut Shared, index: PeerIndex) {
        self.close_random_port(shared, index);
        let held = &mut std::mem::take(&mut self.peers[index].state.held);
        while self.held.pop(held).is_some() {
            shared.statistics.count_drop(DropReason::Evicted);
        }
        let address = self.peers[index].address;
        if let Some(mut pending) = self.peers.remove(index) {
            if pending.history.last() != Instant::ZERO {
                self.departed.keep(address, pending.history);
            }
            while self.queues.pop(&mut pending.queue).is_some() {
                shared.statistics.count_drop(DropReason::Evicted);
            }
        }
    }

    /// Does what is due for one peer, and sets its next deadline.
    pub(super) fn look_after(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        self.handle_echo_timeout(shared, now, index);
        let peer = &self.peers[index];
        let silence = now.saturating_since(peer.last_received);
        if peer.is_trusted() && silence >= LIFETIME {
            if self.peers.is_untrusted_full() && !self.is_asked(index) {
                self.remove(shared, index);
                return;
            }
            self.distrust(shared, index);
        }
        let peer = &self.peers[index];
        if self.is_asked(index) {
            self.proceed(shared, now, index);
        } else if peer.is_trusted() {
            let is_sending = now.saturating_since(peer.last_sent) < STILL_SENDING
                || peer.last_sent >= peer.last_received + REFRESH_AFTER;
            if silence >= REFRESH_AFTER && (is_sending || self.takes_refresh(shared, index)) {
                self.refresh(shared, now, index);
            }
            self.arm_trusted(now, index);
        } else if now >= self.retirement(index) {
            self.remove(shared, index);
        } else {
            self.arm_removal(index);
        }
    }

    /// Looks again at a trusted peer when it was silent for long enough to be asked for a sign of
    /// life, or, after that, to be trusted no longer.
    pub(super) fn arm_trusted(&mut self, now: Instant, index: PeerIndex) {
        let last_received = self.peers[index].last_received;
        let refresh_at = coarse(last_received + REFRESH_AFTER);
        let forget_at = coarse(last_received + LIFETIME);
        let next = if now < refresh_at {
            refresh_at
        } else {
            forget_at
        };
        self.peers.arm(index, next);
    }

    /// When an untrusted peer may be removed: nothing about it matters any more.
    fn retirement(&self, index: PeerIndex) -> Instant {
        let peer = &self.peers[index];
        let heard = peer.state.local.map(|local| local.heard + LOCAL_MEMORY);
        peer.retirement().max(heard.unwrap_or_default())
    }

    /// Looks again when nothing about the peer matters any more.
    pub(super) fn arm_removal(&mut self, index: PeerIndex) {
        let retirement = self.retirement(index);
        self.peers.arm(index, coarse(retirement));
    }
}
