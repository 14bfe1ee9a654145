//! The IPv6 stack of every host: it answers pings and requests, and remembers received packets.

use std::net::Ipv6Addr;

use teredo_common::time::Instant;
use teredo_proto::wire::{icmpv6, ipv6::Header};

use super::packet::{self, Message};

/// A host's reaction to pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// An echo reply.
    Answered,
    /// Destination Unreachable.
    Refused,
    /// None.
    Ignored,
}

/// A received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Time of arrival.
    pub at: Instant,
    /// Source of the packet.
    pub source: Ipv6Addr,
    /// Content of the packet.
    pub message: Message,
}

/// A host's network stack.
#[derive(Debug)]
pub struct Stack {
    /// The reaction to pings.
    pub pings: Pings,
    /// All received packets, oldest first.
    pub arrivals: Vec<Arrival>,
}

impl Stack {
    /// Makes a stack that has received no packets.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pings: Pings::Answered,
            arrivals: Vec::new(),
        }
    }

    /// Handles a packet for `own` and returns the answer.
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

    /// Time at which the first packet with this message came.
    #[must_use]
    pub fn arrived(&self, message: Message) -> Option<Instant> {
        let mut arrivals = self.arrivals.iter();
        arrivals
            .find(|arrival| arrival.message == message)
            .map(|arrival| arrival.at)
    }

    /// Number of packets with this message.
    #[must_use]
    pub fn count(&self, message: Message) -> usize {
        let arrivals = self.arrivals.iter();
        arrivals
            .filter(|arrival| arrival.message == message)
            .count()
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}
