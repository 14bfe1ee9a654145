//! Whether the NAT lets two of its own hosts meet by their mapped endpoints (RFC 4787 section 6),
//! and what that tells of its filter.

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    attempt::{Attempt, Delays, Step},
    outbox::Outbox,
};
use crate::wire::ipv6::Header;

/// No further than to the NAT and back.
const DELAYS: Delays = [Duration::from_millis(150); 3];

/// What the receiver had sent before something reached it. In this order it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing.
    Nothing,
    /// Something to another port of the sender's mapped address.
    Address,
    /// Something to the sender's mapped endpoint.
    Endpoint,
}

/// One of the sockets that take part.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Its number.
    pub socket: usize,
    /// Where the server sees it.
    pub mapped: Endpoint,
}

/// The test: bubbles between two sockets, by way of the NAT.
#[derive(Debug)]
pub struct Hairpinning {
    sender: Party,
    receiver: Party,
    /// The endpoint of somebody else behind the same NAT, if it is at the same address.
    other: Option<Endpoint>,
    opened: Opened,
    /// The source of the bubbles of each step.
    marks: [[u8; 16]; 3],
    attempt: Attempt,
    arrived: Option<Opened>,
}

impl Hairpinning {
    pub fn new(
        start: Instant,
        [sender, receiver]: [Party; 2],
        other: Option<Endpoint>,
        outbox: &mut Outbox,
    ) -> Self {
        let is_there = |other: &Endpoint| other.address == sender.mapped.address;
        Self {
            sender,
            receiver,
            other: other.filter(is_there),
            opened: Opened::Nothing,
            marks: [(); 3].map(|()| outbox.mark()),
            attempt: Attempt::new(DELAYS, start),
            arrived: None,
        }
    }

    /// When something is due; `None` when the test has ended.
    pub const fn due(&self) -> Option<Instant> {
        self.attempt.due()
    }

    /// Whether a bubble arrived.
    pub const fn has_arrived(&self) -> bool {
        self.arrived.is_some()
    }

    /// What the receiver had to send before a bubble reached it, if that could be told.
    pub fn told(&self) -> Option<Opened> {
        self.arrived.filter(|_| self.other.is_some())
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        match self.attempt.step(now) {
            Step::Wait => {}
            Step::Send => self.send(outbox),
            Step::GiveUp => {
                self.opened = match self.opened {
                    Opened::Nothing if self.other.is_some() => Opened::Address,
                    Opened::Nothing | Opened::Address => Opened::Endpoint,
                    Opened::Endpoint => return,
                };
                self.attempt = Attempt::new(DELAYS, now);
                self.handle_timeout(now, outbox);
            }
        }
    }

    fn send(&self, outbox: &mut Outbox) {
        let (sender, receiver) = (self.sender, self.receiver);
        let mark = &self.marks[self.opened as usize];
        let mut bubble = |from: Party, to: Endpoint| {
            let destination = outbox.teredo_address(to).octets();
            outbox.bubble(from.socket, to, mark, &destination);
        };
        match (self.opened, self.other) {
            (Opened::Address, Some(other)) => bubble(receiver, other),
            (Opened::Endpoint, _) => bubble(receiver, sender.mapped),
            _ => {}
        }
        bubble(sender, receiver.mapped);
    }

    /// Takes a bubble that a socket received, and did not come from the server.
    pub fn handle_bubble(&mut self, socket: usize, header: Header<'_>) {
        let source = header.source();
        let steps = [Opened::Nothing, Opened::Address, Opened::Endpoint];
        let step = self
            .marks
            .iter()
            .zip(steps)
            .find(|(mark, _)| **mark == source);
        let takes_part = [self.sender.socket, self.receiver.socket].contains(&socket);
        if let Some((_, step)) = step
            && takes_part
        {
            self.arrived.get_or_insert(step);
            self.attempt.end();
        }
    }
}
