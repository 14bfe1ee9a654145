//! Between the client and its server: qualification, maintenance, the refresh interval and
//! fail-over (RFC 4380 sections 5.2.1, 5.2.2, 5.2.5 and 5.2.7; RFC 5991).

pub mod solicitation;

mod address;
mod inquiry;
mod interval;
mod outcome;

#[cfg(test)]
mod tests;

use std::{net::Ipv4Addr, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};

use super::{Identity, Nat, Offline, Server, State, shared::Shared, statistics::DropReason};

use crate::{ServerAddress, wire::encapsulation::Encapsulation};
use address::Addresses;
use inquiry::Inquiry;
use interval::Interval;
use outcome::{obstacle, port_mapping};

use solicitation::Advertised;

/// The least time between two starts of qualification, however often there is a reason (C-46).
const START_GAP: Duration = Duration::from_secs(2);
/// How long the client is off-line after the first failure; twice as long after each further one.
const BACK_OFF: Duration = Duration::from_secs(100);
/// The longest time that the client is off-line before it tries again.
const MAX_BACK_OFF: Duration = Duration::from_secs(900);

/// The half of the client that talks with the server.
#[derive(Debug, Default)]
pub struct Qualification {
    phase: Phase,
    /// The server that is used or tried.
    server: Option<Server>,
    /// Servers that failed since one was last in use, or since the last wait.
    failed: usize,
    /// Kept while it is qualified anew, until that ended.
    identity: Option<Identity>,
    addresses: Addresses,
    interval: Interval,
    /// When the server's primary address was last asked.
    last_asked: Option<Instant>,
    /// How long the next wait is; none: [`BACK_OFF`].
    back_off: Option<Duration>,
    /// What was last told of being off-line.
    told: Option<Offline>,
    /// The server wants the client to use a new key, and that was told.
    renewing: bool,
    /// The source address for which the client is qualified or tries to be.
    source: Option<Ipv4Addr>,
    /// A probe for a cone NAT failed here. Since then the NAT may let the secondary address in
    /// because it was asked, so that another probe would prove nothing.
    is_not_cone: bool,
}

/// What the client waits for.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Stopped,
    /// To be allowed to ask again (C-46).
    Due(Instant),
    /// The answer of the primary address.
    Starting(Inquiry),
    /// The answer of the secondary address, after this one.
    Second(Inquiry, Advertised),
    /// The time for maintenance.
    Idle(Instant),
    /// The answer of the primary address to maintenance.
    Maintenance(Inquiry),
    /// The time to try again, or another network.
    Offline(Offline, Option<Instant>),
}

impl Qualification {
    /// Where the client stands.
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
    pub fn server(&self, shared: &Shared) -> Option<Server> {
        self.server
            .or_else(|| shared.config.servers.first().copied())
    }

    /// The address, while the client has one.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The secondary port, while it is open (C-52).
    pub fn secondary_port(&self) -> Option<u16> {
        self.interval.port()
    }

    pub fn start(&mut self, shared: &mut Shared, now: Instant) {
        if matches!(self.phase, Phase::Stopped) {
            self.restart(shared, now);
        }
    }

    pub fn stop(&mut self, shared: &mut Shared) {
        self.withdraw(shared);
        self.phase = Phase::Stopped;
        self.server = None;
        self.told = None;
    }

