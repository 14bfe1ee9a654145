//! The relay through which a native host reaches clients: the one that its answer to a connectivity test
//! comes back by (RFC 4380 section 5.2.9).

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    Measurement, Transmit,
    attempt::{Attempt, Delays, Step},
    outbox::Outbox,
    question::Question,
};
use crate::{
    ServerAddress,
    client::ServerEndpoints,
    wire::{
        encapsulation,
        icmpv6::{self, Echo},
        ipv6::Header,
        router,
    },
};

/// The only socket.
const SOCKET: usize = 0;
/// To the host by way of the server, and back by way of the relay, which has to find the client first.
const DELAYS: Delays = [Duration::from_secs(2); 3];

/// The outcome of a [`RelayProbe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The server does not answer.
    NoServer,
    /// The host does not answer: it is not there, or answers no echo requests, or its network has no relay, or
    /// the server does not forward connectivity tests.
    Silent,
    /// The host answers.
    Answers {
        /// The relay.
        relay: Endpoint,
        /// From the test to its answer, the first exchange with the relay included.
        first: Duration,
        /// Whether the relay asked for a bubble before it sent the answer.
        introduced: bool,
    },
}

/// A measurement of the way of a native host to clients.
#[derive(Debug)]
pub struct RelayProbe {
    outbox: Outbox,
    host: [u8; 16],
    question: Question,
    /// The tests, when the server has answered, and the address that they are sent from.
    tests: Option<(Attempt, [u8; 16])>,
    nonce: [u8; 16],
    /// When the first test was sent.
    sent: Option<Instant>,
    introduced: bool,
    way: Option<Way>,
}

impl RelayProbe {
    /// Number of sockets that the measurement needs.
    pub const SOCKETS: usize = 1;

    /// Starts a measurement of the way of `host` with this server. `seed` comes from the operating system's
    /// random number generator.
    #[must_use]
    pub fn new(server: ServerEndpoints, host: [u8; 16], seed: [u8; 32], now: Instant) -> Self {
        let mut outbox = Outbox::new(server, seed);
        Self {
            nonce: outbox.mark(),
            outbox,
            host,
            question: Question::new(now, SOCKET, ServerAddress::Primary, false),
            tests: None,
            sent: None,
            introduced: false,
            way: None,
        }
    }

    /// Returns the outcome, as far as it is known.
    #[must_use]
    pub fn way(&self) -> Way {
        let unknown = if self.tests.is_some() {
            Way::Silent
        } else {
            Way::NoServer
        };
        self.way.unwrap_or(unknown)
    }

    fn handle_advertised(&mut self, now: Instant) {
        if let Some(mapped) = self.question.mapped()
            && self.tests.is_none()
        {
            let address = self.outbox.teredo_address(mapped).octets();
            self.tests = Some((Attempt::new(DELAYS, now), address));
        }
    }

    /// Answers an indirect bubble, whose sender the server names (C-34).
    fn handle_bubble(&mut self, origin: Endpoint, header: Header<'_>) {
        if let Some((_, own)) = self.tests
            && header.destination() == own
            && self.outbox.config.ipv4_scope.accepts(origin.address)
        {
            self.introduced = true;
            let source = header.source();
            self.outbox.bubble(SOCKET, origin, &own, &source);
        }
    }

    fn handle_packet(&mut self, now: Instant, from: Endpoint, packet: &[u8], header: Header<'_>) {
        let is_answer = icmpv6::echo_answer(packet).is_some_and(|echo| echo.data == self.nonce);
        if let Some((attempt, own)) = &mut self.tests
            && let Some(sent) = self.sent
            && is_answer
            && header.source() == self.host
            && header.destination() == *own
        {
            attempt.end();
            self.way.get_or_insert(Way::Answers {
                relay: from,
                first: now.saturating_since(sent),
                introduced: self.introduced,
            });
        }
    }
}

impl Measurement for RelayProbe {
    fn handle_datagram(&mut self, now: Instant, socket: usize, from: Endpoint, payload: &[u8]) {
        let Ok(parts) = encapsulation::parse(payload) else {
            return;
        };
        let Ok(header) = Header::parse(parts.packet) else {
            return;
        };
        let server = self.outbox.server.primary();
        if router::is_advertisement(header, parts.packet) {
            self.question
                .handle_advertisement(now, &self.outbox, socket, from, &parts);
            self.handle_advertised(now);
        } else if header.is_bubble() {
            if let Some(origin) = parts.origin
                && from == server
            {
                self.handle_bubble(origin, header);
            }
        } else if from != server {
            self.handle_packet(now, from, parts.packet, header);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.question.handle_timeout(now, &mut self.outbox);
        let Some((attempt, own)) = &mut self.tests else {
            return;
        };
        if attempt.step(now) == Step::Send {
            let echo = Echo {
                identifier: 0,
                sequence: 0,
                data: &self.nonce,
            };
            let payload = icmpv6::echo_request(own, &self.host, echo);
            self.sent.get_or_insert(now);
            self.outbox.send(Transmit {
                socket: SOCKET,
                to: self.outbox.server.primary(),
                payload,
            });
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.poll()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let tests = self.tests.as_ref().and_then(|(attempt, _)| attempt.due());
        [self.question.due(), tests].into_iter().flatten().min()
    }
}
