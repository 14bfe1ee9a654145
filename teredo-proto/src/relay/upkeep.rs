//! What happens to peers: trust, bubbles, silence.

use std::time::Duration;

use rand::RngExt as _;
use teredo_common::{
    address::{Endpoint, embedded_mapping, embedded_server},
    time::Instant,
    wire::SERVER_PORT,
};

use super::{Event, Relay, Transmit};
use crate::{
    relay::statistics::{Bubble, DropReason},
    shared::{
        bubble::{ATTEMPTS, GAP, JITTER, Procedure, Refused},
        peers::PeerIndex,
        timers::coarse,
    },
    wire::bubble,
};

/// The rarer chores of a peer whose packets come by userspace are done once in this time.
pub(super) const UPKEEP: Duration = Duration::from_secs(1);
/// A peer that was sent something within this time is still sent to (P-12).
const STILL_SENDING: Duration = Duration::from_secs(5);
/// The stamps of the fast path come late: once a second, and rounded to one. A timer alone does not
/// end trust before they had their chance; a packet does.
const STAMP_DELAY: Duration = Duration::from_secs(2);

impl Relay {
    /// Does what is due. Call it at [`Relay::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(index) = self.peers.take_due(now) {
            self.look_after(now, index);
        }
    }

    /// Takes the stamps of the fast path's map, about once a second for every entry. They only ever
    /// move forward, and keep a trusted peer fresh as if its packets had come here. Returns whether
    /// the peer is trusted: an entry of any other does not belong in the map.
    pub fn peer_stamps(
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
        if !peer.is_trusted() {
            return false;
        }
        let has_received = last_received > peer.last_received;
        let has_sent = last_sent > peer.last_sent;
        if !has_received && !has_sent {
            return true;
        }
        peer.last_received = peer.last_received.max(last_received);
        peer.last_sent = peer.last_sent.max(last_sent);
        if has_received && let Some(pending) = peer.pending.take() {
            debug_assert!(pending.queue.is_empty());
            let mapped = peer.mapped;
            self.direct_bubble_histories.answered(mapped);
        }
        let refresh_at = self.peers[index].last_received + refresh_after;
        if has_sent && last_sent >= refresh_at && self.peers[index].pending.is_none() {
            self.peers.arm(index, last_sent);
        }
        self.peers.touch(index);
        true
    }

    /// The peer proved to be at `mapped`: trusts it, forgets its bubbles and sends what waited for
    /// it, in this order (P-05, R-22).
    pub(super) fn trust(&mut self, now: Instant, index: PeerIndex, mapped: Endpoint) {
        let lifetime = self.config.peer_lifetime;
        let peer = &mut self.peers[index];
        let was_usable = peer.is_usable(now, lifetime);
        peer.last_received = now;
        if was_usable && peer.mapped == mapped && peer.pending.is_none() {
            if now >= peer.upkeep {
                self.upkeep(now, index);
            }
            return;
        }
        let is_news = !was_usable || peer.mapped != mapped;
        let embedded = embedded_mapping(&peer.address);
        peer.mapped = mapped;
        peer.symmetric = mapped != embedded;
        let pending = peer.pending.take();
        if !self.peers[index].is_trusted() {
            if let Some(oldest) = self.peers.make_trusted_room() {
                self.remove(oldest);
            }
            self.peers.trust(index);
            self.statistics.trusted += 1;
        }
        self.direct_bubble_histories.answered(mapped);
        if let Some(mut pending) = pending {
            while let Some(packet) = self.queues.pop(&mut pending.queue) {
                self.peers[index].last_sent = now;
                self.transmit(mapped, packet.into());
            }
        }
        if is_news {
            self.upkeep(now, index);
        }
        self.arm_trusted(now, index);
    }

    /// What a busy peer needs now and then: its place among the most recently used, and, since the
    /// fast path might have lost it, another word to the fast path.
    pub(super) fn upkeep(&mut self, now: Instant, index: PeerIndex) {
        self.peers[index].upkeep = now + UPKEEP;
        self.peers.touch(index);
        self.announce(index);
    }

    /// Asks a peer that is sent to but does not answer for a sign of life (P-12), once.
    pub(super) fn refresh(&mut self, now: Instant, index: PeerIndex) {
        let is_asked = self.peers[index].pending.is_some();
        if !is_asked {
            self.start_procedure(now, index);
        }
    }

    /// Sends a burst, or as soon as that is allowed, and repeats it until there is an answer.
    pub(super) fn start_procedure(&mut self, now: Instant, index: PeerIndex) {
        self.peers[index].pending_mut().procedure = Some(Procedure {
            attempts: 0,
            next: now,
        });
        self.proceed(now, index);
    }

    /// The peer did not answer in time: it stays as a hint and for the memory of its bubbles, with
    /// its place among the untrusted if there is one.
    pub(super) fn distrust(&mut self, index: PeerIndex) {
        self.forgotten(index);
        self.make_room();
        self.peers.distrust(index);
        self.arm_removal(index);
    }

    /// Removes the least recently used untrusted peer, if another one needs its place.
    pub(super) fn make_room(&mut self) {
        if let Some(oldest) = self.peers.make_room() {
            self.remove(oldest);
        }
    }

    /// Removes a peer, and drops what waits for it.
    pub(super) fn remove(&mut self, index: PeerIndex) {
        if self.peers[index].is_trusted() {
            self.forgotten(index);
        }
        if let Some(mut pending) = self.peers.remove(index) {
            while self.queues.pop(&mut pending.queue).is_some() {
                self.statistics.count_drop(DropReason::EncapEvicted);
            }
        }
    }

    fn forgotten(&mut self, index: PeerIndex) {
        let address = self.peers[index].address.into();
        self.statistics.forgotten += 1;
        self.emit(Event::PeerForgotten { address });
    }

    /// Does what is due for one peer, and sets its next deadline.
    fn look_after(&mut self, now: Instant, index: PeerIndex) {
        let lifetime = self.config.peer_lifetime;
        let peer = &self.peers[index];
        let silence = now.saturating_since(peer.last_received);
        if peer.is_trusted() && silence >= lifetime + STAMP_DELAY {
            if self.peers.is_untrusted_full() {
                self.remove(index);
                return;
            }
            self.distrust(index);
        }
        let peer = &self.peers[index];
        let has_procedure = (peer.pending.as_ref()).is_some_and(|one| one.procedure.is_some());
        if has_procedure {
            self.proceed(now, index);
        } else if peer.is_trusted() {
            let is_sending = now.saturating_since(peer.last_sent) < STILL_SENDING
                || peer.last_sent >= peer.last_received + self.config.refresh_after;
            if silence >= self.config.refresh_after && is_sending {
                self.refresh(now, index);
            }
            self.arm_trusted(now, index);
        } else if now >= peer.retirement() {
            self.remove(index);
        } else {
            self.arm_removal(index);
        }
    }

    /// Takes the next step of a procedure if it is due (P-09 to P-11).
    fn proceed(&mut self, now: Instant, index: PeerIndex) {
        let pending = self.peers[index].pending_mut();
        let Some(mut procedure) = pending.procedure else {
            return;
        };
        if now >= procedure.next {
            match pending.history.check(now) {
                Err(Refused::TooSoon(at)) => procedure.next = at + self.jitter(),
                Ok(()) if procedure.attempts < ATTEMPTS => {
                    self.burst(now, index);
                    procedure.attempts += 1;
                    procedure.next = now + GAP + self.jitter();
                }
                Ok(()) | Err(Refused::Exhausted) => return self.give_up(now, index),
            }
        }
        self.peers[index].pending_mut().procedure = Some(procedure);
        self.peers.arm(index, procedure.next);
        if self.peers[index].is_trusted() {
            self.arm_trusted(now, index);
        }
    }

    /// No answer (P-11): drops what waited and tells the sender of the newest packet. The entry
    /// stays until its bubbles are forgotten, for the limit to hold.
    fn give_up(&mut self, now: Instant, index: PeerIndex) {
        let pending = self.peers[index].pending_mut();
        pending.procedure = None;
        let mut queue = std::mem::take(&mut pending.queue);
        let mut newest = None;
        while let Some(packet) = self.queues.pop(&mut queue) {
            self.statistics.count_drop(DropReason::EncapNoAnswer);
            newest = Some(packet);
        }
        if let Some(packet) = newest {
            self.send_unreachable(now, &packet);
        }
        if self.peers[index].is_trusted() {
            self.arm_trusted(now, index);
        } else {
            self.arm_removal(index);
        }
    }

    /// Sends the bubbles of one burst that the rates allow (L-12).
    fn burst(&mut self, now: Instant, index: PeerIndex) {
        let peer = &self.peers[index];
        let (address, mapped) = (peer.address, peer.mapped);
        let source = self.cookie.source(now, &address);
        let payload = bubble::build(&source, &address);
        let server = Endpoint {
            address: embedded_server(&address),
            port: SERVER_PORT.to_be_bytes(),
        };
        let mut is_sent = false;
        if self.config.direct_bubbles {
            let allowed = self.direct_bubble_histories.take(mapped, now)
                && self.direct_bubble_buckets.take(mapped.address, now);
            let (sent, limited) = (Bubble::SentDirect, Bubble::LimitedDirect);
            self.statistics
                .count_bubble(if allowed { sent } else { limited });
            is_sent |= allowed;
            if allowed {
                self.send_bubble(mapped, &payload);
            }
        }
        let allowed = self.indirect_bubble_buckets.take(server.address, now);
        let (sent, limited) = (Bubble::SentIndirect, Bubble::LimitedIndirect);
        self.statistics
            .count_bubble(if allowed { sent } else { limited });
        is_sent |= allowed;
        if allowed && self.is_own_server(server.address) {
            let bubble = payload;
            self.transmits.push_back(Transmit::OwnServer { bubble });
        } else if allowed {
            self.send_bubble(server, &payload);
        }
        if is_sent {
            self.peers[index].pending_mut().history.sent(now);
        }
    }

    fn send_bubble(&mut self, to: Endpoint, payload: &[u8]) {
        self.transmits.push_back(Transmit::Datagram {
            to,
            payload: payload.to_vec(),
        });
    }

    fn jitter(&mut self) -> Duration {
        self.random.random_range(Duration::ZERO..=JITTER)
    }

    /// Looks again at a trusted peer when it was silent for long enough to be asked for a sign of
    /// life, or, after that, to be forgotten.
    pub(super) fn arm_trusted(&mut self, now: Instant, index: PeerIndex) {
        let last_received = self.peers[index].last_received;
        let refresh_at = coarse(last_received + self.config.refresh_after);
        let forget_at = coarse(last_received + self.config.peer_lifetime + STAMP_DELAY);
        self.peers.arm(
            index,
            if now < refresh_at {
                refresh_at
            } else {
                forget_at
            },
        );
    }

    /// Looks again when nothing about the peer matters any more.
    pub(super) fn arm_removal(&mut self, index: PeerIndex) {
        let retirement = self.peers[index].retirement();
        self.peers.arm(index, coarse(retirement));
    }
}
