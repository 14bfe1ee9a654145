//! Between the client and its peers: Teredo clients, and native hosts through their relays
//! (RFC 4380 sections 5.2.3, 5.2.4, 5.2.6, 5.2.8 and 5.2.9; RFC 6081).

use std::net::Ipv4Addr;

use teredo_common::{address::Endpoint, time::Instant};

use super::{Identity, PeerInfo, Reason, shared::Shared, statistics::DropReason};
use crate::wire::encapsulation::Encapsulation;

/// The half of the client that talks with peers.
#[derive(Debug, Default)]
pub struct Exchange {}

/// Where a packet of the host goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Now, from this local port to this endpoint, as many octets.
    Send(u16, Endpoint, usize),
    /// The packet waits for an answer.
    Queued,
}

impl Exchange {
    /// The client has another address, or none; peers are forgotten if it is another (C-45).
    pub fn set_identity(
        &mut self,
        _shared: &mut Shared,
        _now: Instant,
        _identity: Option<Identity>,
    ) {
    }

    /// Takes a packet of the host.
    pub fn handle_ipv6(
        &mut self,
        _shared: &mut Shared,
        _now: Instant,
        _packet: &[u8],
    ) -> Result<Way, DropReason> {
        Err(DropReason::NotQualified)
    }

    /// Takes a datagram that came to the service port or one of the ports that this half opened,
    /// and is no advertisement at the service port. The length of the inner packet if the host is
    /// to have it now.
    pub fn handle_datagram(
        &mut self,
        _shared: &mut Shared,
        _now: Instant,
        _to: u16,
        _from: Endpoint,
        _parts: &Encapsulation<'_>,
    ) -> Result<Option<usize>, DropReason> {
        Err(DropReason::NotQualified)
    }

    /// Takes a datagram that came to the discovery address by the interface with this address.
    pub fn handle_discovery(
        &mut self,
        _shared: &mut Shared,
        _now: Instant,
        _interface: Ipv4Addr,
        _from: Endpoint,
        _parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        Err(DropReason::NotQualified)
    }

    /// A port that was asked for with [`super::Transmit::OpenPort`] could not be opened.
    pub fn port_failed(&mut self, _shared: &mut Shared, _now: Instant, _port: u16) {}

    pub fn handle_timeout(&mut self, _shared: &mut Shared, _now: Instant) {}

    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        None
    }

    /// All peers, in no particular order.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> {
        std::iter::empty()
    }
}
