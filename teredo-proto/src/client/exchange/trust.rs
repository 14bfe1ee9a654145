//! The life of peers: they come, gain trust, fall silent, lose trust and are removed.

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    time::Instant,
};

use super::{Exchange, Shared, contact::Contact, relays::Relays};
use crate::{
    client::{Transmit, statistics::DropReason},
    shared::{
        party,
        peers::{Chore, PeerIndex},
    },
};

impl Exchange {
    /// Inserts a peer of which only the address is known (P-02). Call
    /// [`crate::shared::peers::Peers::make_room`] before.
    pub(super) fn insert(&mut self, shared: &Shared, address: [u8; 16]) -> PeerIndex {
        let mapped = embedded_mapping(&address);
        let [network @ .., _, _, _, _, _, _, _, _] = address;
        let party = match shared.config.prefix.contains(&address) {
            true => party::of_endpoint(mapped),
            false => network,
        };
        let index = self.peers.insert(address, mapped, party);
        self.peers[index].state.port = shared.config.port;
        if let Some(history) = self.departed.recall(&address) {
            self.peers[index].pending_mut().history = history;
        }
        index
    }

    /// Returns the entry of a peer, and inserts one if the peer contacted this client first. That
    /// never evicts a peer with queued packets (P-06).
    pub(super) fn admit(
        &mut self,
        shared: &mut Shared,
        address: [u8; 16],
    ) -> Result<PeerIndex, DropReason> {
        if let Some(index) = self.peers.find(&address) {
            return Ok(index);
        }
        if let Some(oldest) = self.peers.make_room() {
            if self.peers[oldest].is_asked() {
                return Err(DropReason::TooManyPeers);
            }
            self.remove(shared, oldest);
        }
        let index = self.insert(shared, address);
        self.peers.arm_removal(index);
        Ok(index)
    }

    /// Trusts a peer that proved to be at `mapped` and sent to the local port `port`, forgets its
    /// bubbles and tests, and sends and delivers the packets that waited, in this order (P-05).
    pub(super) fn trust(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        port: u16,
        mapped: Endpoint,
    ) {
        let was_usable = self.peers.is_usable(now, index);
        let peer = &mut self.peers[index];
        if was_usable && peer.mapped != mapped && peer.state.is_at_local(peer.mapped) {
            // The link is the better path as long as it works (C-63).
            return;
        }
        peer.last_received = now;
        let is_same = was_usable && peer.mapped == mapped && peer.state.port == port;
        self.limits.answered(mapped);
        if is_same && !peer.state.awaits {
            if now >= peer.next_touch {
                self.touch(now, index);
            }
            return;
        }
        let destination = self.destination(shared, index, mapped);
        let peer = &mut self.peers[index];
        peer.set_mapped(mapped);
        peer.state.port = port;
        peer.state.destination = destination;
        peer.state.is_known = true;
        peer.state.awaits = false;
        peer.state.proved = None;
        peer.state.nonces.end();
        let mut queue = Default::default();
        if let Some(pending) = &mut peer.pending {
            if pending.history.is_unanswered() {
                let round_trip = now.saturating_since(pending.history.last());
                shared.statistics.round_trips.add(round_trip);
            }
            pending.history.answered();
            pending.procedure = None;
            queue = std::mem::take(&mut pending.queue);
        }
        let held = std::mem::take(&mut peer.state.held);
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
            // An answer at the port itself: its prediction does not matter any more.
            self.peers[index].state.echo = None;
        }
        let mut is_first = true;
        while let Some((packet, waited)) = self.queues.release(now, &mut queue) {
            if let Some(waited) = waited {
                shared.statistics.waits.add(waited);
                if is_first {
                    shared.statistics.first_waits.add(waited);
                }
            }
            is_first = false;
            self.peers[index].last_sent = now;
            self.peers.traffic_mut(index).encap.add(packet.len());
            shared.statistics.encapsulated.add(packet.len());
            shared.send(port, destination, packet.into());
        }
        for packet in self.held.drain(held) {
            if is_proved {
                self.peers.traffic_mut(index).decap.add(packet.len());
                shared.statistics.decapsulated.add(packet.len());
                shared.transmits.push_back(Transmit::Ipv6(packet.into()));
            } else {
                shared.statistics.dropped[DropReason::HeldElsewhere] += 1;
            }
        }
        if !is_same {
            self.touch(now, index);
        }
        self.peers.arm_trusted(now, index);
    }

    /// Notes that a peer is busy, and with it the relay of a native host.
    pub(super) fn touch(&mut self, now: Instant, index: PeerIndex) {
        self.peers.touch_busy(now, index);
        let peer = &self.peers[index];
        if peer.state.tests.is_some() && self.peers.is_busy(now, index) {
            self.relays.note(peer.mapped, now);
        }
    }

    /// Takes trust away from a peer that was silent for too long (P-03).
    pub(super) fn distrust(&mut self, shared: &mut Shared, index: PeerIndex) {
        if let Some(oldest) = self.peers.make_room() {
            self.remove(shared, oldest);
        }
        self.peers.distrust(index);
    }

    /// Handles that the host was suspended for a time that the clock does not count (P-04): nobody is
    /// trusted any more, and what was asked before counts for nothing.
    pub fn handle_suspension(&mut self, shared: &mut Shared, duration: Duration) {
        self.relays = Relays::default();
        let all: Vec<PeerIndex> = self.peers.iter().map(|(index, _)| index).collect();
        for index in all {
            let peer = &mut self.peers[index];
            peer.state.age(duration);
            if !peer.is_trusted() {
                continue;
            }
            let is_full = self.peers.is_untrusted_full();
            self.peers.distrust(index);
            if is_full {
                self.remove(shared, index);
            }
        }
    }

    /// Removes a peer, and drops the packets that wait for it.
    pub(super) fn remove(&mut self, shared: &mut Shared, index: PeerIndex) {
        self.close_random_port(shared, index);
        let held = std::mem::take(&mut self.peers[index].state.held);
        for _ in self.held.drain(held) {
            shared.statistics.dropped[DropReason::Evicted] += 1;
        }
        let address = self.peers[index].address;
        if let Some(pending) = self.peers.remove(index) {
            if pending.history.last() != Instant::ZERO {
                self.departed.keep(address, pending.history);
            }
            for _ in self.queues.drain(pending.queue) {
                shared.statistics.dropped[DropReason::Evicted] += 1;
            }
        }
    }

    /// Does what is due for one peer.
    pub(super) fn look_after(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let service_port = shared.config.port;
        let needs_refresh = |contact: &mut Contact| contact.needs_refresh(service_port);
        match self.peers.next_chore(now, index, needs_refresh) {
            Chore::Nothing => {}
            Chore::Distrust => {
                self.distrust(shared, index);
                self.look_after(shared, now, index);
            }
            Chore::Step => self.proceed(shared, now, index),
            Chore::Refresh => self.start_procedure(shared, now, index),
            Chore::Remove => self.remove(shared, index),
        }
    }
}
