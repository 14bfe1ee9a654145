//! Histories of a client, with a server, peers and a host around it.

mod observer;
mod step;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    wire::SERVER_PORT,
};
use teredo_proto::{
    Client, Instant, Rate, Server, ServerAddress,
    client::{
        Config, Credentials, Event, Extensions, Identity, Network, Refresh, SavedClient,
        ServerEndpoints, State, Transmit,
    },
    nat::Behaviour,
    server::{self, Buckets, RegisteredClient},
};

use super::{
    START, STEPS, handed_over,
    scenery::{PRIMARY, SECONDARY, key},
    world::check_durations,
};
use crate::bytes::Bytes;
use observer::Observer;

/// The service port.
const PORT: u16 = 40_000;
/// The address of the host on its network.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// A server that never answers.
const SILENT: Ipv4Addr = Ipv4Addr::new(6, 6, 6, 6);

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let mut world = World::new(&mut bytes);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        step::take(&mut world, &mut bytes);
        world.check();
    }
    world.end();
}

/// Runs a history of some steps, and returns the client with its configuration and the time.
#[cfg(feature = "daemon")]
pub fn after(bytes: &mut Bytes<'_>, steps: usize) -> (Client, Config, Instant) {
    let mut world = World::new(bytes);
    (0..steps).for_each(|_| step::take(&mut world, bytes));
    (world.client, world.config, world.now)
}

/// A client, and what is around it.
struct World {
    client: Client,
    config: Config,
    server: Server,
    network: Network,
    now: Instant,
    observer: Observer,
    /// Whether the host has a port when the client wants one.
    has_ports: bool,
    /// The identity that the events have told.
    told: Option<Identity>,
}

