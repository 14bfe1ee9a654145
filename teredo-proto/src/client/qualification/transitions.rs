//! The steps between the phases, and their effect on the client's identity.

use std::time::Duration;

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    super::{Event, Identity, Nat, Offline, shared::Shared, statistics::DropReason},
    Phase, Qualification,
    inquiry::Inquiry,
    solicitation::Advertised,
};
use crate::{ServerAddress, wire::encapsulation::Encapsulation};

/// The least time between two starts of qualification, however often there is a reason (C-46).
const START_GAP: Duration = Duration::from_secs(2);
/// The first wait after a failure, and the longest one within [`HOPE`]. Each is twice as long as the
/// one before.
const SHORT_WAITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// The time for which a failure is taken for one that soon ends.
const HOPE: Duration = Duration::from_secs(600);
/// The first wait after that, and the longest one: a server is asked little more often than by a client
/// that is qualified.
const LATE_WAITS: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(60)];
/// The first wait behind a NAT that is not supported, and the longest one.
const LONG_WAITS: [Duration; 2] = [Duration::from_secs(100), Duration::from_secs(900)];
/// The shortest and the longest time between a failure and an attempt that something hastens.
const HASTEN_GAPS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];

impl Qualification {
    /// Starts to qualify, unless that was done already.
    pub fn start_if_stopped(&mut self, shared: &mut Shared, now: Instant) {
        if matches!(self.phase, Phase::Stopped) {
            self.restart(shared, now);
        }
    }

    /// Withdraws the address, and does nothing until the next start.
    pub fn stop(&mut self, shared: &mut Shared) {
        self.withdraw(shared);
        self.phase = Phase::Stopped;
        self.server = None;
        self.reported = None;
    }

