//! Asking peers for an answer: bubbles, and their repetition (RFC 4380 section 5.4.1, P-09 to P-11).

use teredo_common::{
    address::{Endpoint, embedded_server},
    cookie::Sent,
    time::Instant,
    wire::{ENCAPSULATION, IPV6_HEADER, SERVER_PORT},
};

use super::{Relay, Transmit};
use crate::{
    relay::statistics::{Bubble, DropReason},
    shared::{
        party::Party,
        peers::{PeerIndex, Queue, Step},
    },
    wire::bubble,
};

/// Octets of a datagram with a bubble.
const DATAGRAM: u16 = (ENCAPSULATION + IPV6_HEADER) as u16;
/// Bubbles that a packet pays for at most, if it has as many octets. So nobody makes the relay send
/// more than twice of what it gets (L-19).
const PAID: u16 = 2;
/// Bubbles that the packets for one peer can pay for in advance.
const MAX_PAID: u16 = 8;

impl Relay {
    /// Sends a burst, or as soon as that is allowed, and repeats it until there is an answer.
    pub(super) fn start_procedure(&mut self, now: Instant, index: PeerIndex, party: Party) {
        self.peers.start_procedure(now, index, party);
        self.proceed(now, index);
    }

    /// Takes the next step of a procedure if it is due. A burst may have to wait for its turn (L-18).
    pub(super) fn proceed(&mut self, now: Instant, index: PeerIndex) {
        match self.peers.next_step(now, index, &mut self.random) {
            Step::Wait => {}
            Step::Burst(_) => {
                let server = embedded_server(&self.peers[index].address);
                if !self.can_pay(index, DATAGRAM) {
                    self.statistics.bubbles[Bubble::Withheld] += 1;
                } else if self.is_own_server(server) || self.turns.take(server, now) {
                    self.send_burst(now, index);
                } else {
                    self.wait_for_turn(now, index, server);
                }
            }
            Step::GiveUp(queue) => self.give_up(now, queue),
        }
    }

    /// Counts a packet that asks for bubbles to a peer.
    pub(super) fn earn_bubbles(&mut self, index: PeerIndex, packet: &[u8]) {
        let octets = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        let earned = octets.saturating_mul(PAID).min(PAID * DATAGRAM);
        let pending = self.peers[index].pending_mut();
        pending.allowance = pending
            .allowance
            .saturating_add(earned)
            .min(MAX_PAID * DATAGRAM);
    }

    /// Whether bubbles of as many octets may be sent. Nobody pays for those to peers that proved to
    /// be there, nor for those of packets of this host itself.
    fn can_pay(&self, index: PeerIndex, octets: u16) -> bool {
        let peer = &self.peers[index];
        let pending = peer.pending.as_ref();
        self.config.host_specific
            || peer.is_trusted()
            || pending.is_some_and(|pending| pending.allowance >= octets)
    }

    fn pay(&mut self, index: PeerIndex, octets: u16) {
        let pending = self.peers[index].pending_mut();
        pending.allowance = pending.allowance.saturating_sub(octets);
    }

    fn wait_for_turn(&mut self, now: Instant, index: PeerIndex, server: [u8; 4]) {
        let (peers, turns) = (&mut self.peers, &mut self.turns);
        let address = peers[index].address;
        peers.wait_for_turn(index, |party| turns.wait(server, party, address, now));
        turns.compact(|turn| peers.is_waiting(turn));
        self.statistics.bubbles[Bubble::LimitedIndirect] += 1;
    }

    /// Sends the bursts whose turn has come, at most `most` of them.
    pub(super) fn take_turns(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(turn) = self.turns.next(now, |turn| self.peers.is_waiting(turn)) else {
                break;
            };
            let Some(index) = self.peers.take_turn(now, turn) else {
                continue;
            };
            match self.peers.next_step(now, index, &mut self.random) {
                Step::Wait => {}
                Step::Burst(_) => self.send_burst(now, index),
                Step::GiveUp(queue) => self.give_up(now, queue),
            }
        }
    }

    /// Drops the packets that waited in vain, and informs the sender of the newest one (P-11).
    fn give_up(&mut self, now: Instant, queue: Queue) {
        let mut newest = None;
        for packet in self.queues.drain(queue) {
            self.statistics.dropped[DropReason::EncapNoAnswer] += 1;
            newest = Some(packet);
        }
        if let Some(packet) = newest {
            self.send_unreachable(now, &packet);
        }
    }

    /// Sends the bubbles of one burst; the direct one if the rates allow it (L-12).
    fn send_burst(&mut self, now: Instant, index: PeerIndex) {
        let peer = &self.peers[index];
        let (address, mapped) = (peer.address, peer.mapped);
        let source = self.cookie.source(now, Sent::Indirectly, &address);
        let payload = bubble::build(&source, &address);
        let server = Endpoint {
            address: embedded_server(&address),
            port: SERVER_PORT.to_be_bytes(),
        };
        if self.config.direct_bubbles {
            let is_allowed = self.can_pay(index, 2 * DATAGRAM)
                && self.direct_bubble_rates.free_at(&mapped.address) <= now
                && self.direct_bubble_histories.take(mapped, now)
                && self.direct_bubble_rates.take(&mapped.address, now);
            let kind = match is_allowed {
                true => Bubble::SentDirect,
                false => Bubble::LimitedDirect,
            };
            self.statistics.bubbles[kind] += 1;
            if is_allowed {
                self.pay(index, DATAGRAM);
                self.send_bubble(mapped, &payload);
            }
        }
        self.pay(index, DATAGRAM);
        self.statistics.bubbles[Bubble::SentIndirect] += 1;
        if self.is_own_server(server.address) {
            let bubble = payload;
            self.transmits.push_back(Transmit::OwnServer { bubble });
        } else {
            self.send_bubble(server, &payload);
        }
        self.peers[index].pending_mut().history.sent(now);
    }

    pub(super) fn send_bubble(&mut self, to: Endpoint, payload: &[u8]) {
        self.transmits.push_back(Transmit::Datagram {
            to,
            payload: payload.to_vec(),
        });
    }
}
