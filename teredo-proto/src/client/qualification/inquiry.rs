//! Solicitations to one address of the server, until it answers or was asked often enough.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::{
    super::{Config, ServerEndpoints, shared::Shared, statistics::DropReason},
    solicitation::{Advertised, Solicitation},
};
use crate::{ServerAddress, wire::encapsulation::Encapsulation};

/// How long a solicitation may remain unanswered: T of RFC 4380 section 5.2.1.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Solicitations until the server is given up: N of RFC 4380 section 5.2.1.
const ATTEMPTS: usize = 3;

/// Solicitations to one address of the server that are not answered yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inquiry {
    /// The local port.
    port: u16,
    server: ServerEndpoints,
    asked: ServerAddress,
    cone: bool,
    /// An answer to any of them is good.
    outstanding: Vec<Solicitation>,
    /// When the last of them was sent.
    sent: Instant,
}

impl Inquiry {
    /// Sends the first solicitation, from a local port.
    pub fn send(
        shared: &mut Shared,
        now: Instant,
        port: u16,
        server: ServerEndpoints,
        asked: ServerAddress,
        cone: bool,
    ) -> Self {
        let mut inquiry = Self {
            port,
            server,
            asked,
            cone,
            outstanding: Vec::new(),
            sent: now,
        };
        inquiry.solicit(shared, now);
        inquiry
    }

    fn solicit(&mut self, shared: &mut Shared, now: Instant) {
        let (solicitation, payload) = Solicitation::new(
            &shared.config,
            &mut shared.random,
            self.server,
            self.asked,
            self.cone,
        );
        shared.statistics.solicitations += 1;
        shared.send(self.port, solicitation.destination(), payload);
        self.outstanding.push(solicitation);
        self.sent = now;
    }

    /// Whether the cone flag is set in the solicitations.
    pub const fn is_cone(&self) -> bool {
        self.cone
    }

    /// When [`Inquiry::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Instant {
        self.sent + TIMEOUT
    }

    /// When the last solicitation was sent.
    pub const fn sent(&self) -> Instant {
        self.sent
    }

    /// Asks again when it is time to. Returns `false` if there was no answer in the end.
    pub fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) -> bool {
        if now < self.deadline() {
            return true;
        }
        if self.outstanding.len() >= ATTEMPTS {
            return false;
        }
        self.solicit(shared, now);
        true
    }

    /// Returns the contents of an advertisement that answers one of the solicitations.
    ///
    /// # Errors
    ///
    /// The reason why the advertisement has to be dropped.
    pub fn verify(
        &self,
        config: &Config,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<Advertised, DropReason> {
        let mut reason = DropReason::AdvertisementNonce;
        for solicitation in &self.outstanding {
            match solicitation.verify(config, from, parts) {
                Ok(advertised) => return Ok(advertised),
                Err(DropReason::AdvertisementNonce) => {}
                Err(other) => reason = other,
            }
        }
        Err(reason)
    }
}
