//! What every host does with IPv6 packets: answers pings and requests, and remembers what came.

use std::net::Ipv6Addr;

use teredo_common::time::Instant;
use teredo_proto::wire::{icmpv6, ipv6::Header};

use super::packet::{self, Message};

/// What a host does when it is pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// It answers.
    Answered,
    /// It sends Destination Unreachable.
    Refused,
    /// Nothing.
    Ignored,
}

/// A packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// From whom.
    pub source: Ipv6Addr,
    /// What it said.
    pub message: Message,
}

/// A host's network stack.
#[derive(Debug)]
pub struct Stack {
    /// See [`Pings`].
    pub pings: Pings,
    /// Everything that came, oldest first.
    pub arrivals: Vec<Arrival>,
}

impl Stack {
    /// One that nothing has come to.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pings: Pings::Answered,
            arrivals: Vec::new(),
        }
    }

    /// Takes a packet for `own`, and gives the answer.
    pub fn handle(&mut self, now: Instant, own: Ipv6Addr, packet: &[u8]) -> Option<Vec<u8>> {
        let header = Header::parse(packet).ok()?;
        if header.destination() != own.octets() {
            return None;
        }
        let (source, message) = (header.source().into(), packet::read(packet));
        self.arrivals.push(Arrival {
            at: now,
            source,
            message,
        });
        match message {
            Message::Request(number) => Some(packet::numbered(own, source, true, number)),
            Message::Ping => match self.pings {
                Pings::Answered => {
                    let mut reply = Vec::new();
                    icmpv6::echo_reply(&own.octets(), packet, &mut reply).then_some(reply)
                }
                Pings::Refused => packet::prohibited(own, packet),
                Pings::Ignored => None,
            },
            _ => None,
        }
    }

    /// When something that says this came first.
    #[must_use]
    pub fn arrived(&self, message: Message) -> Option<Instant> {
        let mut arrivals = self.arrivals.iter();
        arrivals
            .find(|one| one.message == message)
            .map(|one| one.at)
    }

    /// How often something that says this came.
    #[must_use]
    pub fn count(&self, message: Message) -> usize {
        let arrivals = self.arrivals.iter();
        arrivals.filter(|one| one.message == message).count()
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}
