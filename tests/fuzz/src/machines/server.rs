//! Histories of a server, with its tunnel service and its limits.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    limiter::Rate,
    scope::{Ipv4Scope, is_global_unicast},
};
use teredo_proto::{
    Instant, Server, ServerAddress,
    server::{
        Buckets, Config, DropReason, Event, RegisteredClient, SavedServer, Service, Transmit,
    },
    wire::{
        authentication::{Algorithm, Key},
        encapsulation,
        ipv6::Header,
    },
};

use super::{
    START, STEPS, duration, handed_over, next_step,
    scenery::{OWN_IPV4, PRIMARY, RELAY, SECONDARY, TUNNEL, key, own_addresses},
};
use crate::bytes::Bytes;

/// The most octets by which an answer is longer than the question: advertisement with origin indication
/// and MTU option, less a solicitation.
const GROWTH: usize = 104 - 48;
/// Repetitions of a datagram, more than the limits let through at once.
const FLOOD: usize = 40;
/// The events that wait at most.
const EVENTS: usize = 64;

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let mut world = World::new(&mut bytes);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        world.step(&mut bytes);
        world.check();
    }
    // One that is asked what the server would do, and the clients that outlive it.
    let copy = world.server.copy(world.now);
    let _: SavedServer = handed_over(&copy.state_of_clients());
}

/// How a packet left.
#[derive(Debug)]
enum Output {
    Datagram(ServerAddress, Endpoint),
    Native,
    Tunnel,
}

/// A server, and what an observer of it knows.
pub struct World {
    server: Server,
    config: Config,
    pub now: Instant,
    own_ipv4: Vec<Ipv4Addr>,
    native_reachable: bool,
    inputs: u64,
    /// What was sent because of each source, since its buckets were full.
    answers: BTreeMap<[u8; 4], u64>,
    full_at: Instant,
    /// The last datagram.
    last: Option<(ServerAddress, Endpoint, Vec<u8>)>,
}

