//! A client, its NAT and its servers.

use std::{
    collections::{BTreeSet, HashSet},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use teredo_common::{address::Endpoint, limiter::Rate, time::Instant};

use super::nat::{Kind, Nat};
pub use crate::testing::endpoint;
use crate::{
    ServerAddress,
    client::{
        Client, Config, Credentials, DropReason, Event, Identity, Network, Offline,
        ServerEndpoints, State, Transmit,
    },
    server,
    wire::{
        authentication::{Algorithm, Key},
        encapsulation, router,
    },
};

pub const PRIMARY: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
pub const SECONDARY: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 5);
/// Another server.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(5, 6, 7, 8);
/// The service port.
pub const PORT: u16 = 50000;
/// The client's first mapping.
pub const MAPPED: &str = "9.0.0.1:4096";
/// One way.
const DELAY: Duration = Duration::from_millis(20);
pub const ROUND_TRIP: Duration = Duration::from_millis(40);

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn credentials(octet: u8) -> Credentials {
    Credentials {
        id: b"alice".to_vec(),
        key: Key::new(Algorithm::HmacMd5, &[octet; 16]).unwrap(),
    }
}

pub fn network() -> Network {
    Network {
        source: Some(Ipv4Addr::new(192, 168, 1, 2)),
        ..Network::default()
    }
}

/// A datagram on its way.
enum Hop {
    ToServer(Endpoint, Endpoint, Vec<u8>),
    ToClient(Endpoint, Endpoint, Vec<u8>),
}

/// A datagram that the client sent.
pub struct Sent {
    pub at: Instant,
    pub from: u16,
    pub to: Endpoint,
    pub payload: Vec<u8>,
}

impl Sent {
    pub fn is_solicitation(&self) -> bool {
        let packet = encapsulation::parse(&self.payload).unwrap().packet;
        packet[6] == 58 && packet[40] == 133
    }
}

type Tamper = Box<dyn FnMut(&mut Endpoint, &mut Vec<u8>) -> bool>;

pub struct World {
    pub client: Client,
    pub servers: Vec<(ServerEndpoints, server::Server)>,
    pub nat: Nat,
    pub now: Instant,
    /// Server addresses that do not answer.
    pub silent: HashSet<Ipv4Addr>,
    /// Changes every answer on its way; false: it is lost.
    pub tamper: Tamper,
    pub sent: Vec<Sent>,
    pub events: Vec<(Instant, Event)>,
    pub open_ports: BTreeSet<u16>,
    /// Ports in use by other programs, counted down.
    pub ports_taken: usize,
    hops: Vec<(Instant, Hop)>,
}

impl World {
    /// A client that is started, behind such a NAT.
    pub fn new(kind: Kind) -> Self {
        Self::with(kind, |_| ())
    }

    pub fn with(kind: Kind, change: impl FnOnce(&mut Config)) -> Self {
        Self::with_server(kind, change, |_| ())
    }

    pub fn with_server(
        kind: Kind,
        change: impl FnOnce(&mut Config),
        mut change_server: impl FnMut(&mut server::Config),
    ) -> Self {
        let mut world = Self::stopped(kind, change, &mut change_server);
        world.client.set_network(world.now, network());
        world.client.start(world.now);
        world.collect();
        world
    }

    pub fn stopped(
        kind: Kind,
        change: impl FnOnce(&mut Config),
        change_server: &mut dyn FnMut(&mut server::Config),
    ) -> Self {
        let mut config = Config::new(vec![ServerEndpoints::new(PRIMARY)], PORT);
        change(&mut config);
        let now = Instant::from_nanos(1_000_000_000_000);
        let mut servers = Vec::new();
        for primary in [PRIMARY, OTHER] {
            let one = ServerEndpoints::new(primary);
            let mut config = server::Config::new(one.primary, one.secondary);
            let unlimited = Rate::new(u32::MAX, u32::MAX);
            config.limits.source = unlimited;
            config.limits.network = unlimited;
            config.limits.total = unlimited;
            change_server(&mut config);
            let buckets = server::Buckets::new();
            servers.push((one, server::Server::new(config, buckets)));
        }
        Self {
            client: Client::new(config, [7; 32]),
            servers,
            nat: Nat::new(kind),
            now,
            silent: HashSet::new(),
            tamper: Box::new(|_, _| true),
            sent: Vec::new(),
            events: Vec::new(),
            open_ports: BTreeSet::from([PORT]),
            ports_taken: 0,
            hops: Vec::new(),
        }
    }

