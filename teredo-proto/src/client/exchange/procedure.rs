//! Asking a peer until it answers: bubbles to clients, connectivity tests to native hosts (P-09 to
//! P-11, C-51).

use teredo_common::time::Instant;

use super::{Exchange, Shared};
use crate::{
    client::statistics::DropReason,
    shared::peers::{PeerIndex, Queue, Step},
    wire::icmpv6::ADDRESS_UNREACHABLE,
};

impl Exchange {
    /// Asks now, or as soon as that is allowed, and again until there is an answer.
    pub(super) fn start_procedure(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let state = &mut self.peers[index].state;
        state.nonces.begin();
        state.random.is_unpredictable = false;
        self.peers.start_procedure(now, index);
        self.proceed(shared, now, index);
    }

    /// Takes the next step of a procedure if it is due.
    pub(super) fn proceed(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        match self.peers.next_step(now, index, &mut shared.random) {
            Step::Wait => {}
            Step::Burst(attempts) => self.ask(shared, now, index, attempts),
            Step::GiveUp(queue) => self.give_up(shared, now, index, queue),
        }
    }

    /// Asks once, after `attempts` times before. A peer on the same link is looked for elsewhere
    /// only if it does not answer there (C-63).
    fn ask(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex, attempts: u8) {
        if !shared.config.prefix.contains(&self.peers[index].address) {
            return self.test(shared, now, index);
        }
        let mut is_sent = self.greet_local(shared, now, index);
        if (!is_sent || attempts > 0) && !self.solicit(shared, now, index, attempts) {
            is_sent |= self.send_burst(shared, now, index);
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
