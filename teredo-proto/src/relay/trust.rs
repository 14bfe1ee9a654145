//! The life of peers: they gain trust, fall silent, lose trust and are removed.

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, embedded_server},
    time::Instant,
    traffic::Traffic,
};

use super::{Event, Relay};
use crate::{
    relay::statistics::DropReason,
    shared::{
        party::NOBODY,
        peers::{Chore, PeerIndex, Pending},
    },
};

/// The delay of the fast path's timestamps: they come once a second, and rounded to one.
pub(super) const STAMP_DELAY: Duration = Duration::from_secs(2);

/// Peers that one [`Relay::handle_timeout`] looks after, and turns that it takes, at most.
pub(super) const MAX_CHORES: usize = 256;

impl Relay {
    /// Does what is due, for a bounded number of peers, so that packets do not wait for long. Call it at
    /// [`Relay::poll_timeout`], which has come already if more is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..MAX_CHORES {
            let Some(index) = self.peers.take_due(now) else {
                break;
            };
            self.look_after(now, index);
        }
        self.take_turns(now, MAX_CHORES);
    }

    /// Handles that the host was suspended for `duration`, during which the clock stood still: no peer
    /// is trusted any more, and no cookie of before is valid that would not be if the clock had gone on
    /// (P-04). There is an [`Event::PeerForgotten`] for each peer that was trusted.
    pub fn handle_suspension(&mut self, duration: Duration) {
        self.cookie.skip(duration);
        let peers = self.peers.iter();
        let trusted: Vec<PeerIndex> = peers
            .filter(|(_, peer)| peer.is_trusted())
            .map(|(index, _)| index)
            .collect();
        for index in trusted {
            self.withdraw(index);
            self.forget_hearing(index);
            let is_full = self.peers.is_untrusted_full();
            self.peers.distrust(index);
            if is_full {
                self.remove(index);
            }
        }
    }

    /// Does what is due for one peer.
    fn look_after(&mut self, now: Instant, index: PeerIndex) {
        self.maintain_proof(now, index);
        match self.peers.next_chore(now, index, |_| false) {
            Chore::Nothing => self.arm_proof(index),
            Chore::Distrust => {
                self.distrust(index);
                self.look_after(now, index);
            }
            Chore::Step => self.proceed(now, index),
            Chore::Refresh => self.start_procedure(now, index, NOBODY),
            Chore::Remove => self.remove(index),
        }
    }

    /// Records the timestamps of an entry of the fast path's map, about once a second for every
    /// entry. They only ever move forward, and keep a trusted peer fresh as if its packets had come
    /// here. Returns whether the peer's mapping is proved: an entry of any other does not belong in
    /// the map.
    pub fn record_stamps(
        &mut self,
        address: &[u8; 16],
        last_received: Instant,
        last_sent: Instant,
    ) -> bool {
        let Some(index) = self.peers.find(address) else {
            return false;
        };
        let refresh_after = self.config.refresh_after;
        let peer = &mut self.peers[index];
        if !peer.is_trusted() || !peer.state.holds() {
            return false;
        }
        let has_received = last_received > peer.last_received;
        let has_sent = last_sent > peer.last_sent;
        if !has_received && !has_sent {
            return true;
        }
        peer.last_received = peer.last_received.max(last_received);
        peer.last_sent = peer.last_sent.max(last_sent);
        let pending = match has_received {
            true => peer.pending.take(),
            false => None,
        };
        if has_received {
            self.claim(index, last_received);
        }
        if let Some(pending) = pending {
            let peer = &self.peers[index];
            debug_assert!(pending.queue.is_empty());
            let (address, mapped) = (peer.address, peer.mapped);
            self.direct_bubble_histories.answered(mapped);
            self.note_answer(last_received, &address, &pending);
        }
        let refresh_at = self.peers[index].last_received + refresh_after;
        if has_sent && last_sent >= refresh_at && self.peers[index].pending.is_none() {
            self.peers.arm(index, last_sent);
        }
        self.peers.touch(index);
        true
    }

    /// Adds traffic of a peer that the fast path has counted. Returns whether the relay knows the peer.
    pub fn record_traffic(&mut self, address: &[u8; 16], traffic: Traffic) -> bool {
        let found = self.peers.find(address);
        if let Some(index) = found {
            *self.peers.traffic_mut(index) += traffic;
        }
        found.is_some()
    }

    /// Trusts a peer that seems to be at `mapped`, forgets its bubbles and sends the packets that
    /// waited for it, in this order (P-05, R-22).
    pub(super) fn trust(&mut self, now: Instant, index: PeerIndex, mapped: Endpoint) {
        self.trust_as_of(now, now, index, mapped);
        self.claim(index, now);
    }

    /// As [`Relay::trust`], because of a packet that arrived at `heard`, here or at another relay of
    /// the fleet.
    pub(super) fn trust_as_of(
        &mut self,
        now: Instant,
        heard: Instant,
        index: PeerIndex,
        mapped: Endpoint,
    ) {
        let was_usable = self.peers.is_usable(now, index);
        let was_elsewhere = self.peers[index].mapped != mapped;
        let peer = &mut self.peers[index];
        peer.last_received = heard;
        if was_usable && !was_elsewhere && peer.pending.is_none() {
            let is_due = now >= peer.next_touch;
            self.earn_credit(index);
            if is_due {
                self.touch(now, index);
            }
            return;
        }
        if was_elsewhere {
            self.forget_proof(index);
            self.forget_hearing(index);
        }
        let peer = &mut self.peers[index];
        peer.set_mapped(mapped);
        let pending = peer.pending.take();
        if !peer.is_trusted() {
            if let Some(oldest) = self.peers.make_trusted_room() {
                self.remove(oldest);
            }
            self.peers.trust(index);
            self.statistics.trusted += 1;
        } else if was_elsewhere {
            self.peers.trust(index);
        }
        self.earn_credit(index);
        self.direct_bubble_histories.answered(mapped);
        if let Some(mut pending) = pending {
            let address = self.peers[index].address;
            self.note_answer(now, &address, &pending);
            if pending.history.is_unanswered() {
                let round_trip = now.saturating_since(pending.history.last());
                self.statistics.round_trips.add(round_trip);
            }
            let mut is_first = true;
            while let Some((packet, waited)) = self.queues.release(now, &mut pending.queue) {
                if let Some(waited) = waited {
                    self.statistics.waits.add(waited);
                    if is_first {
                        self.statistics.first_waits.add(waited);
                    }
                }
                is_first = false;
                if self.may_send(now, index) {
                    self.peers[index].last_sent = now;
                    self.transmit(index, mapped, packet.into());
                } else {
                    self.statistics.dropped[DropReason::EncapUnproved] += 1;
                }
            }
        }
        if !was_usable || was_elsewhere {
            self.touch(now, index);
        }
        self.peers.arm_trusted(now, index);
    }

    /// Notes that a peer answered: its server forwards bubbles (L-18).
    fn note_answer(&mut self, now: Instant, address: &[u8; 16], pending: &Pending) {
        if pending.history.is_unanswered() {
            self.turns.answered(embedded_server(address), now);
        }
    }

    /// Notes that a peer is busy, and announces it again: the fast path might have lost it.
    pub(super) fn touch(&mut self, now: Instant, index: PeerIndex) {
        self.peers.touch_busy(now, index);
        if self.peers[index].state.holds() {
            self.announce(index);
        }
    }

    /// Reports a peer whose mapping is proved to the fast path.
    pub(super) fn announce(&mut self, index: PeerIndex) {
        let peer = &self.peers[index];
        let event = Event::PeerTrusted {
            address: peer.address.into(),
            mapped: peer.mapped,
            last_received: peer.last_received,
            last_sent: peer.last_sent,
        };
        self.emit(event);
    }

    /// Takes trust away from a peer that was silent for too long.
    pub(super) fn distrust(&mut self, index: PeerIndex) {
        self.withdraw(index);
        self.make_room();
        self.peers.distrust(index);
    }

    /// Removes the least recently used untrusted peer, if another one needs its place.
    pub(super) fn make_room(&mut self) {
        if let Some(oldest) = self.peers.make_room() {
            self.remove(oldest);
        }
    }

    /// Removes a peer, and drops the packets that wait for it.
    pub(super) fn remove(&mut self, index: PeerIndex) {
        if self.peers[index].is_trusted() {
            self.withdraw(index);
        }
        self.forget_hearing(index);
        if let Some(pending) = self.peers.remove(index) {
            for _ in self.queues.drain(pending.queue) {
                self.statistics.dropped[DropReason::EncapEvicted] += 1;
            }
        }
    }

    /// Takes the proof of a peer that is trusted no longer away.
    fn withdraw(&mut self, index: PeerIndex) {
        self.statistics.forgotten += 1;
        self.forget_proof(index);
    }
}