impl World {
    /// A client, configured and started by the next octets.
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let config = config(bytes);
        let mut server = server::Config::new(PRIMARY, SECONDARY);
        let unlimited = Rate::new(u32::MAX, u32::MAX);
        server.limits.source = unlimited;
        server.limits.network = unlimited;
        server.limits.total = unlimited;
        let prefix = bytes
            .bit()
            .then(|| "2001:db8:1:2::/64".parse().expect("a network"));
        server.clients = vec![RegisteredClient {
            id: b"alice".into(),
            key: key(),
            retired: vec![],
            prefix,
        }];
        server.mtu = (!bytes.bit()).then_some(1280);
        let mut world = Self {
            client: Client::new(config.clone(), [42; 32]),
            server: Server::new(server, Buckets::new()),
            network: Network::default(),
            now: START,
            observer: Observer::new(&config),
            config,
            has_ports: true,
            told: None,
        };
        world.network.source = Some(INSIDE);
        world.network.attached = vec![teredo_proto::client::Attached {
            address: INSIDE,
            prefix_length: 24,
        }];
        world.client.set_network(world.now, world.network.clone());
        world.client.start(world.now);
        world.drain();
        world
    }

    /// A datagram arrives.
    fn arrives(&mut self, port: u16, from: Endpoint, ecn: u8, payload: &[u8]) {
        self.observer.mention(from, payload);
        let mut buffer = payload.to_vec();
        let packet = self
            .client
            .handle_datagram(self.now, port, from, ecn, &mut buffer);
        if let Some(packet) = packet {
            let packet = packet.to_vec();
            self.observer.delivered(self.client.identity(), &packet);
        }
        self.drain();
    }

    /// A datagram arrives at the group of discovery bubbles.
    fn arrives_at_group(&mut self, interface: Ipv4Addr, from: Endpoint, payload: &[u8]) {
        self.observer.mention(from, payload);
        self.client
            .handle_discovery(self.now, interface, from, payload);
        self.drain();
    }

    /// The host sends a packet.
    fn host_sends(&mut self, packet: &[u8]) {
        self.observer.cause();
        let mut buffer = packet.to_vec();
        if let Some((from, to, payload)) = self.client.handle_ipv6(self.now, &mut buffer) {
            let payload = payload.to_vec();
            assert_eq!(packet.get(..payload.len()), Some(&payload[..]), "unchanged");
            let identity = self.client.identity().copied();
            self.observer
                .sent(self.now, identity.as_ref(), from, to, &payload);
        }
        self.drain();
    }

    /// The server answers a solicitation that was sent, and sees it come from `mapped`.
    fn server_answers(&mut self, number: usize, mapped: Endpoint, change: impl Fn(&mut Vec<u8>)) {
        let Some(sent) = self.observer.solicitation(number) else {
            return;
        };
        let (port, to, payload) = sent.clone();
        let address = match to.ip() {
            PRIMARY => ServerAddress::Primary,
            SECONDARY => ServerAddress::Secondary,
            _ => return,
        };
        let answer = self
            .server
            .handle_datagram(self.now, address, mapped, &payload);
        if let Some(server::Transmit::Datagram { from, payload, .. }) = answer {
            let from = ServerEndpoints::new(PRIMARY).endpoint(from);
            let mut payload = payload.to_vec();
            change(&mut payload);
            self.arrives(port, from, 0, &payload);
        }
    }

    /// Another process goes on, if the configuration still has the server.
    fn restart(&mut self) {
        let state: SavedClient = handed_over(&self.client.save(self.now));
        if state.check(&self.config).is_ok() {
            self.observer.close_ports();
            self.client = Client::restore(self.config.clone(), [43; 32], self.now, state);
            self.drain();
        }
    }

    fn pass(&mut self, duration: Duration) {
        let mut now = self.now;
        super::pass(
            self,
            &mut now,
            duration,
            |world| world.client.poll_timeout(),
            |world, now| {
                world.now = now;
                world.observer.cause();
                world.client.handle_timeout(now);
                world.drain();
            },
        );
        self.now = now;
    }

    fn drain(&mut self) {
        let identity = self.client.identity().copied();
        while let Some(transmit) = self.client.poll_transmit() {
            match transmit {
                Transmit::Datagram { from, to, payload } => {
                    self.observer
                        .sent(self.now, identity.as_ref(), from, to, &payload);
                }
                Transmit::Discovery { interface, .. } => {
                    assert!(self.config.local_discovery, "C-60");
                    let mut attached = self.network.attached.iter();
                    assert!(attached.any(|one| one.address == interface), "C-60");
                }
                Transmit::Ipv6(packet) => self.observer.delivered(None, &packet),
                Transmit::OpenPort(port) => {
                    self.observer.opened(port);
                    if !self.has_ports {
                        self.observer.failed(port);
                        self.client.handle_port_failure(self.now, port);
                    }
                }
                Transmit::ClosePort(port) => self.observer.closed(port),
            }
        }
        self.observer.flushed();
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Qualified(identity) => self.told = Some(identity),
                Event::Unqualified => {
                    assert!(self.told.is_some(), "there was none");
                    self.told = None;
                }
                Event::RefreshFound(interval) => {
                    assert!(interval >= Duration::from_secs(5), "C-53");
                }
                Event::Offline(_) | Event::RenewKey => {}
            }
        }
    }

    /// Checks what holds at every moment.
    fn check(&mut self) {
        self.observer.cause();
        let (statistics, config) = (self.client.statistics(), &self.config);
        let key = |identity: &Identity| (identity.address, identity.mtu);
        let identity = self.client.identity();
        assert_eq!(
            self.told.as_ref().map(key),
            identity.map(key),
            "the events tell everything"
        );
        if let Some(identity) = identity {
            assert!(identity.mtu >= 1280, "C-16");
            assert!(config.ipv4_scope.accepts(identity.mapped.address), "C-13");
            let is_teredo = ServicePrefix::STANDARD.contains(&identity.address.octets());
            assert_eq!(is_teredo, !identity.tunnel, "C-12");
            assert!(!identity.tunnel || config.allow_tunnel, "T-11");
        } else {
            assert_eq!(self.client.peers().count(), 0);
        }
        if self.client.state() == State::Qualified {
            assert!(identity.is_some());
        }
        let peers: Vec<_> = self.client.peers().collect();
        assert!(peers.len() <= config.max_peers, "P-06");
        assert_eq!(
            peers.len(),
            statistics.trusted_peers + statistics.untrusted_peers
        );
        assert!(statistics.queue_octets <= config.queue_total_bytes, "P-07");
        assert!(
            peers
                .iter()
                .all(|peer| peer.queued <= config.queue_per_peer),
            "P-07"
        );
        let queued: usize = peers.iter().map(|peer| peer.queued).sum();
        // Packets that came before their sender was tested wait, too.
        assert!(queued <= statistics.queue_packets);
        self.observer.check_ports(config.max_peers);
    }

    /// Looks at the client as the daemon does while it serves: at its peers, their traffic and the counters; and at a
    /// copy of it.
    fn inspect(&mut self) {
        let slots = self.client.slots();
        let peers: Vec<_> = self.client.peers_in(0..slots).collect();
        for (_, peer) in &peers {
            assert!(self.client.unanswered(&peer.address.octets()) < u8::MAX);
        }
        self.client.begin_reports();
        let mut reported = 0;
        self.client.report(0..slots, |_| reported += 1);
        assert!(reported <= peers.len());
        self.client
            .report(0..slots, |_| panic!("nothing was forwarded since"));
        self.client.take_removed();
        assert!(self.client.take_removed().is_empty());
        let statistics = self.client.statistics();
        for durations in [
            statistics.waits,
            statistics.first_waits,
            statistics.round_trips,
            statistics.qualifications,
        ] {
            check_durations(&durations);
        }
        if let Some(identity) = self.client.identity() {
            assert!(!Behaviour::from(identity).to_string().is_empty());
        }
        let saved = self.client.save(self.now);
        assert_eq!(saved.is_started(), self.client.state() != State::Stopped);
        let copy = self.client.copy(self.now, [44; 32]);
        assert_eq!(copy.identity(), self.client.identity());
    }

    /// A client that is stopped wants nothing any more.
    fn end(&mut self) {
        self.inspect();
        self.pass(Duration::from_secs(1000));
        self.check();
        assert_eq!(
            self.client.statistics().queue_packets,
            0,
            "nothing waits for ever"
        );
        self.client.stop(self.now);
        self.drain();
        self.check();
        assert_eq!(self.client.state(), State::Stopped);
        assert_eq!(self.client.identity(), None);
        self.observer.check_ports(0);
        self.pass(Duration::from_secs(1000));
        assert_eq!(self.client.poll_timeout(), None);
    }
}

