//! Asking a peer until it answers: bubbles to clients, connectivity tests to native hosts (P-09 to
//! P-11, C-51).

use std::time::Duration;

use rand::RngExt as _;
use teredo_common::time::Instant;

use super::{Exchange, Shared};
use crate::{
    client::statistics::DropReason,
    shared::{
        bubble::{ATTEMPTS, GAP, JITTER, Procedure, Refused},
        peers::PeerIndex,
    },
    wire::icmpv6::ADDRESS_UNREACHABLE,
};

impl Exchange {
    /// Asks now, or as soon as that is allowed, and again until there is an answer.
    pub(super) fn start_procedure(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let peer = &mut self.peers[index];
        peer.state.nonces.begin();
        peer.state.random.is_unpredictable = false;
        peer.pending_mut().procedure = Some(Procedure {
            attempts: 0,
            next: now,
        });
        self.proceed(shared, now, index);
    }

    /// Takes the next step of a procedure if it is due.
    pub(super) fn proceed(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let peer = &mut self.peers[index];
        let is_teredo = shared.config.prefix.contains(&peer.address);
        let pending = peer.pending_mut();
        let Some(mut procedure) = pending.procedure else {
            return;
        };
        if now >= procedure.next {
            let permitted = match is_teredo {
                true => pending.history.check(now),
                false => Ok(()),
            };
            match permitted {
                Err(Refused::TooSoon(at)) => procedure.next = at + jitter(shared),
                Ok(()) if procedure.attempts < ATTEMPTS => {
                    self.ask(shared, now, index, procedure.attempts);
                    procedure.attempts += 1;
                    procedure.next = now + GAP + jitter(shared);
                }
                Ok(()) | Err(Refused::Exhausted) => return self.give_up(shared, now, index),
            }
        }
        self.peers[index].pending_mut().procedure = Some(procedure);
        self.peers.arm(index, procedure.next);
        if self.peers[index].is_trusted() {
            self.arm_trusted(now, index);
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
            is_sent |= self.burst(shared, now, index);
        } else {
            is_sent = true;
        }
        if is_sent {
            self.count_burst(now, index);
        }
    }

    /// No answer (P-11): drops what waited and tells the host of the newest packet. The entry stays
    /// until its bubbles are forgotten, for the limit to hold.
    fn give_up(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let peer = &mut self.peers[index];
        let mut held = std::mem::take(&mut peer.state.held);
        peer.state.nonces.end();
        let pending = peer.pending_mut();
        pending.procedure = None;
        let mut queue = std::mem::take(&mut pending.queue);
        while self.held.pop(&mut held).is_some() {
            shared.statistics.count_drop(DropReason::NoAnswer);
        }
        let mut newest = None;
        while let Some(packet) = self.queues.pop(&mut queue) {
            shared.statistics.count_drop(DropReason::HostNoAnswer);
            newest = Some(packet);
        }
        if let Some(packet) = newest {
            self.refuse(shared, now, ADDRESS_UNREACHABLE, &packet);
        }
        if self.peers[index].is_trusted() {
            self.arm_trusted(now, index);
        } else {
            self.close_random_port(shared, index);
            self.arm_removal(index);
        }
    }
}

/// See [`JITTER`].
pub fn jitter(shared: &mut Shared) -> Duration {
    shared.random.random_range(Duration::ZERO..=JITTER)
}