    /// Performs the client's actions.
    pub fn collect(&mut self) {
        let now = self.now;
        while let Some(transmit) = self.client.poll_transmit() {
            match transmit {
                Transmit::Datagram { from, to, payload } => {
                    assert!(self.open_ports.contains(&from), "{from} is not open");
                    let outside = self.nat.leaves(now, from, to);
                    let hop = Hop::ToServer(outside, to, payload.clone());
                    self.hops.push((now + DELAY, hop));
                    let at = now;
                    self.sent.push(Sent {
                        at,
                        from,
                        to,
                        payload,
                    });
                }
                Transmit::OpenPort(port) if self.ports_taken > 0 => {
                    self.ports_taken -= 1;
                    // Datagrams from that port are lost.
                    while let Some(Transmit::Datagram { from, .. }) = self.client.poll_transmit() {
                        assert_eq!(from, port);
                    }
                    self.client.handle_port_failure(now, port);
                }
                Transmit::OpenPort(port) => assert!(self.open_ports.insert(port)),
                Transmit::ClosePort(port) => assert!(self.open_ports.remove(&port)),
                Transmit::Ipv6(_) => {}
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push((now, event));
        }
    }

    /// Lets the next thing happen that is due until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let timeout = self.client.poll_timeout().map(|at| at.max(self.now));
        let hop = self.hops.iter().map(|(at, _)| *at).min();
        let Some(next) = [timeout, hop].into_iter().flatten().min() else {
            return false;
        };
        if next > end {
            return false;
        }
        self.now = next;
        match self.hops.iter().position(|(at, _)| *at <= next) {
            Some(index) => match self.hops.remove(index).1 {
                Hop::ToServer(from, to, payload) => self.serve(from, to, &payload),
                Hop::ToClient(from, to, payload) => self.deliver(from, to, payload),
            },
            None => self.client.handle_timeout(next),
        }
        self.collect();
        true
    }

    fn serve(&mut self, from: Endpoint, to: Endpoint, payload: &[u8]) {
        if self.silent.contains(&to.ip()) {
            return;
        }
        for (addresses, server) in &mut self.servers {
            let at = match to {
                to if to == addresses.primary() => ServerAddress::Primary,
                to if to == addresses.secondary() => ServerAddress::Secondary,
                _ => continue,
            };
            let sent = server.handle_datagram(self.now, at, from, payload);
            if let Some(server::Transmit::Datagram {
                from: leaves,
                to,
                payload,
            }) = sent
            {
                let mut output = payload.to_vec();
                let mut from = addresses.endpoint(leaves);
                if (self.tamper)(&mut from, &mut output) {
                    let hop = Hop::ToClient(from, to, output);
                    self.hops.push((self.now + DELAY, hop));
                }
            }
            return;
        }
    }

    fn deliver(&mut self, from: Endpoint, to: Endpoint, payload: Vec<u8>) {
        let port = self.nat.arrives(self.now, from, to);
        if let Some(port) = port.filter(|port| self.open_ports.contains(port)) {
            self.arrives(port, from, payload);
        }
    }

    /// A datagram arrives at the host. The host never gets a packet of the server's (C-18).
    pub fn arrives(&mut self, port: u16, from: Endpoint, mut payload: Vec<u8>) {
        let given = self
            .client
            .handle_datagram(self.now, port, from, 0, &mut payload);
        assert_eq!(given, None);
        self.collect();
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Until the client is in this state.
    pub fn run_until(&mut self, state: State) {
        let end = self.now + seconds(3600);
        while self.client.state() != state {
            assert!(
                self.step(end),
                "{:?} instead of {state:?}",
                self.client.state()
            );
        }
    }

    /// Runs until the client is qualified. Returns its identity.
    pub fn qualified(&mut self) -> Identity {
        self.run_until(State::Qualified);
        *self.client.identity().unwrap()
    }

    pub fn offline(&mut self, reason: Offline) {
        self.run_until(State::Offline(reason));
    }

    pub fn set_network(&mut self, change: impl FnOnce(&mut Network)) {
        let mut network = network();
        change(&mut network);
        self.client.set_network(self.now, network);
        self.collect();
    }

    /// When solicitations left the service port for an address of the server.
    pub fn asked(&self, address: Ipv4Addr) -> Vec<Instant> {
        self.sent
            .iter()
            .filter(|datagram| {
                datagram.from == PORT && datagram.to.ip() == address && datagram.is_solicitation()
            })
            .map(|datagram| datagram.at)
            .collect()
    }

    pub fn all_events(&self) -> Vec<Event> {
        self.events.iter().map(|(_, event)| event.clone()).collect()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.client.statistics().dropped[reason]
    }
}

/// An advertisement that answers the solicitation in `payload`, as a server at [`PRIMARY`] makes it.
pub fn advertisement(payload: &[u8], mapped: &str) -> Vec<u8> {
    let parts = encapsulation::parse(payload).unwrap();
    let nonce = parts.authentication.unwrap().nonce;
    let to: [u8; 16] = *parts.packet[8..].first_chunk().unwrap();
    let mut output = Vec::new();
    encapsulation::write_authentication(&[], 0, nonce, 0, &mut output);
    output.extend(endpoint(mapped).origin_indication());
    router::Advertisement::new(&link_local(), teredo_prefix(), Some(1280)).write(&to, &mut output);
    output
}

/// The source of the server's advertisements.
pub fn link_local() -> [u8; 16] {
    teredo_common::address::server_link_local(PRIMARY, 3544).octets()
}

pub fn teredo_prefix() -> [u8; 8] {
    [0x20, 1, 0, 0, 1, 2, 3, 4]
}

/// Returns the fields of an address.
pub fn fields(address: Ipv6Addr) -> teredo_common::address::TeredoAddress {
    let prefix = teredo_common::address::ServicePrefix::STANDARD;
    teredo_common::address::TeredoAddress::decode(address, prefix).unwrap()
}
