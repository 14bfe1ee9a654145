//! Support for symmetric NATs that assign ports sequentially (RFC 6081 section 5.5): two
//! solicitations around a bubble show which port the NAT gave to the bubble.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::super::{Exchange, Identity, Shared};
use crate::{
    ServerAddress,
    client::{Nat, solicitation::Solicitation, statistics::DropReason},
    shared::peers::PeerIndex,
    wire::encapsulation::Encapsulation,
};

/// Echo tests of one burst.
const ATTEMPTS: u8 = 2;
/// The time that one may take: the second ends when the next burst may begin.
const TEST_TIMEOUT: Duration = Duration::from_secs(1);

/// An echo test under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EchoTest {
    lower: Solicitation,
    upper: Solicitation,
    lower_port: Option<u16>,
    upper_port: Option<u16>,
    /// The number of the test, from 1.
    attempt: u8,
    /// The time at which another one replaces it, or the bubble is sent without.
    deadline: Instant,
}

impl Exchange {
    /// Whether indirect bubbles to a peer need an echo test first.
    pub(in super::super) fn needs_echo_test(
        &self,
        shared: &Shared,
        now: Instant,
        index: PeerIndex,
    ) -> bool {
        let extensions = shared.config.extensions;
        let is_symmetric = |own: &Identity| own.nat == Nat::Symmetric && !own.port_preserving;
        extensions.symmetric
            && extensions.port_preserving
            && extensions.sequential
            && self.identity.as_ref().is_some_and(is_symmetric)
            && !self.peers.is_usable(now, index)
            && !self.peers[index].state.random.is_unpredictable
    }

    /// Starts an echo test: sends, from a fresh port and back to back, a solicitation to each
    /// address of the server, and a bubble in between.
    pub(in super::super) fn start_echo_test(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        attempt: u8,
    ) {
        self.renew_random_port(shared, now, index);
        let state = &mut self.peers[index].state;
        state.random.predicted = 0;
        let (Some(identity), Some((port, _))) = (self.identity, state.random.own) else {
            self.send_indirect(shared, now, index);
            return;
        };
        let config = &shared.config;
        let mut solicit =
            |asked| Solicitation::new(config, &mut shared.random, identity.server, asked, false);
        let (lower, first) = solicit(ServerAddress::Primary);
        let (upper, second) = solicit(ServerAddress::Secondary);
        shared.send(port, lower.destination(), first);
        let to = self.probed(index);
        if self.may_reach(shared, to) && self.limits.take_answer(to, now) {
            self.send_bubble(shared, port, index, to);
        }
        shared.send(port, upper.destination(), second);
        let deadline = now + TEST_TIMEOUT;
        let state = &mut self.peers[index].state;
        // Its bubble is the one more that a burst may have.
        state.may_answer &= attempt == 1;
        state.echo = Some(Box::new(EchoTest {
            lower,
            upper,
            lower_port: None,
            upper_port: None,
            attempt,
            deadline,
        }));
        self.peers.arm(index, deadline);
    }

    /// Returns the destination of a test's bubble, for which the NAT creates the mapping.
    fn probed(&self, index: PeerIndex) -> Endpoint {
        let peer = &self.peers[index];
        let embedded = teredo_common::address::embedded_mapping(&peer.address);
        match peer.state.random.peer {
            0 => embedded,
            port => Endpoint {
                port: port.to_be_bytes(),
                ..embedded
            },
        }
    }

    /// Handles an advertisement that arrived at a port of a peer. It does not concern the client
    /// itself.
    pub(in super::super) fn handle_echo(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: u16,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        let peer = self.ports.peer(to).ok_or(DropReason::Port)?;
        let index = self.peers.find(&peer).ok_or(DropReason::Port)?;
        let state = &mut self.peers[index].state;
        let test = state.echo.as_mut().ok_or(DropReason::Port)?;
        match test.lower.verify(&shared.config, from, parts) {
            Ok(advertised) => test.lower_port = Some(advertised.mapped.port()),
            Err(_) => {
                let advertised = test.upper.verify(&shared.config, from, parts)?;
                test.upper_port = Some(advertised.mapped.port());
            }
        }
        if let (Some(lower), Some(upper)) = (test.lower_port, test.upper_port) {
            state.random.predicted = lower.midpoint(upper);
            state.echo = None;
            self.send_late(shared, now, index);
        }
        Ok(())
    }

    /// Handles a test without an answer in time: starts another one, or sends the bubble without
    ///
    pub(in super::super) fn handle_echo_timeout(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) {
        let test = self.peers[index].state.echo.as_ref();
        let Some((attempt, deadline)) = test.map(|test| (test.attempt, test.deadline)) else {
            return;
        };
        if now < deadline {
            self.peers.arm(index, deadline);
        } else if attempt < ATTEMPTS {
            self.start_echo_test(shared, now, index, attempt + 1);
        } else {
            self.close_random_port(shared, index);
            self.peers[index].state.random.is_unpredictable = true;
            if !self.peers[index].is_asked() {
                self.send_late(shared, now, index);
            }
        }
    }

    /// Sends the indirect bubble that was held back for the test; the next burst is put off.
    fn send_late(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        self.send_indirect(shared, now, index);
        self.peers.prolong_burst(now, index, &mut shared.random);
    }
}
