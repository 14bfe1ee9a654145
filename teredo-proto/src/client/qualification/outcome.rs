//! The steps between the phases, and what becomes of the client's identity.

use teredo_common::{address::Endpoint, time::Instant};

use super::{
    super::{Event, Identity, Nat, Offline, shared::Shared},
    BACK_OFF, MAX_BACK_OFF, Phase, Qualification, START_GAP,
    inquiry::Inquiry,
    solicitation::{Advertised, Asked},
};

impl Qualification {
    /// Qualifies anew, because of something that happened to the host.
    pub(super) fn restart(&mut self, shared: &mut Shared, now: Instant) {
        if let Some(reason) = obstacle(shared) {
            self.go_offline(shared, now, reason);
            return;
        }
        self.is_not_cone &= self.source == shared.network.source;
        self.source = shared.network.source;
        self.failed = 0;
        self.back_off = None;
        self.phase = Phase::Due(self.allowed_from(now));
        self.handle_timeout(shared, now);
    }

    /// When the server may be asked, if there is a reason now.
    pub(super) fn allowed_from(&self, now: Instant) -> Instant {
        self.last_asked
            .map_or(now, |last| now.max(last + START_GAP))
    }

    /// The initial state: asks the primary address of the server in use, or else of the first one.
    pub(super) fn begin(&mut self, shared: &mut Shared, now: Instant) {
        self.server = self.server(shared);
        let cone = shared.config.cone_probe && !self.is_not_cone;
        self.ask(shared, now, Phase::Starting, cone);
    }

    /// Asks the primary address, and waits in this phase.
    pub(super) fn ask(
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
        let (port, asked) = (shared.config.port, Asked::Primary);
        self.phase = phase(Inquiry::start(shared, now, port, server, asked, cone));
        self.last_asked = Some(now);
    }

    /// The server does not answer: tries the next one, or waits when all were tried.
    pub(super) fn fail_over(&mut self, shared: &mut Shared, now: Instant) {
        self.withdraw(shared);
        self.failed += 1;
        let servers = &shared.config.servers;
        if self.failed >= servers.len() {
            self.go_offline(shared, now, Offline::NoAnswer);
            return;
        }
        let last = servers.iter().position(|&one| Some(one) == self.server);
        let next = last.map_or(0, |last| (last + 1) % servers.len());
        self.server = servers.get(next).copied();
        self.begin(shared, now);
    }

    /// Gives the address back, and waits: for another network if that is the reason, or else for
    /// twice as long as the last time.
    pub(super) fn go_offline(&mut self, shared: &mut Shared, now: Instant, reason: Offline) {
        self.withdraw(shared);
        self.server = None;
        self.failed = 0;
        let until = match reason {
            Offline::NoNetwork | Offline::NativeIpv6 => None,
            Offline::NoAnswer | Offline::Symmetric => {
                let wait = self.back_off.unwrap_or(BACK_OFF);
                self.back_off = Some(MAX_BACK_OFF.min(wait * 2));
                Some(now + wait)
            }
        };
        self.phase = Phase::Offline(reason, until);
        if self.told.replace(reason) != Some(reason) {
            shared.emit(Event::Offline(reason));
        }
    }

    /// The client has an address.
    pub(super) fn qualify(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        nat: Nat,
        advertised: &Advertised,
    ) {
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
        if before.map(|one| one.address) != Some(address) {
            shared.statistics.qualified += 1;
        }
        if before.map(|one| (one.address, one.mtu)) != Some((address, identity.mtu)) {
            shared.emit(Event::Qualified(identity));
        }
        self.failed = 0;
        self.back_off = None;
        self.told = None;
        self.interval.follow(shared, now, identity);
        self.phase = Phase::Idle(now + self.interval.draw(shared));
    }

    /// The client has no address any more.
    pub(super) fn withdraw(&mut self, shared: &mut Shared) {
        self.interval.reset(shared);
        if self.identity.take().is_some() {
            shared.emit(Event::Unqualified);
        }
    }

    /// Tells when the server wants the client to use a new key, once until it does.
    pub(super) fn note_key(&mut self, shared: &mut Shared, advertised: &Advertised) {
        if advertised.renew_key && !self.renewing {
            shared.emit(Event::RenewKey);
        }
        self.renewing = advertised.renew_key;
    }
}

/// Why the client may not even try.
pub(super) fn obstacle(shared: &Shared) -> Option<Offline> {
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
pub(super) fn port_mapping(shared: &Shared, mapped: Endpoint) -> (Option<Endpoint>, bool) {
    let mapping = shared.network.port_mapping;
    let upnp = mapping == Some(mapped);
    (mapping.filter(|_| !upnp), upnp)
}
