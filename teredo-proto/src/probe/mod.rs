//! Measures what a Teredo client would meet on this host: whether its server answers, what the NAT is
//! like in the words of RFC 4787, and how long it keeps a mapping.
//!
//! Datagrams go to the two addresses of the server and to this host's own mapped endpoints, and
//! nowhere else. Sockets are named by number; who runs a measurement has opened them.

mod attempt;
mod findings;
mod hairpinning;
mod lifetime;
mod nat;
mod outbox;
mod question;

#[cfg(test)]
mod tests;

use teredo_common::{address::Endpoint, time::Instant};

pub use findings::{Filtering, Findings, Kind, Mapping, Ports, Reach};
pub use lifetime::{IDLE, Lifetime, LifetimeProbe, Progress};
pub use nat::NatProbe;

/// A datagram that a measurement wants to have sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The number of the socket that it leaves from.
    pub socket: usize,
    /// Where to.
    pub to: Endpoint,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// Something that is found out by sending datagrams and waiting for others.
pub trait Measurement {
    /// Takes the UDP payload that a socket received.
    fn handle_datagram(&mut self, now: Instant, socket: usize, from: Endpoint, payload: &[u8]);

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);

    /// The next datagram to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// When to call [`Measurement::handle_timeout`]; `None` when everything is found out.
    fn poll_timeout(&self) -> Option<Instant>;
}
