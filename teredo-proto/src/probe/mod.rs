//! Measurements of what a Teredo client would meet on this host: [`NatProbe`] finds out whether the
//! server answers and, in the terms of RFC 4787, the behaviour of the NAT; [`LifetimeProbe`] how long
//! the NAT keeps an unused mapping; [`RelayProbe`] which relay a native host's packets come through.
//!
//! A measurement names sockets by number, from 0; its caller opens `SOCKETS` of them. Datagrams go
//! to the two addresses of the server, to this host's own mapped endpoints, and to a relay that asks for an
//! answer by way of the server; nowhere else. The
//! [order of calls](crate#the-order-of-calls) is that of every machine.

mod attempt;
mod findings;
mod hairpinning;
mod lifetime;
mod nat;
mod outbox;
mod question;
mod relay;

#[cfg(test)]
mod tests;

use teredo_common::{address::Endpoint, time::Instant};

pub use crate::nat::{Filtering, Kind, Mapping, Ports};
pub use findings::{Findings, Reach};
pub use lifetime::{IDLE, Lifetime, LifetimeProbe, Progress};
pub use nat::NatProbe;
pub use relay::{RelayProbe, Way};

/// A UDP datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Number of the socket that the datagram leaves from.
    pub socket: usize,
    /// Destination endpoint.
    pub to: Endpoint,
    /// UDP payload.
    pub payload: Vec<u8>,
}

/// A measurement under way.
pub trait Measurement {
    /// Handles the payload of a UDP datagram that arrived at the socket of this number.
    fn handle_datagram(&mut self, now: Instant, socket: usize, from: Endpoint, payload: &[u8]);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// Returns the next datagram to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// Returns the time at which to call [`Measurement::handle_timeout`], or `None` once the
    /// measurement is complete.
    fn poll_timeout(&self) -> Option<Instant>;
}
