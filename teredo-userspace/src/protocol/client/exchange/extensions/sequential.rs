//! Echo tests (RFC 6081 section 5.5): a symmetric NAT that counts its ports up gives a peer the one
//! between those that it gives to the two addresses of the server, if the three are sent to back to
//! back.
#![cfg_attr(
    not(test),
    expect(dead_code, reason = "needs ports besides the service port")
)]

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use crate::{
    protocol::client::{
        Config, Server,
        shared::Shared,
        solicitation::{Asked, Solicitation},
        statistics::DropReason,
    },
    wire::encapsulation::Encapsulation,
};

/// Echo tests for one peer, until it is asked without a port.
pub const ATTEMPTS: u8 = 2;

/// One echo test. Its advertisements change nothing but its outcome.
#[derive(Debug)]
pub struct EchoTest {
    /// Where everything was sent from.
    port: u16,
    /// 1 for the first test, 2 for the second.
    attempt: u8,
    /// Of the server's primary address and of the other.
    halves: [Half; 2],
    deadline: Instant,
}

/// What was asked, and the outer port that the answer tells of.
#[derive(Debug)]
struct Half {
    solicitation: Solicitation,
    answer: Option<u16>,
}

impl EchoTest {
    /// Sends a solicitation to the one address of the server, the direct bubble to the peer, and a
    /// solicitation to the other address, from a local port that was not used before.
    pub fn start(
        shared: &mut Shared,
        now: Instant,
        server: Server,
        port: u16,
        attempt: u8,
        peer: Endpoint,
        bubble: Vec<u8>,
    ) -> Self {
        let primary = Half::ask(shared, server, port, Asked::Primary);
        shared.send(port, peer, bubble);
        let secondary = Half::ask(shared, server, port, Asked::Secondary);
        Self {
            port,
            attempt,
            halves: [primary, secondary],
            // As many seconds as there were tests.
            deadline: now + Duration::from_secs(u64::from(attempt)),
        }
    }

    /// The local port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// 1 for the first test, 2 for the second.
    pub const fn attempt(&self) -> u8 {
        self.attempt
    }

    /// When the test has failed.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes an advertisement that came to the port. The outer port that the bubble left from, once
    /// both addresses have answered.
    pub fn handle_advertisement(
        &mut self,
        config: &Config,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<Option<u16>, DropReason> {
        let mut reason = DropReason::AdvertisementSource;
        for half in &mut self.halves {
            match half.solicitation.verify(config, from, parts) {
                Ok(advertised) => {
                    half.answer = Some(advertised.mapped.port());
                    return Ok(self.midpoint());
                }
                // The other address may have answered.
                Err(DropReason::AdvertisementSource) => {}
                Err(other) => reason = other,
            }
        }
        Err(reason)
    }

    /// The midpoint of both ports, rounded down (DEC-16).
    fn midpoint(&self) -> Option<u16> {
        let [lower, upper] = &self.halves;
        Some(lower.answer?.midpoint(upper.answer?))
    }
}

impl Half {
    fn ask(shared: &mut Shared, server: Server, port: u16, asked: Asked) -> Self {
        let (config, random) = (&shared.config, &mut shared.random);
        let (solicitation, payload) = Solicitation::new(config, random, server, asked, false);
        shared.statistics.solicitations += 1;
        shared.send(port, solicitation.destination(), payload);
        Self {
            solicitation,
            answer: None,
        }
    }
}
