//! A host with sockets, a NAT before it, and a server behind the internet.

use std::{collections::VecDeque, net::Ipv6Addr, time::Duration};

use teredo_common::{address::Endpoint, time::Instant};

use crate::{
    ServerAddress, client,
    probe::{Findings, Measurement, NatProbe, Transmit},
    relay::{self, Relay},
    server::{self, Buckets},
    wire::icmpv6,
};

pub const PRIMARY: &str = "1.2.3.4";
pub const SECONDARY: &str = "1.2.3.5";
/// The NAT's external address.
pub const EXTERNAL: &str = "9.0.0.1";
/// From anywhere to anywhere beyond the NAT.
pub const DELAY: Duration = Duration::from_millis(20);
/// From a host by way of the NAT to a host.
const HAIRPIN_DELAY: Duration = Duration::from_millis(2);

/// A native host that answers.
pub const HOST: &str = "2001:db8::1";
pub const RELAY: &str = "5.6.7.8";

/// What decides over a mapping or a filter (RFC 4787).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Endpoint-independent.
    Nothing,
    /// Address-dependent.
    Address,
    /// Address and port-dependent.
    Endpoint,
}

impl By {
    fn is_same(self, one: Endpoint, other: Endpoint) -> bool {
        match self {
            Self::Nothing => true,
            Self::Address => one.address == other.address,
            Self::Endpoint => one == other,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Nat {
    pub mapping: By,
    pub filtering: By,
    pub hairpins: bool,
    pub lifetime: Duration,
    /// That of mappings that were in use for two seconds or less.
    pub first_lifetime: Duration,
    /// The external port for an internal one, the number of mappings being the other argument.
    pub port: fn(u16, usize) -> u16,
    /// A firewall that translates nothing.
    pub is_transparent: bool,
    pub external: &'static str,
    /// An internal port whose mapping and filter are endpoint-independent, whatever those of others.
    pub forwarded: Option<u16>,
    mappings: Vec<Mapping>,
}

#[derive(Clone, Debug)]
struct Mapping {
    internal: Endpoint,
    /// For whom it was made.
    remote: Endpoint,
    external: Endpoint,
    sent_to: Vec<Endpoint>,
    made: Instant,
    used: Instant,
}

impl Mapping {
    fn is_alive(&self, now: Instant, nat: &Nat) -> bool {
        let lifetime = match self.used.saturating_since(self.made) > Duration::from_secs(2) {
            true => nat.lifetime,
            false => nat.first_lifetime,
        };
        now.saturating_since(self.used) < lifetime
    }
}

pub const PRESERVE: fn(u16, usize) -> u16 = |internal, _| internal;
pub const COUNT: fn(u16, usize) -> u16 = |_, number| 20_000 + number as u16;
pub const SCATTER: fn(u16, usize) -> u16 =
    |_, number| 1024 + (number as u16).wrapping_mul(7919) % 60_000;

impl Nat {
    pub fn new(mapping: By, filtering: By) -> Self {
        Self {
            mapping,
            filtering,
            hairpins: false,
            lifetime: Duration::from_secs(120),
            first_lifetime: Duration::from_secs(30),
            port: PRESERVE,
            is_transparent: false,
            external: EXTERNAL,
            forwarded: None,
            mappings: Vec::new(),
        }
    }

    /// The external endpoint that a packet leaves from.
    fn outbound(&mut self, now: Instant, internal: Endpoint, to: Endpoint) -> Endpoint {
        let mut mappings = std::mem::take(&mut self.mappings);
        mappings.retain(|one| one.is_alive(now, self));
        self.mappings = mappings;
        let by = match self.forwarded == Some(internal.port()) {
            true => By::Nothing,
            false => self.mapping,
        };
        let is_it = |one: &&mut Mapping| one.internal == internal && by.is_same(one.remote, to);
        if let Some(mapping) = self.mappings.iter_mut().find(is_it) {
            mapping.used = now;
            mapping.sent_to.push(to);
            return mapping.external;
        }
        let port = (self.port)(internal.port(), self.mappings.len());
        let external = match self.is_transparent {
            true => internal,
            false => Endpoint::new(self.external.parse().unwrap(), port),
        };
        self.mappings.push(Mapping {
            internal,
            remote: to,
            external,
            sent_to: vec![to],
            made: now,
            used: now,
        });
        external
    }

    /// The host's endpoint that a packet comes in to.
    fn inbound(&self, now: Instant, from: Endpoint, to: Endpoint) -> Option<Endpoint> {
        let mapping = self.mappings.iter().find(|one| one.external == to)?;
        let mut sent_to = mapping.sent_to.iter();
        let passes = self.filtering == By::Nothing
            || self.forwarded == Some(mapping.internal.port())
            || sent_to.any(|&remote| self.filtering.is_same(remote, from));
        (mapping.is_alive(now, self) && passes).then_some(mapping.internal)
    }
}

/// A datagram on its way.
struct Flight {
    arrives: Instant,
    from: Endpoint,
    to: Endpoint,
    payload: Vec<u8>,
}

pub struct World {
    pub nat: Nat,
    pub now: Instant,
    pub sockets: Vec<Endpoint>,
    server: server::Server,
    /// Which datagrams of the host are lost; they have numbers from 0.
    pub is_lost: fn(usize, &[u8]) -> bool,
    /// Which addresses of the server are there.
    pub is_up: fn(ServerAddress) -> bool,
    /// The relay next to the native host.
    pub relay: Option<Relay>,
    /// Everything that the host has sent.
    pub sent: Vec<Transmit>,
    flights: VecDeque<Flight>,
}

pub fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint::new(address.parse().unwrap(), port)
}

pub fn server() -> client::ServerEndpoints {
    client::ServerEndpoints::new(PRIMARY.parse().unwrap())
}

impl World {
    pub fn new(nat: Nat) -> Self {
        Self::with_server(nat, |_| {})
    }

    pub fn with_server(nat: Nat, change: impl FnOnce(&mut server::Config)) -> Self {
        let address = match nat.is_transparent {
            true => nat.external,
            false => "192.168.0.2",
        };
        let mut config = server::Config::new(PRIMARY.parse().unwrap(), SECONDARY.parse().unwrap());
        change(&mut config);
        let now = Instant::ZERO + Duration::from_secs(1000);
        // Further apart than the ports of a NAT that counts.
        let ports = (0..16).map(|number| 40_000 + 100 * number);
        Self {
            nat,
            now,
            sockets: ports.map(|port| endpoint(address, port)).collect(),
            server: server::Server::new(config, Buckets::new()),
            is_lost: |_, _| false,
            is_up: |_| true,
            relay: None,
            sent: Vec::new(),
            flights: VecDeque::new(),
        }
    }

    /// Places a relay next to the native host.
    pub fn add_relay(&mut self) {
        self.server.set_native_reachable(true);
        let mut config = relay::Config::new(endpoint(RELAY, 3545));
        config.own_ipv6 = vec!["2001:db8::2".parse().unwrap()];
        self.relay = Some(Relay::new(config, [9; 32]));
    }

    /// Runs a measurement to its end.
    pub fn run(&mut self, measurement: &mut impl Measurement) {
        loop {
            while let Some(transmit) = measurement.poll_transmit() {
                self.send(transmit);
            }
            self.flights
                .make_contiguous()
                .sort_by_key(|flight| flight.arrives);
            let arrival = self.flights.front().map(|flight| flight.arrives);
            match (arrival, measurement.poll_timeout()) {
                (_, None) => return,
                (Some(arrival), Some(due)) if arrival <= due => {
                    self.now = self.now.max(arrival);
                    self.arrive(measurement);
                }
                (_, Some(due)) => {
                    self.now = self.now.max(due);
                    measurement.handle_timeout(self.now);
                }
            }
        }
    }

    /// What is found out about the NAT, and how long that takes.
    pub fn probe(&mut self) -> (Findings, Duration) {
        let start = self.now;
        let sockets = *self.sockets.first_chunk().unwrap();
        let mut probe = NatProbe::new(server(), sockets, [7; 32], self.now);
        self.run(&mut probe);
        (probe.findings(), self.now.saturating_since(start))
    }

    fn send(&mut self, transmit: Transmit) {
        let number = self.sent.len();
        self.sent.push(transmit.clone());
        let Transmit {
            socket,
            to,
            payload,
        } = transmit;
        let internal = self.sockets[socket];
        let from = self.nat.outbound(self.now, internal, to);
        let is_hairpin = to.ip() == self.nat.external.parse::<std::net::Ipv4Addr>().unwrap();
        if (self.is_lost)(number, &payload) || is_hairpin && !self.nat.hairpins {
            return;
        }
        let delay = if is_hairpin { HAIRPIN_DELAY } else { DELAY };
        self.fly(delay, from, to, payload);
    }

    fn fly(&mut self, delay: Duration, from: Endpoint, to: Endpoint, payload: Vec<u8>) {
        self.flights.push_back(Flight {
            arrives: self.now + delay,
            from,
            to,
            payload,
        });
    }

    fn arrive(&mut self, measurement: &mut impl Measurement) {
        let flight = self.flights.pop_front().unwrap();
        let (from, to) = (flight.from, flight.to);
        for (address, at) in [
            (ServerAddress::Primary, PRIMARY),
            (ServerAddress::Secondary, SECONDARY),
        ] {
            if to == endpoint(at, 3544) && (self.is_up)(address) {
                self.ask_server(address, from, &flight.payload);
            }
        }
        if to == endpoint(RELAY, 3545)
            && let Some(relay) = &mut self.relay
        {
            let mut payload = flight.payload.clone();
            relay.handle_datagram(self.now, from, 0, &mut payload);
            self.flush_relay();
        }
        if let Some(internal) = self.nat.inbound(self.now, from, to) {
            let socket = self.sockets.iter().position(|&one| one == internal);
            measurement.handle_datagram(self.now, socket.unwrap(), from, &flight.payload);
        }
    }

    fn ask_server(&mut self, to: ServerAddress, from: Endpoint, payload: &[u8]) {
        match self.server.handle_datagram(self.now, to, from, payload) {
            Some(server::Transmit::Datagram { from, to, payload }) if (self.is_up)(from) => {
                let from = match from {
                    ServerAddress::Primary => PRIMARY,
                    ServerAddress::Secondary => SECONDARY,
                };
                let payload = payload.to_vec();
                self.fly(DELAY, endpoint(from, 3544), to, payload);
            }
            Some(server::Transmit::Native(packet)) => {
                let packet = packet.to_vec();
                self.host_gets(&packet);
            }
            _ => {}
        }
    }

    /// The native host gets a packet, and answers by way of its relay.
    fn host_gets(&mut self, packet: &[u8]) {
        let host: Ipv6Addr = HOST.parse().unwrap();
        let Some(relay) = &mut self.relay else {
            return;
        };
        let mut reply = Vec::new();
        if packet[24..40] == host.octets() && icmpv6::echo_reply(&host.octets(), packet, &mut reply)
        {
            let sent = relay.handle_ipv6(self.now, &mut reply);
            let sent = sent.map(|(to, payload)| (to, payload.to_vec()));
            if let Some((to, payload)) = sent {
                self.fly(DELAY, endpoint(RELAY, 3545), to, payload);
            }
            self.flush_relay();
        }
    }

    fn flush_relay(&mut self) {
        while let Some(transmit) = self.relay.as_mut().and_then(Relay::poll_transmit) {
            if let relay::Transmit::Datagram { to, payload } = transmit {
                self.fly(DELAY, endpoint(RELAY, 3545), to, payload.to_vec());
            }
        }
    }
}
