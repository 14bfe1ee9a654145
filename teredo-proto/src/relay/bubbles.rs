//! Asking peers for an answer: bubbles, and their repetition (RFC 4380 section 5.4.1, P-09 to P-11).

use teredo_common::{
    address::{Endpoint, embedded_server},
    cookie::Sent,
    time::Instant,
    wire::SERVER_PORT,
};

use super::{Relay, Transmit};
use crate::{
    relay::statistics::{Bubble, DropReason},
    shared::{
        peers::{PeerIndex, Queue, Step},
        turns::Party,
    },
    wire::bubble,
};

/// The party of procedures that no packet caused.
pub(super) const NOBODY: Party = [0; 8];

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
                if self.is_own_server(server) || self.turns.take(server, now) {
                    self.send_burst(now, index);
                } else {
                    self.wait_for_turn(index, server);
                }
            }
            Step::GiveUp(queue) => self.give_up(now, queue),
        }
    }

    fn wait_for_turn(&mut self, index: PeerIndex, server: [u8; 4]) {
        let (peers, turns) = (&mut self.peers, &mut self.turns);
        let address = peers[index].address;
        peers.wait_for_turn(index, |party| turns.wait(server, party, address));
        let count = peers.trusted() + peers.untrusted();
        turns.compact(count, |turn| peers.is_waiting(turn));
        self.statistics.bubbles[Bubble::LimitedIndirect] += 1;
    }

    /// Sends the bursts whose turn has come.
    pub(super) fn take_turns(&mut self, now: Instant) {
        while let Some(turn) = self.turns.next(now, |turn| self.peers.is_waiting(turn)) {
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
            let is_allowed = self.direct_bubble_histories.take(mapped, now)
                && self.direct_bubble_buckets.take(mapped.address, now);
            let kind = match is_allowed {
                true => Bubble::SentDirect,
                false => Bubble::LimitedDirect,
            };
            self.statistics.bubbles[kind] += 1;
            if is_allowed {
                self.send_bubble(mapped, &payload);
            }
        }
        self.statistics.bubbles[Bubble::SentIndirect] += 1;
        if self.is_own_server(server.address) {
            let bubble = payload;
            self.transmits.push_back(Transmit::OwnServer { bubble });
        } else {
            self.send_bubble(server, &payload);
        }
        self.peers[index].pending_mut().history.sent(now);
    }

    fn send_bubble(&mut self, to: Endpoint, payload: &[u8]) {
        self.transmits.push_back(Transmit::Datagram {
            to,
            payload: payload.to_vec(),
        });
    }
}
