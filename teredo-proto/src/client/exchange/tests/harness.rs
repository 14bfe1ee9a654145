//! One client's exchange in virtual time, with hand-made datagrams around it.

use std::{
    collections::{BTreeSet, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    scope::Ipv4Scope,
    time::Instant,
};

pub use crate::testing::{address, endpoint, ipv6, packet, transport};
use crate::{
    client::{
        Attached, Bubble, Config, DropReason, Identity, Nat, Network, PeerInfo, ServerEndpoints,
        Statistics, Test, Transmit,
        exchange::{Exchange, Forward, extensions::Trailers},
        shared::Shared,
    },
    shared::{own::OwnIpv4, statistics::Unreachable},
    wire::{bubble, encapsulation, ipv6::Header},
};

/// The client's server.
pub const SERVER: &str = "1.2.3.4:3544";
/// The client's mapped endpoint.
pub const MAPPED: &str = "9.0.0.1:4096";
/// The client's address on its own network.
pub const INSIDE: &str = "192.168.1.2";
/// The client's service port.
pub const PORT: u16 = 40_000;
/// The server of the peer.
pub const PEER_SERVER: &str = "9.10.11.12:3544";
/// The peer's mapped endpoint.
pub const PEER: &str = "8.0.0.1:1024";
/// A native host.
pub const HOST: &str = "2000::b";
/// The relay next to the native host.
pub const RELAY: &str = "5.6.7.8:3545";

/// The Teredo address of a client at `mapped`, of `server`.
pub fn teredo(mapped: &str, server: &str) -> [u8; 16] {
    let fields = TeredoAddress::new(endpoint(server).ip(), endpoint(mapped));
    fields.encode().octets()
}

/// The client's own address.
pub fn own() -> [u8; 16] {
    teredo(MAPPED, SERVER)
}

/// The peer's address.
pub fn peer() -> [u8; 16] {
    teredo(PEER, PEER_SERVER)
}

/// A bubble with trailers, as a datagram's payload.
pub fn bubble(source: &[u8; 16], destination: &[u8; 16], trailers: &[u8]) -> Vec<u8> {
    [&bubble::build(source, destination)[..], trailers].concat()
}

/// Returns a payload as a server forwards it, after an origin indication.
pub fn with_origin(origin: &str, payload: &[u8]) -> Vec<u8> {
    [&endpoint(origin).origin_indication()[..], payload].concat()
}

/// The reply to a connectivity test.
pub fn reply_to(test: &[u8]) -> Vec<u8> {
    let header = Header::parse(test).unwrap();
    let mut reply = Vec::new();
    assert!(crate::wire::icmpv6::echo_reply(
        &header.destination(),
        test,
        &mut reply
    ));
    reply
}

/// A datagram that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub at: Instant,
    pub from: u16,
    pub to: Endpoint,
    pub payload: Vec<u8>,
}