impl World {
    /// A server, configured by the next octets.
    pub fn new(bytes: &mut Bytes<'_>) -> Self {
        let config = config(bytes);
        Self {
            server: Server::new(config.clone(), Buckets::new()),
            own_ipv4: config.own_ipv4.clone(),
            config,
            now: START,
            native_reachable: false,
            inputs: 0,
            answers: BTreeMap::new(),
            full_at: START,
            last: None,
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let (number, is_restarted) = next_step(bytes, 16);
        if is_restarted {
            self.restart();
        }
        match number {
            0..=7 => {
                let to = match bytes.below(4) {
                    0 => ServerAddress::Secondary,
                    _ => ServerAddress::Primary,
                };
                let payload = datagram(bytes);
                let from = bytes.endpoint();
                self.arrives(to, from, &payload);
                self.last = Some((to, from, payload));
            }
            8 => {
                let (source, destination) = (bytes.native(), tunnelled(bytes));
                let packet = bytes.packet(&source, &destination);
                self.routed(&packet);
            }
            9 => {
                let packet = bytes.payload();
                self.routed(&packet);
            }
            10 => {
                let (source, destination) = (bytes.address(), bytes.teredo());
                let packet = bytes.packet(&source, &destination);
                self.relay_sends(&packet);
            }
            11 | 12 => self.now += duration(bytes),
            13 => self.set_native_reachable(bytes.bit()),
            14 => {
                let own = own_addresses(bytes);
                self.server.set_own_addresses(&own);
                self.own_ipv4 = own;
            }
            _ => self.change(bytes),
        }
    }

    /// Another process goes on.
    fn restart(&mut self) {
        let state: SavedServer = handed_over(&self.server.state(self.now));
        let mut config = self.config.clone();
        config.own_ipv4.clone_from(&self.own_ipv4);
        self.server = Server::new(config, Buckets::new());
        self.server.restore(&state);
        self.server.set_native_reachable(self.native_reachable);
        self.inputs = 0;
    }

    fn change(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(8) {
            0 => self.server.drain(self.now),
            1 => {
                self.server.set_buckets(self.now, Buckets::new());
                self.answers.clear();
                self.full_at = self.now;
            }
            2 => {
                let duration = duration(bytes);
                self.server.handle_suspension(self.now, duration);
                self.full_at = self.full_at - duration;
            }
            3 | 4 => {
                if let Some((to, from, payload)) = self.last.clone() {
                    for _ in 0..FLOOD {
                        self.arrives(to, from, &payload);
                    }
                }
            }
            _ => drop(self.config.fast_path(bytes.bit())),
        }
    }

    pub fn set_native_reachable(&mut self, is_reachable: bool) {
        self.native_reachable = is_reachable;
        self.server.set_native_reachable(is_reachable);
    }

    /// A datagram arrives from the internet. Returns the one that leaves.
    pub fn arrives(
        &mut self,
        to: ServerAddress,
        from: Endpoint,
        payload: &[u8],
    ) -> Option<(ServerAddress, Endpoint, Vec<u8>)> {
        self.inputs += 1;
        let transmit = self.server.handle_datagram(self.now, to, from, payload);
        let (output, octets) = own(transmit)?;
        assert!(octets.len() <= payload.len() + GROWTH, "amplification");
        assert!(self.config.ipv4_scope.accepts(from.address), "{from}: S-06");
        assert!(!self.is_own(from.ip()), "{from}: L-01");
        assert_ne!(from.port(), 0);
        let mut allowed = self.config.allow.iter();
        assert!(
            self.config.allow.is_empty() || allowed.any(|net| net.contains(&from.ip())),
            "S-24"
        );
        if !matches!(output, Output::Tunnel) {
            self.count(from);
        }
        self.left(Some(from), output, octets)
    }

    /// The limits hold (S-23).
    fn count(&mut self, from: Endpoint) {
        let answers = self.answers.entry(from.address).or_default();
        *answers += 1;
        let seconds = self.now.saturating_since(self.full_at).as_secs();
        let is_limited = self.config.limits.source == Config::new(PRIMARY, SECONDARY).limits.source;
        assert!(!is_limited || *answers <= 20 + 10 * (seconds + 1), "S-23");
    }

    /// Checks what leaves.
    fn left(
        &self,
        asker: Option<Endpoint>,
        output: Output,
        octets: Vec<u8>,
    ) -> Option<(ServerAddress, Endpoint, Vec<u8>)> {
        let parts = encapsulation::parse(&octets).expect("a Teredo payload");
        let header = Header::parse(parts.packet).expect("a packet");
        let destination = header.destination();
        match output {
            Output::Datagram(from, to) => {
                assert!(self.config.ipv4_scope.accepts(to.address), "{to}: L-05");
                let is_relay = self.config.relay.is_some_and(|relay| relay == to);
                assert!(is_relay || !self.is_own(to.ip()), "{to}: L-02");
                assert_ne!(to.port(), 0);
                if parts.authentication.is_some() {
                    assert_eq!(asker, Some(to), "L-03");
                }
                if parts.origin.is_some() && asker.is_some_and(|asker| asker != to) {
                    assert_eq!(parts.origin, asker, "S-15");
                }
                return Some((from, to, octets));
            }
            Output::Native => {
                assert!(self.native_reachable, "S-25");
                assert!(is_global_unicast(&destination), "S-12");
                assert!(
                    !self
                        .config
                        .prefixes
                        .iter()
                        .any(|one| one.contains(&destination)),
                    "S-12"
                );
                assert_eq!(octets.len(), header.packet_length(), "S-13");
                assert!(matches!(parts.packet[40], 128 | 129), "S-13");
            }
            Output::Tunnel => {
                assert_eq!(header.source()[..8], TUNNEL, "T-04");
                assert!(is_global_unicast(&destination), "T-04");
                assert_eq!(octets.len(), header.packet_length());
            }
        }
        None
    }

    /// The kernel routes a packet to the tunnel service.
    fn routed(&mut self, packet: &[u8]) {
        self.inputs += 1;
        let bindings: Vec<_> = self.server.bindings().map(|one| one.mapped).collect();
        let transmit = self.server.handle_ipv6(self.now, packet);
        let Some((output, octets)) = own(transmit) else {
            return;
        };
        match output {
            Output::Datagram(_, to) => {
                assert!(bindings.contains(&to), "T-04");
                assert_eq!(
                    octets.len(),
                    Header::parse(packet).expect("a packet").packet_length()
                );
            }
            // An error about a packet for a client that is not there.
            Output::Tunnel => assert!(octets.len() <= packet.len() + 48 && octets[40] == 1),
            Output::Native => panic!("not from there"),
        }
    }

    /// The relay in the same process hands over a bubble.
    pub fn relay_sends(&mut self, bubble: &[u8]) -> Option<(ServerAddress, Endpoint, Vec<u8>)> {
        self.inputs += 1;
        let transmit = self.server.handle_relay_bubble(self.now, RELAY, bubble);
        let (output, octets) = own(transmit)?;
        assert!(octets.len() <= bubble.len() + GROWTH);
        self.left(Some(RELAY), output, octets)
    }

    fn is_own(&self, address: Ipv4Addr) -> bool {
        [PRIMARY, SECONDARY].contains(&address) || self.own_ipv4.contains(&address)
    }

    /// Checks what holds at every moment.
    pub fn check(&mut self) {
        let statistics = self.server.statistics();
        let served = Service::ALL
            .iter()
            .map(|&one| statistics.served[one].packets);
        let dropped = DropReason::ALL.iter().map(|&one| statistics.dropped[one]);
        assert_eq!(
            served.chain(dropped).sum::<u64>(),
            self.inputs,
            "S-26: none is lost"
        );
        let bindings: Vec<_> = self.server.bindings().collect();
        assert!(bindings.len() <= 1, "T-01");
        for binding in bindings {
            assert!(
                self.config.ipv4_scope.accepts(binding.mapped.address),
                "T-03"
            );
            assert!(binding.last_seen <= self.now);
        }
        // Seldom, so that they pile up.
        if self.inputs.is_multiple_of(100) {
            let events: Vec<Event> = std::iter::from_fn(|| self.server.poll_event()).collect();
            assert!(events.len() <= EVENTS);
        }
    }

    /// Makes the clock that of another machine.
    pub const fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    /// The host was suspended.
    pub fn suspend(&mut self, duration: Duration) {
        self.server.handle_suspension(self.now, duration);
        self.full_at = self.full_at - duration;
    }
}

fn own(transmit: Option<Transmit<'_>>) -> Option<(Output, Vec<u8>)> {
    transmit.map(|transmit| match transmit {
        Transmit::Datagram { from, to, payload } => (Output::Datagram(from, to), payload.into()),
        Transmit::Native(packet) => (Output::Native, packet.into()),
        Transmit::Tunnel(packet) => (Output::Tunnel, packet.into()),
    })
}

/// Reads a configuration.
pub fn config(bytes: &mut Bytes<'_>) -> Config {
    let [flags, more] = bytes.array();
    let mut config = Config::new(PRIMARY, SECONDARY);
    config.own_ipv4 = vec![OWN_IPV4];
    config.relay = (flags & 1 != 0).then_some(RELAY);
    config.require_authentication = flags & 2 != 0;
    config.forward_echo = flags & 4 == 0;
    config.forward_echo_reply = flags & 8 != 0;
    config.forward_foreign = flags & 0x10 != 0;
    if flags & 0x20 != 0 {
        config.mtu = None;
    }
    if flags & 0x40 != 0 {
        config.prefixes.push(ServicePrefix::DRAFT);
    }
    if flags & 0x80 != 0 {
        config.ipv4_scope = Ipv4Scope::Lab;
    }
    if more & 1 != 0 {
        config.allow = ["9.0.0.0/16", "8.0.0.0/8", "9.0.0.0/24"]
            .map(|one| one.parse().expect("a network"))
            .into();
    }
    if more & 2 != 0 {
        config.limits.source = Rate::new(u32::MAX, u32::MAX);
        config.limits.network = Rate::new(u32::MAX, u32::MAX);
    }
    let tunnel = (more & 4 == 0).then(|| {
        let [a, b, c, d, e, f, g, h] = TUNNEL;
        let address = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0];
        teredo_proto::Ipv6Net::new_assert(address.into(), 64)
    });
    let old = Key::new(Algorithm::HmacMd5, &[2; 16]).expect("a long secret");
    let client = |id: &str, key, retired, prefix| {
        let id = id.into();
        RegisteredClient {
            id,
            key,
            retired,
            prefix,
        }
    };
    config.clients = vec![
        client("alice", key(), vec![old.clone()], tunnel),
        client("bob", old, vec![key()], None),
    ];
    config
}

/// A packet of a client: from anywhere to anywhere, or through the tunnel.
pub fn datagram(bytes: &mut Bytes<'_>) -> Vec<u8> {
    match bytes.below(8) {
        0..=5 => bytes.payload(),
        6 => {
            let (source, destination) = (tunnelled(bytes), bytes.native());
            bytes.packet(&source, &destination)
        }
        _ => {
            let packet = teredo_proto::wire::router::solicitation(&[
                0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ]);
            bytes.wrap(&packet)
        }
    }
}

fn tunnelled(bytes: &mut Bytes<'_>) -> [u8; 16] {
    let mut address = [0; 16];
    address[..8].copy_from_slice(&TUNNEL);
    address[8] = bytes.octet();
    address
}
