//! A solicitation that is repeated until the server answers.

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    attempt::{Attempt, Delays, Step},
    findings::Reach,
    outbox::Outbox,
};
use crate::{
    ServerAddress,
    client::{
        DropReason,
        solicitation::{Advertised, Solicitation},
    },
    wire::encapsulation::Encapsulation,
};

/// Quicker than a client, whose user does not watch it.
const DELAYS: Delays = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
];
/// No way through a NAT and back takes less than this for certain.
const SHORTEST_DELAY: Duration = Duration::from_millis(200);

/// A question to one address of the server.
#[derive(Debug)]
pub struct Question {
    socket: usize,
    asked: ServerAddress,
    cone: bool,
    attempt: Attempt,
    sent: Vec<(Instant, Solicitation)>,
    answer: Option<Answer>,
    /// Why the last thing that was no answer was none.
    rejected: Option<DropReason>,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// From the solicitation to the advertisement.
    pub round_trip: Duration,
    /// What the server said.
    pub advertised: Advertised,
}

impl Question {
    /// A question that will be asked at `start`. With `cone` the answer is to come from the address
    /// that was not asked.
    pub const fn new(start: Instant, socket: usize, asked: ServerAddress, cone: bool) -> Self {
        Self {
            socket,
            asked,
            cone,
            attempt: Attempt::new(DELAYS, start),
            sent: Vec::new(),
            answer: None,
            rejected: None,
        }
    }

    /// Asks, if that is due.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        if self.attempt.step(now) == Step::Send {
            let solicitation = outbox.solicit(self.socket, self.asked, self.cone);
            self.sent.push((now, solicitation));
        }
    }

    /// Takes an advertisement that a socket received, if it is the answer.
    pub fn handle_advertisement(
        &mut self,
        now: Instant,
        outbox: &Outbox,
        socket: usize,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) {
        if socket != self.socket || self.answer.is_some() {
            return;
        }
        for (sent, solicitation) in &self.sent {
            match solicitation.verify(&outbox.config, from, parts) {
                Ok(advertised) => {
                    self.answer = Some(Answer {
                        round_trip: now.saturating_since(*sent),
                        advertised,
                    });
                    self.attempt.end();
                    return;
                }
                // It is the answer to another question.
                Err(DropReason::AdvertisementNonce | DropReason::AdvertisementSource) => {}
                Err(reason) => self.rejected = Some(reason),
            }
        }
    }

    /// Waits for the answer no longer than a few of these round trips.
    pub fn hurry(&mut self, now: Instant, round_trip: Duration) {
        self.attempt
            .hurry(now, (4 * round_trip).max(SHORTEST_DELAY));
    }

    /// When something is due; `None` when there is an answer or nothing more is asked.
    pub const fn due(&self) -> Option<Instant> {
        self.attempt.due()
    }

    /// The answer, if there is one.
    pub const fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Where the server sees the socket, if it has answered.
    pub fn mapped(&self) -> Option<Endpoint> {
        self.answer.map(|answer| answer.advertised.mapped)
    }

    /// What became of it.
    pub fn reach(&self) -> Reach {
        match (self.answer, self.rejected) {
            (Some(answer), _) => Reach::Answers(answer.round_trip),
            (None, Some(reason)) => Reach::Rejected(reason),
            (None, None) => Reach::Silent,
        }
    }
}