/// The exchange of one client and its surroundings.
pub struct World {
    pub shared: Shared,
    pub exchange: Exchange,
    pub now: Instant,
    /// All datagrams, oldest first.
    pub sent: Vec<Sent>,
    /// Discovery bubbles, with the interface that they left by.
    pub discovery: Vec<(Ipv4Addr, Vec<u8>)>,
    /// IPv6 packets for the host, at once or later.
    pub delivered: Vec<Vec<u8>>,
    /// Ports that are open besides the service port.
    pub ports: Vec<u16>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::behind(Nat::Restricted, change)
    }

    /// Lets another process go on from the state of the exchange, as octets. The ports stay open.
    pub fn restart(&mut self) {
        let octets = rmp_serde::to_vec_named(&self.exchange.state(self.now)).unwrap();
        let state = rmp_serde::from_slice(&octets).unwrap();
        let config = self.shared.config.clone();
        self.shared.ports.clear();
        self.exchange = Exchange::restore(&mut self.shared, &config, self.now, state);
        let mut open = Vec::new();
        while let Some(transmit) = self.shared.transmits.pop_front() {
            match transmit {
                Transmit::OpenPort(port) => open.push(port),
                other => panic!("{other:?}"),
            }
        }
        let mut ports = self.ports.clone();
        ports.sort_unstable();
        assert_eq!(open, ports);
    }

    /// A qualified client behind a NAT of this kind.
    pub fn behind(nat: Nat, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(vec![ServerEndpoints::new(endpoint(SERVER).ip())], PORT);
        config.ipv4_scope = Ipv4Scope::Strict;
        change(&mut config);
        let mut random = StdRng::from_seed([42; 32]);
        let mut own_ipv4 = OwnIpv4::new(config.ipv4_scope);
        let inside: Ipv4Addr = INSIDE.parse().unwrap();
        own_ipv4.set(&[inside], []);
        let exchange = Exchange::new(&config, &mut random);
        let shared = Shared {
            config,
            network: Network {
                source: Some(inside),
                attached: vec![Attached {
                    address: inside,
                    prefix_length: 24,
                }],
                ..Network::default()
            },
            own_ipv4,
            random,
            ports: BTreeSet::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            statistics: Statistics::default(),
        };
        let mut world = Self {
            shared,
            exchange,
            now: Instant::from_nanos(1_000_000_000_000),
            sent: Vec::new(),
            discovery: Vec::new(),
            delivered: Vec::new(),
            ports: Vec::new(),
        };
        world.set_identity(Some(Self::identity(nat)));
        world.discovery.clear();
        world
    }

    pub fn identity(nat: Nat) -> Identity {
        Identity {
            address: own().into(),
            mapped: endpoint(MAPPED),
            server: ServerEndpoints::new(endpoint(SERVER).ip()),
            nat,
            port_preserving: false,
            port_mapping: None,
            upnp: false,
            mtu: 1280,
            tunnel: false,
        }
    }

    pub fn set_identity(&mut self, identity: Option<Identity>) {
        self.exchange
            .set_identity(&mut self.shared, self.now, identity);
        self.drain();
    }

    /// The host sends.
    pub fn host_sends(&mut self, packet: &[u8]) -> Result<Forward, DropReason> {
        let way = self
            .exchange
            .handle_ipv6(&mut self.shared, self.now, packet);
        self.drain();
        if let Ok(Forward::Send(from, to, length)) = way {
            let payload = packet[..length].to_vec();
            self.sent.push(Sent {
                at: self.now,
                from,
                to,
                payload,
            });
        }
        way
    }

    /// A datagram arrives at the service port.
    pub fn arrives(&mut self, from: &str, payload: &[u8]) -> Result<Option<usize>, DropReason> {
        self.arrives_at(PORT, endpoint(from), payload)
    }

    pub fn arrives_at(
        &mut self,
        to: u16,
        from: Endpoint,
        payload: &[u8],
    ) -> Result<Option<usize>, DropReason> {
        let parts = encapsulation::parse(payload).unwrap();
        let result = self
            .exchange
            .handle_datagram(&mut self.shared, self.now, to, from, &parts);
        self.drain();
        if let Ok(Some(length)) = result {
            self.delivered.push(parts.packet[..length].to_vec());
        }
        result
    }

    /// A datagram arrives at the discovery address.
    pub fn arrives_on_link(&mut self, from: &str, payload: &[u8]) -> Result<(), DropReason> {
        let parts = encapsulation::parse(payload).unwrap();
        let interface = INSIDE.parse().unwrap();
        let result = self.exchange.handle_discovery(
            &mut self.shared,
            self.now,
            interface,
            endpoint(from),
            &parts,
        );
        self.drain();
        result
    }

    /// Lets time pass, waking the exchange whenever it wants to.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.exchange.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(deadline);
            self.exchange.handle_timeout(&mut self.shared, self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Suspends the host; its clock stands still.
    pub fn suspend(&mut self, duration: Duration) {
        self.exchange.handle_suspension(&mut self.shared, duration);
    }

    pub fn pass_seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    fn drain(&mut self) {
        let at = self.now;
        for transmit in std::mem::take(&mut self.shared.transmits) {
            match transmit {
                Transmit::Datagram { from, to, payload } => self.sent.push(Sent {
                    at,
                    from,
                    to,
                    payload,
                }),
                Transmit::Discovery { interface, payload } => {
                    self.discovery.push((interface, payload));
                }
                Transmit::Ipv6(packet) => self.delivered.push(packet),
                Transmit::OpenPort(port) => self.ports.push(port),
                Transmit::ClosePort(port) => self.ports.retain(|&open| open != port),
            }
        }
    }

    /// Returns and clears the datagrams sent so far.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// Returns and clears the destinations and payloads of the datagrams sent so far.
    pub fn take_payloads(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        let sent = self.take_sent().into_iter();
        sent.map(|sent| (sent.to, sent.payload)).collect()
    }

    pub fn take_delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.delivered)
    }

    /// Returns the state of a peer.
    pub fn peer(&self, address: &[u8; 16]) -> Option<PeerInfo> {
        let mut peers = self.exchange.peers();
        peers.find(|peer| peer.address.octets() == *address)
    }

    pub fn trusts(&self, address: &[u8; 16]) -> bool {
        self.peer(address).is_some_and(|peer| peer.trusted)
    }

    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.shared.statistics;
        self.exchange.measure(&mut statistics);
        statistics
    }

    pub fn bubbles(&self, kind: Bubble) -> u64 {
        self.statistics().bubbles[kind]
    }

    pub fn tests(&self, outcome: Test) -> u64 {
        self.statistics().tests[outcome]
    }

    pub fn unreachable(&self, outcome: Unreachable) -> u64 {
        self.statistics().unreachable[outcome]
    }

    /// Makes the native host a trusted peer, and clears the datagrams of that.
    pub fn trust_host(&mut self) -> [u8; 16] {
        let host = address(HOST);
        self.host_sends(&packet(&own(), &host, 0)).unwrap();
        let test = self.sent.pop().unwrap().payload;
        assert_eq!(self.arrives(RELAY, &reply_to(&test)), Ok(None));
        assert!(self.trusts(&host));
        self.take_sent();
        host
    }

    /// Makes the peer a trusted one, and clears the datagrams of that.
    pub fn trust_peer(&mut self) -> [u8; 16] {
        let peer = peer();
        assert_eq!(self.arrives(PEER, &bubble(&peer, &own(), &[])), Ok(None));
        assert!(self.trusts(&peer));
        self.take_sent();
        peer
    }
}

/// Returns the contents of a bubble's trailers.
pub fn trailers(payload: &[u8]) -> Trailers<'_> {
    let parts = encapsulation::parse(payload).unwrap();
    Trailers::parse(parts.trailers).unwrap()
}
