//! What more than one machine counts.

use super::counts::{Count, named};

named! {
    /// What happened when a sender was to be told that its destination is unreachable.
    Unreachable {
        /// Sent.
        Sent = "sent",
        /// RFC 4443 forbids an error about this packet.
        Forbidden = "forbidden",
        /// This host has no global IPv6 address to send it from.
        NoSource = "no-source",
        /// Too many were sent.
        RateLimited = "rate-limited",
    }
}

/// Packets and their octets, as IPv6 packets: without encapsulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of packets.
    pub packets: u64,
    /// Number of octets.
    pub octets: u64,
}

impl Count for Traffic {}

impl Traffic {
    pub(crate) fn add(&mut self, octets: usize) {
        self.add_many(1, octets);
    }

    /// Adds packets that have so many octets together.
    pub(crate) fn add_many(&mut self, packets: usize, octets: usize) {
        self.packets += packets as u64;
        self.octets += octets as u64;
    }
}