fn config(bytes: &mut Bytes<'_>) -> Config {
    let [flags, more, extensions] = bytes.array();
    let servers = [PRIMARY, SILENT].map(ServerEndpoints::new);
    let servers = match flags & 1 {
        0 => servers[..1].to_vec(),
        _ => servers.to_vec(),
    };
    let mut config = Config::new(servers, PORT);
    config.cone_probe = flags & 2 != 0;
    config.draft_flags = flags & 4 != 0;
    config.random_link_local = flags & 8 != 0;
    config.honor_cone = flags & 0x10 != 0;
    config.legacy_server = flags & 0x20 != 0;
    config.accept_unsolicited = flags & 0x40 != 0;
    config.local_discovery = flags & 0x80 == 0;
    if more & 1 != 0 {
        config.credentials = Some(Credentials {
            id: b"alice".into(),
            key: key(),
        });
        config.allow_tunnel = more & 2 != 0;
    }
    if more & 4 != 0 {
        config.refresh = Refresh::Fixed(Duration::from_secs(5 + u64::from(more >> 4)));
    }
    config.legacy_prefix = more & 8 != 0;
    if more & 0x80 != 0 {
        config.server_pace.first = 1;
        config.server_pace.most = 2;
        config.direct_bubble_rates.address = Rate::new(1, 3);
    }
    config.extensions = Extensions {
        symmetric: extensions & 1 == 0,
        port_preserving: extensions & 2 == 0,
        sequential: extensions & 4 == 0,
        hairpinning: extensions & 8 == 0,
        load_reduction: extensions & 0x10 == 0,
    };
    config.max_peers = 2 + usize::from(extensions >> 5) * 4;
    config.queue_per_peer = 3;
    config.queue_total_bytes = 4096;
    config
}

/// The endpoints of the server.
const fn server_endpoints() -> [Endpoint; 2] {
    [
        Endpoint::new(PRIMARY, SERVER_PORT),
        Endpoint::new(SECONDARY, SERVER_PORT),
    ]
}

/// What each peer and nonce is known by.
type Nonces = BTreeMap<[u8; 16], [u8; 4]>;