    /// Handles a change of [`Shared::network`].
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
        } else {
            self.hasten(shared, now);
        }
    }

    /// Ends a wait after failure early, as soon as the last attempt is long enough ago (C-47).
    pub fn hasten(&mut self, shared: &mut Shared, now: Instant) {
        let Phase::Offline(Offline::NoAnswer | Offline::SecondarySilent, Some(until)) =
            &mut self.phase
        else {
            return;
        };
        let [shortest, longest] = HASTEN_GAPS;
        let gap = self.hasten_gap.unwrap_or(shortest);
        let earliest = now.max(self.failed_at + gap);
        if earliest < *until {
            *until = earliest;
            self.hasten_gap = Some(longest.min(gap * 2));
            self.handle_timeout(shared, now);
        }
    }

    /// Asks the server soon whether the mapping still holds: the host was suspended, for instance
    /// (C-46).
    pub fn recheck_mapping(&mut self, shared: &mut Shared, now: Instant) {
        match self.phase {
            Phase::Idle(_) => {
                self.phase = Phase::Idle(self.allowed_from(now));
                self.handle_timeout(shared, now);
            }
            Phase::Offline(
                Offline::NoAnswer | Offline::SecondarySilent | Offline::Symmetric,
                _,
            ) => self.restart(shared, now),
            // No mapping, or the server is being asked already.
            _ => {}
        }
    }

    /// Qualifies anew, because of an event on the host.
    fn restart(&mut self, shared: &mut Shared, now: Instant) {
        if let Some(reason) = obstacle(shared) {
            self.go_offline(shared, now, reason);
            return;
        }
        self.is_not_cone &= self.source == shared.network.source;
        self.source = shared.network.source;
        self.forget_failures();
        let allowed_from = self.allowed_from(now);
        if allowed_from > now {
            self.phase = Phase::Due(allowed_from);
        } else {
            self.begin(shared, now);
        }
    }

    /// Forgets everything that puts attempts off.
    fn forget_failures(&mut self) {
        self.failed = 0;
        self.is_secondary_silent = false;
        self.offline_since = None;
        self.back_off = None;
        self.hasten_gap = None;
    }

    /// When the server may be asked, if there is a reason now.
    fn allowed_from(&self, now: Instant) -> Instant {
        self.last_asked
            .map_or(now, |last| now.max(last + START_GAP))
    }

    /// Begins qualification: asks the primary address of the server in use, or else of the first
    /// one.
    fn begin(&mut self, shared: &mut Shared, now: Instant) {
        self.server = self.server(shared);
        let cone = shared.config.cone_probe && !self.is_not_cone;
        self.ask_primary(shared, now, Phase::Starting, cone);
    }

    /// Asks the primary address, and waits in this phase.
    fn ask_primary(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        phase: fn(Inquiry) -> Phase,
        cone: bool,
    ) {
        let Some(server) = self.server else {
            self.go_offline(shared, now, Offline::NoAnswer);
            return;
        };
        let (port, asked) = (shared.config.port, ServerAddress::Primary);
        self.phase = phase(Inquiry::send(shared, now, port, server, asked, cone));
        if self.identity.is_none() {
            self.asking_since.get_or_insert(now);
        }
        self.last_asked = Some(now);
    }

    /// Handles an advertisement that arrived at the service port.
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
        let Phase::Second(_, first) = self.phase else {
            self.note_key(shared, &advertised);
            self.handle_primary_answer(shared, now, is_cone, advertised);
            return Ok(());
        };
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
        Ok(())
    }

    /// Qualifies the client if the primary address's answer suffices, and asks the secondary
    /// address otherwise.
    fn handle_primary_answer(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        is_cone: bool,
        first: Advertised,
    ) {
        let is_same = |identity: &Identity| {
            identity.mapped == first.mapped && identity.tunnel == first.tunnel.is_some()
        };
        let known = match self.phase {
            Phase::Maintenance(_) => self.identity.filter(is_same),
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
            let inquiry = Inquiry::send(shared, now, port, server, asked, false);
            self.phase = Phase::Second(inquiry, first);
        }
    }

    /// Does everything that is due.
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
                        self.ask_primary(shared, now, Phase::Starting, false);
                    }
                    (false, false) => self.fail_over(shared, now),
                }
            }
            Phase::Second(inquiry, _) => {
                let is_alive = inquiry.handle_timeout(shared, now);
                if !is_alive {
                    self.is_secondary_silent = true;
                    self.fail_over(shared, now);
                }
            }
            Phase::Idle(at) if *at <= now => {
                let is_cone = self.identity.is_some_and(|own| own.nat == Nat::Cone);
                self.ask_primary(shared, now, Phase::Maintenance, is_cone);
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

    /// Tries the next server after one that does not answer, or waits when all were tried.
    fn fail_over(&mut self, shared: &mut Shared, now: Instant) {
        self.withdraw(shared);
        self.failed += 1;
        let servers = &shared.config.servers;
        if self.failed >= servers.len() {
            let reason = match self.is_secondary_silent {
                true => Offline::SecondarySilent,
                false => Offline::NoAnswer,
            };
            self.go_offline(shared, now, reason);
            return;
        }
        let last = (servers.iter()).position(|&server| Some(server) == self.server);
        let next = last.map_or(0, |last| (last + 1) % servers.len());
        self.server = servers.get(next).copied();
        self.begin(shared, now);
    }

    /// Withdraws the address, and waits: for another network if that is the reason, or else for
    /// twice as long as the last time.
    fn go_offline(&mut self, shared: &mut Shared, now: Instant, reason: Offline) {
        self.withdraw(shared);
        self.server = None;
        self.failed = 0;
        self.is_secondary_silent = false;
        self.failed_at = now;
        let until = match reason {
            Offline::NoNetwork | Offline::NativeIpv6 => None,
            Offline::NoAnswer | Offline::SecondarySilent => Some(now + self.next_wait(now)),
            Offline::Symmetric => Some(now + self.back_off(LONG_WAITS)),
        };
        self.phase = Phase::Offline(reason, until);
        if self.reported.replace(reason) != Some(reason) {
            shared.emit(Event::Offline(reason));
        }
    }

    /// The wait after a failure: short ones at first, since most outages are, and the client is to be
    /// back soon after their end (C-47).
    fn next_wait(&mut self, now: Instant) -> Duration {
        let since = *self.offline_since.get_or_insert(now);
        match now.saturating_since(since) < HOPE {
            true => self.back_off(SHORT_WAITS),
            false => self.back_off(LATE_WAITS),
        }
    }

    /// The first of these waits, or twice as long a wait as the last one, up to the other.
    fn back_off(&mut self, [first, longest]: [Duration; 2]) -> Duration {
        let wait = self.back_off.map_or(first, |last| first.max(last * 2));
        *self.back_off.insert(longest.min(wait))
    }

    /// Gives the client its address.
    fn qualify(&mut self, shared: &mut Shared, now: Instant, nat: Nat, advertised: &Advertised) {
        let Some(server) = self.server else { return };
        let (config, random) = (&shared.config, &mut shared.random);
        let address = self
            .addresses
            .build(config, random, server.primary, nat, advertised);
        let mapped = advertised.mapped;
        let (port_mapping, upnp) = port_mapping(shared, mapped);
        let identity = Identity {
            address,
            mapped,
            server,
            nat,
            port_preserving: mapped.port() == shared.config.port,
            port_mapping,
            upnp,
            mtu: advertised.mtu,
            tunnel: advertised.tunnel.is_some(),
        };
        let before = self.identity.replace(identity);
        if let Some(since) = self.asking_since.take() {
            let qualification = now.saturating_since(since);
            shared.statistics.qualifications.add(qualification);
        }
        if before.map(|before| before.address) != Some(address) {
            shared.statistics.qualified += 1;
        }
        if before.map(|before| (before.address, before.mtu)) != Some((address, identity.mtu)) {
            shared.emit(Event::Qualified(identity));
        }
        self.forget_failures();
        self.reported = None;
        self.interval.set_identity(shared, now, identity);
        self.phase = Phase::Idle(now + self.interval.draw(shared));
    }

    /// Withdraws the client's address, if it has one.
    fn withdraw(&mut self, shared: &mut Shared) {
        self.interval.reset(shared);
        if self.identity.take().is_some() {
            shared.emit(Event::Unqualified);
        }
    }

    /// Reports that the server wants the client to use a new key, once until it does.
    fn note_key(&mut self, shared: &mut Shared, advertised: &Advertised) {
        if advertised.renew_key && !self.renewing {
            shared.emit(Event::RenewKey);
        }
        self.renewing = advertised.renew_key;
    }
}

/// The reason why the client may not even try, if there is one.
fn obstacle(shared: &Shared) -> Option<Offline> {
    if shared.network.native_ipv6 {
        return Some(Offline::NativeIpv6);
    }
    shared
        .network
        .source
        .is_none()
        .then_some(Offline::NoNetwork)
}

/// The port mapping of the nearest NAT if it is not the endpoint that the server sees, and whether
/// it is.
fn port_mapping(shared: &Shared, mapped: Endpoint) -> (Option<Endpoint>, bool) {
    let mapping = shared.network.port_mapping;
    let upnp = mapping == Some(mapped);
    (mapping.filter(|_| !upnp), upnp)
}