    /// [`Shared::network`] has changed.
    pub fn network_changed(&mut self, shared: &mut Shared, now: Instant) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        let is_blocked = obstacle(shared).is_some();
        let was_blocked = matches!(
            self.phase,
            Phase::Offline(Offline::NoNetwork | Offline::NativeIpv6, _)
        );
        if is_blocked || was_blocked || shared.network.source != self.source {
            self.interval.reset(shared);
            self.restart(shared, now);
        } else if let Some(identity) = &mut self.identity {
            (identity.port_mapping, identity.upnp) = port_mapping(shared, identity.mapped);
        }
    }

    /// The host was suspended, or there is another reason to doubt the mapping (C-46).
    pub fn recheck_mapping(&mut self, shared: &mut Shared, now: Instant) {
        match self.phase {
            Phase::Idle(_) => {
                self.phase = Phase::Idle(self.allowed_from(now));
                self.handle_timeout(shared, now);
            }
            Phase::Offline(Offline::NoAnswer | Offline::Symmetric, _) => self.restart(shared, now),
            // Nothing to doubt, or the server is being asked already.
            _ => {}
        }
    }

    /// A port that was asked for with [`super::Transmit::OpenPort`] could not be opened.
    pub fn handle_port_failure(&mut self, shared: &mut Shared, now: Instant, port: u16) {
        self.interval.handle_port_failure(shared, now, port);
    }

    /// Takes what came to the service port as an advertisement.
    pub fn handle_advertisement(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        let (Phase::Starting(inquiry) | Phase::Second(inquiry, _) | Phase::Maintenance(inquiry)) =
            &self.phase
        else {
            return Err(DropReason::AdvertisementNonce);
        };
        let advertised = inquiry.verify(&shared.config, from, parts)?;
        let is_cone = inquiry.is_cone();
        match self.phase {
            Phase::Second(_, first) => {
                if advertised.tunnel.is_some() {
                    return Err(DropReason::AdvertisementPrefix);
                }
                self.note_key(shared, &advertised);
                if advertised.mapped == first.mapped {
                    self.qualify(shared, now, Nat::Restricted, &first);
                } else if shared.config.extensions.symmetric {
                    self.qualify(shared, now, Nat::Symmetric, &first);
                } else {
                    self.go_offline(shared, now, Offline::Symmetric);
                }
            }
            _ => {
                self.note_key(shared, &advertised);
                self.follow(shared, now, is_cone, advertised);
            }
        }
        Ok(())
    }

    /// Goes on after an answer of the primary address.
    fn follow(&mut self, shared: &mut Shared, now: Instant, is_cone: bool, first: Advertised) {
        let known = match self.phase {
            Phase::Maintenance(_) => self
                .identity
                .filter(|one| one.mapped == first.mapped && one.tunnel == first.tunnel.is_some()),
            _ => None,
        };
        let nat = match known {
            Some(identity) => Some(identity.nat),
            None if is_cone => Some(Nat::Cone),
            // One endpoint is all that the client talks to: no matter how the NAT treats others.
            None if first.tunnel.is_some() => Some(Nat::Restricted),
            None => None,
        };
        if let Some(nat) = nat {
            self.qualify(shared, now, nat, &first);
        } else if let Some(server) = self.server {
            let (port, asked) = (shared.config.port, ServerAddress::Secondary);
            let inquiry = Inquiry::start(shared, now, port, server, asked, false);
            self.phase = Phase::Second(inquiry, first);
        }
    }

    /// Takes whatever came to the secondary port.
    pub fn handle_secondary(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<(), DropReason> {
        self.interval.handle_datagram(shared, now, from, parts)
    }

    pub fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) {
        self.interval.handle_timeout(shared, now);
        match &mut self.phase {
            Phase::Due(at) | Phase::Offline(_, Some(at)) if *at <= now => {
                self.begin(shared, now);
            }
            Phase::Starting(inquiry) => {
                let (is_cone, is_alive) = (inquiry.is_cone(), inquiry.handle_timeout(shared, now));
                self.last_asked = Some(inquiry.sent());
                match (is_alive, is_cone) {
                    (true, _) => {}
                    (false, true) => {
                        self.is_not_cone = true;
                        self.ask(shared, now, Phase::Starting, false);
                    }
                    (false, false) => self.fail_over(shared, now),
                }
            }
            Phase::Second(inquiry, _) => {
                let is_alive = inquiry.handle_timeout(shared, now);
                if !is_alive {
                    self.fail_over(shared, now);
                }
            }
            Phase::Idle(at) if *at <= now => {
                let is_cone = self.identity.is_some_and(|one| one.nat == Nat::Cone);
                self.ask(shared, now, Phase::Maintenance, is_cone);
            }
            Phase::Maintenance(inquiry) => {
                let is_alive = inquiry.handle_timeout(shared, now);
                self.last_asked = Some(inquiry.sent());
                if !is_alive {
                    self.begin(shared, now);
                }
            }
            _ => {}
        }
    }

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
