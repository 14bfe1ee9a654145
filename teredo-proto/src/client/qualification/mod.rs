//! Between the client and its server: qualification, maintenance, the refresh interval and
//! fail-over (RFC 4380 sections 5.2.1, 5.2.2, 5.2.5 and 5.2.7; RFC 5991).
//!
//! The states of RFC 4380 section 5.2.1 are the [`Phase`]s; all steps between them are in
//! `transitions.rs`:
//!
//! ```text
//!  Stopped ── start ──▶ Due ◀── network changed, while not Stopped
//!                        │ two seconds after the last solicitation (C-46)
//!                        ▼
//!                ┌───▶ Starting ── three timeouts ──▶ next server, or Offline
//!                │       │ │    (with the cone flag set: Starting without it)
//!                │       │ └── answer to a cone probe, or from the tunnel service ──┐
//!                │       │ answer of the primary address                           │
//!                │       ▼                                                         │
//!                │     Second ── three timeouts ──▶ next server, or Offline        │
//!                │       │                                                         │
//!                │       │ answer of the secondary address: the same endpoint,     │
//!                │       │ or another and the NAT is symmetric (if not supported:  │
//!                │       │ Offline)                                                │
//!                │       ▼                                                         │
//!                │     Idle ◀───────────── qualified ──────────────────────────────┘
//!                │       │  ▲
//!                │   due │  │ answer with the same endpoint (with another: Second)
//!                │       ▼  │
//!                └── Maintenance
//!         three timeouts
//!
//!  Offline ── 5 to 900 seconds (C-47), hastened, or the network changed ──▶ Starting
//! ```

pub mod solicitation;

mod address;
mod inquiry;
mod interval;
mod transitions;

#[cfg(test)]
mod tests;

use std::{net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::{
    Event, Identity, Offline, ServerEndpoints, State, shared::Shared, statistics::DropReason,
};
use crate::wire::encapsulation::Encapsulation;
use address::Addresses;
use inquiry::Inquiry;
use interval::Interval;
use solicitation::Advertised;

/// The half of the client that talks with the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Qualification {
    phase: Phase,
    /// The server that is used or tried.
    server: Option<ServerEndpoints>,
    /// Servers that failed since one was last in use, or since the last wait.
    failed: usize,
    /// Kept while the client is qualified anew, until that ended.
    identity: Option<Identity>,
    addresses: Addresses,
    interval: Interval,
    /// When the server's primary address was last asked.
    last_asked: Option<Instant>,
    /// One of the servers that failed did so only with its secondary address.
    is_secondary_silent: bool,
    /// When the present period without success began.
    offline_since: Option<Instant>,
    /// When the server was first asked since there was an address.
    #[serde(default)]
    asking_since: Option<Instant>,
    /// When the last attempt failed.
    failed_at: Instant,
    /// The length of the next wait; `None`: that of the first one.
    back_off: Option<Duration>,
    /// The time after a failure for which [`Qualification::hasten`] waits; `None`: as after the first
    /// one.
    hasten_gap: Option<Duration>,
    /// The reason of the last [`Offline`] event, until the client is qualified again.
    reported: Option<Offline>,
    /// The server wants the client to use a new key, and that was reported.
    renewing: bool,
    /// The source address for which the client is qualified or tries to be.
    source: Option<Ipv4Addr>,
    /// A probe for a cone NAT failed here. Since then the NAT may let the secondary address in
    /// because it was asked, so that another probe would prove nothing.
    is_not_cone: bool,
}

/// The next thing that the client waits for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum Phase {
    /// The start.
    #[default]
    Stopped,
    /// The time from which the server may be asked again (C-46).
    Due(Instant),
    /// The answer of the primary address.
    Starting(Inquiry),
    /// The answer of the secondary address, after this one of the primary address.
    Second(Inquiry, Advertised),
    /// The time for maintenance.
    Idle(Instant),
    /// The answer of the primary address to maintenance.
    Maintenance(Inquiry),
    /// The time to try again, or another network.
    Offline(Offline, Option<Instant>),
}

impl Qualification {
    /// The public state of the client.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Stopped => State::Stopped,
            Phase::Due(_) | Phase::Starting(_) => State::Starting,
            Phase::Second(..) => State::Second,
            Phase::Idle(_) | Phase::Maintenance(_) => State::Qualified,
            Phase::Offline(reason, _) => State::Offline(reason),
        }
    }

    /// The server that is used or tried.
    pub fn server(&self, shared: &Shared) -> Option<ServerEndpoints> {
        self.server
            .or_else(|| shared.config.servers.first().copied())
    }

    /// The server that is used or tried, if one was chosen.
    pub fn chosen_server(&self) -> Option<ServerEndpoints> {
        self.server
    }

    /// Opens the secondary port again after the process was replaced.
    pub fn resume(&self, shared: &mut Shared) {
        if let Some(port) = self.secondary_port() {
            shared.open_again(port);
        }
    }

    /// Reports the measured interval, if there is one, after the process was replaced.
    pub fn report_refresh(&self, shared: &mut Shared) {
        if let Some(interval) = self.interval.measured() {
            shared.emit(Event::RefreshFound(interval));
        }
    }

    /// The identity, while the client has an address.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The secondary port, while it is open (C-52).
    pub fn secondary_port(&self) -> Option<u16> {
        self.interval.port()
    }

    /// Handles a datagram that arrived at the secondary port.
    pub fn handle_secondary(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        self.interval.handle_datagram(shared, now, from, parts)
    }

    /// Handles the failure to open a port that [`super::Transmit::OpenPort`] asked for.
    pub fn handle_port_failure(&mut self, shared: &mut Shared, now: Instant, port: u16) {
        self.interval.handle_port_failure(shared, now, port);
    }

    /// When [`Qualification::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Due(at) | Phase::Idle(at) => Some(*at),
            Phase::Starting(inquiry) | Phase::Second(inquiry, _) | Phase::Maintenance(inquiry) => {
                Some(inquiry.deadline())
            }
            Phase::Offline(_, at) => *at,
            Phase::Stopped => None,
        };
        [own, self.interval.deadline()].into_iter().flatten().min()
    }
}
