//! Asking a peer until it answers: bubbles to clients, connectivity tests to native hosts (P-09 to
//! P-11, C-51).

use teredo_common::{address::embedded_server, time::Instant};

use super::{Exchange, Shared};
use crate::{
    client::statistics::{Bubble, DropReason, Test},
    shared::{
        party::NOBODY,
        peers::{PeerIndex, Queue, Step},
    },
    wire::icmpv6::ADDRESS_UNREACHABLE,
};

impl Exchange {
    /// Asks now, or as soon as that is allowed, and again until there is an answer.
    pub(super) fn start_procedure(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let state = &mut self.peers[index].state;
        state.nonces.begin();
        state.random.is_unpredictable = false;
        self.peers.start_procedure(now, index, NOBODY);
        self.proceed(shared, now, index);
    }

    /// Takes the next step of a procedure if it is due. What goes through a server may have to wait
    /// for its turn (L-18).
    pub(super) fn proceed(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        match self.peers.next_step(now, index, &mut shared.random) {
            Step::Wait => {}
            Step::Burst(attempts) => match self.server_to_ask(shared, now, index, attempts) {
                None => self.ask(shared, now, index, attempts),
                Some(server) if self.turns.take(server, now) => {
                    self.ask(shared, now, index, attempts);
                }
                Some(server) => self.wait_for_turn(shared, now, index, server),
            },
            Step::GiveUp(queue) => self.give_up(shared, now, index, queue),
        }
    }

    fn wait_for_turn(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        server: [u8; 4],
    ) {
        let (peers, turns) = (&mut self.peers, &mut self.turns);
        let address = peers[index].address;
        peers.wait_for_turn(index, |party| turns.wait(server, party, address, now));
        turns.compact(|turn| peers.is_waiting(turn));
        match shared.config.prefix.contains(&address) {
            true => shared.statistics.bubbles[Bubble::LimitedIndirect] += 1,
            false => shared.statistics.tests[Test::Limited] += 1,
        }
    }

    /// Asks the peers whose turn has come.
    pub(super) fn take_turns(&mut self, shared: &mut Shared, now: Instant) {
        while let Some(turn) = self.turns.next(now, |turn| self.peers.is_waiting(turn)) {
            let Some(index) = self.peers.take_turn(now, turn) else {
                continue;
            };
            match self.peers.next_step(now, index, &mut shared.random) {
                Step::Wait => {}
                Step::Burst(attempts) => self.ask(shared, now, index, attempts),
                Step::GiveUp(queue) => self.give_up(shared, now, index, queue),
            }
        }
    }

    /// The server through which a peer is asked next, after `attempts` times before; `None` if it is
    /// asked directly or on the link.
    fn server_to_ask(
        &self,
        shared: &Shared,
        now: Instant,
        index: PeerIndex,
        attempts: u8,
    ) -> Option<[u8; 4]> {
        let peer = &self.peers[index];
        if !shared.config.prefix.contains(&peer.address) {
            return Some(self.identity?.server.primary.octets());
        }
        let is_local = attempts == 0 && peer.state.local(now).is_some();
        let is_direct = is_local || self.may_solicit(shared, index, attempts);
        (!is_direct).then(|| embedded_server(&peer.address))
    }

    /// Asks once, after `attempts` times before, with the turn of a server if it needs one. A peer on
    /// the same link is looked for elsewhere only if it does not answer there (C-63).
    fn ask(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex, attempts: u8) {
        if !shared.config.prefix.contains(&self.peers[index].address) {
            return self.test(shared, now, index);
        }
        let has_turn = self.server_to_ask(shared, now, index, attempts).is_some();
        let mut is_sent = self.greet_local(shared, now, index);
        if (!is_sent || attempts > 0) && !self.solicit(shared, now, index, attempts) {
            is_sent |= self.send_burst(shared, now, index, has_turn);
        } else {
            is_sent = true;
        }
        if is_sent {
            self.count_burst(now, index);
        }
    }

    /// Drops the packets that waited in vain, and informs the host of its newest one (P-11).
    fn give_up(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex, queue: Queue) {
        let state = &mut self.peers[index].state;
        state.nonces.end();
        for _ in self.held.drain(std::mem::take(&mut state.held)) {
            shared.statistics.dropped[DropReason::NoAnswer] += 1;
        }
        let mut newest = None;
        for packet in self.queues.drain(queue) {
            shared.statistics.dropped[DropReason::HostNoAnswer] += 1;
            newest = Some(packet);
        }
        if let Some(packet) = newest {
            self.refuse(shared, now, ADDRESS_UNREACHABLE, &packet);
        }
        if !self.peers[index].is_trusted() {
            self.close_random_port(shared, index);
        }
    }
}
