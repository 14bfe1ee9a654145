//! Between the client and its server: qualification, maintenance, the refresh interval and
//! fail-over (RFC 4380 sections 5.2.1, 5.2.2, 5.2.5 and 5.2.7; RFC 5991).

pub mod solicitation;

use teredo_common::{address::Endpoint, time::Instant};

use super::{Identity, Reason, Server, State, shared::Shared, statistics::DropReason};
use crate::wire::encapsulation::Encapsulation;

/// The half of the client that talks with the server.
#[derive(Debug, Default)]
pub struct Qualification {}

impl Qualification {
    /// Where the client stands.
    pub fn state(&self) -> State {
        State::Stopped
    }

    /// The server that is used or tried.
    pub fn server(&self, shared: &Shared) -> Option<Server> {
        shared.config.servers.first().copied()
    }

    /// The address, while the client has one.
    pub fn identity(&self) -> Option<&Identity> {
        None
    }

    /// The secondary port, while it is open (C-52).
    pub fn secondary_port(&self) -> Option<u16> {
        None
    }

    pub fn start(&mut self, _shared: &mut Shared, _now: Instant) {}

    pub fn stop(&mut self, _shared: &mut Shared, _now: Instant) {}

    /// [`Shared::network`] has changed.
    pub fn network_changed(&mut self, _shared: &mut Shared, _now: Instant) {}

    /// The host was suspended, or there is another reason to doubt the mapping (C-46).
    pub fn doubt(&mut self, _shared: &mut Shared, _now: Instant) {}

    /// A port that was asked for with [`super::Transmit::OpenPort`] could not be opened.
    pub fn port_failed(&mut self, _shared: &mut Shared, _now: Instant, _port: u16) {}

    /// Takes what came to the service port as an advertisement.
    pub fn handle_advertisement(
        &mut self,
        _shared: &mut Shared,
        _now: Instant,
        _from: Endpoint,
        _parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        Ok(())
    }

    /// Takes whatever came to the secondary port.
    pub fn handle_secondary(
        &mut self,
        _shared: &mut Shared,
        _now: Instant,
        _from: Endpoint,
        _parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        Ok(())
    }

    pub fn handle_timeout(&mut self, _shared: &mut Shared, _now: Instant) {}

    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        None
    }
}
