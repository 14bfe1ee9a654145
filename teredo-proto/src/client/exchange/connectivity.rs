//! The direct IPv6 connectivity test (RFC 4380 section 5.2.9): an echo request through the own
//! server, whose reply comes from the relay next to the host.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::{Exchange, Shared};
use crate::{
    client::statistics::{DropReason, Test as Outcome},
    shared::peers::PeerIndex,
    wire::icmpv6::{self, Echo},
};

/// Maximum number of tests of one peer that may still be answered.
const REMEMBERED: usize = 4;
/// The time for which a test may be answered.
const VALIDITY: Duration = Duration::from_secs(30);

/// Octets of a test's nonce: at least eight (RFC 4380 section 5.2.9), and so many that the reply
/// pays for both bubbles of a relay behind a firewall (L-19).
const NONCE: usize = 24;

/// The latest tests of one peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tests([Option<Test>; REMEMBERED]);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Test {
    nonce: [u8; NONCE],
    identifier: u16,
    sequence: u16,
    sent: Instant,
}

impl Tests {
    /// Adds a test, in place of the oldest.
    fn next(&mut self, random: &mut impl Rng, now: Instant) -> &Test {
        let sequence = self.0[0].map_or(0, |newest| newest.sequence);
        self.0.rotate_right(1);
        self.0[0].insert(Test {
            nonce: random.random(),
            identifier: random.random(),
            sequence: sequence.wrapping_add(1),
            sent: now,
        })
    }

    /// Whether this answers one of the tests.
    fn is_answer(&self, now: Instant, echo: Echo<'_>) -> bool {
        self.0.iter().flatten().any(|test| {
            now.saturating_since(test.sent) < VALIDITY
                && (test.identifier, test.sequence) == (echo.identifier, echo.sequence)
                && test.nonce[..] == *echo.data
        })
    }

    /// Returns the time of the last test; [`Instant::ZERO`] if there was none.
    pub fn last(&self) -> Instant {
        self.0[0].map_or(Instant::ZERO, |test| test.sent)
    }
}

impl Exchange {
    /// Sends a test to a native peer if the rate allows it (C-55, C-58).
    pub(super) fn test(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let Some(identity) = &self.identity else {
            return;
        };
        if !self.limits.take_test(now) {
            shared.statistics.tests[Outcome::Limited] += 1;
            return;
        }
        let peer = &mut self.peers[index];
        let tests = peer.state.tests.get_or_insert_default();
        let test = tests.next(&mut shared.random, now);
        let echo = Echo {
            identifier: test.identifier,
            sequence: test.sequence,
            data: &test.nonce,
        };
        let request = icmpv6::echo_request(&self.own, &peer.address, echo);
        peer.state.awaits = true;
        let port = shared.config.port;
        shared.send(port, identity.server.primary(), request);
        shared.statistics.tests[Outcome::Sent] += 1;
    }

    /// Handles the answer to a test: trusts the peer at the source of the answer (C-36, C-38).
    /// Returns `false` if the packet is not such an answer.
    pub(super) fn handle_answer(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        from: Endpoint,
        packet: &[u8],
    ) -> Result<bool, DropReason> {
        let tests = self.peers[index].state.tests.as_ref();
        let is_answer = tests.is_some_and(|tests| {
            icmpv6::echo_answer(packet).is_some_and(|echo| tests.is_answer(now, echo))
        });
        if !is_answer {
            return Ok(false);
        }
        if !self.may_reach(shared, from) {
            return Err(DropReason::SourceScope);
        }
        shared.statistics.tests[Outcome::Answered] += 1;
        self.relays.note(from, now);
        let state = &mut self.peers[index].state;
        state.is_talking = false;
        state.unanswered_since = None;
        let port = shared.config.port;
        self.trust(shared, now, index, port, from);
        Ok(true)
    }
}
