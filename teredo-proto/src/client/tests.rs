//! Both halves together, with a server.

use super::*;
use crate::{
    ServerAddress,
    server::{self, Buckets},
    testing::{address, endpoint, packet},
    wire::{bubble, icmpv6},
};
use teredo_common::{address::TeredoAddress, scope::Ipv4Scope};

const PORT: u16 = 40_000;

/// A client, its server, and the client's endpoint as the server sees it.
struct World {
    client: Client,
    server: server::Server,
    addresses: ServerEndpoints,
    mapped: Endpoint,
    now: Instant,
}

impl World {
    fn new(primary: &str, own: &str, mapped: &str, scope: Ipv4Scope) -> Self {
        let addresses = ServerEndpoints::new(primary.parse().unwrap());
        let mut config = server::Config::new(addresses.primary, addresses.secondary);
        config.ipv4_scope = scope;
        let now = Instant::ZERO + Duration::from_secs(1000);
        let server = server::Server::new(config, Buckets::new());
        let mut config = Config::new(vec![addresses], PORT);
        config.ipv4_scope = scope;
        let mut client = Client::new(config, [5; 32]);
        let address = own.parse().unwrap();
        let network = Network {
            source: Some(address),
            attached: vec![Attached {
                address,
                prefix_length: 24,
            }],
            ..Network::default()
        };
        client.set_network(now, network);
        Self {
            client,
            server,
            addresses,
            mapped: endpoint(mapped),
            now,
        }
    }

    /// Starts the client, and has the server answer it.
    fn qualify(&mut self) -> Identity {
        self.client.start(self.now);
        while let Some(transmit) = self.client.poll_transmit() {
            if let Some((from, mut answer)) = self.answer(&transmit) {
                assert_eq!(self.arrives(from, &mut answer), None, "C-18");
            }
        }
        *self.client.identity().unwrap()
    }

    /// Returns the server's answer to a datagram, and its source.
    fn answer(&mut self, transmit: &Transmit) -> Option<(Endpoint, Vec<u8>)> {
        let Transmit::Datagram { to, payload, .. } = transmit else {
            return None;
        };
        let asked = match *to == self.addresses.primary() {
            true => ServerAddress::Primary,
            false => ServerAddress::Secondary,
        };
        let (now, mapped) = (self.now, self.mapped);
        match self.server.handle_datagram(now, asked, mapped, payload) {
            Some(server::Transmit::Datagram { from, payload, .. }) if from == asked => {
                Some((*to, payload.to_vec()))
            }
            _ => None,
        }
    }

    /// A datagram arrives at the service port. The packet that the host gets.
    fn arrives(&mut self, from: Endpoint, payload: &mut [u8]) -> Option<Vec<u8>> {
        let packet = self
            .client
            .handle_datagram(self.now, PORT, from, 0, payload);
        packet.map(|packet| packet.to_vec())
    }

    /// The maintenance solicitation that comes next.
    fn server_half_asks(&mut self) -> Transmit {
        while self.client.poll_transmit().is_some() {}
        self.client
            .recheck_mapping(self.now + Duration::from_secs(3));
        let mut transmits = std::iter::from_fn(|| self.client.poll_transmit());
        let is_it = |transmit: &Transmit| matches!(transmit, Transmit::Datagram { from: PORT, .. });
        transmits.find(is_it).unwrap()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.client.statistics().dropped[reason]
    }
}

fn public() -> World {
    World::new(
        "1.2.3.4",
        "192.168.1.2",
        "9.0.0.1:4096",
        Ipv4Scope::default(),
    )
}

/// Malformed datagrams and this host's own are dropped first, advertisements are the server's
/// half's, and discovery bubbles are looked at before the rules for peers, which a trusted
/// neighbor's would match.
#[test]
fn c30_the_order_of_reception() {
    const NEIGHBOR: &str = "192.168.1.3:40001";
    let mut world = public();
    let own = world.qualify().address.octets();
    let neighbor = TeredoAddress::new(world.addresses.primary, endpoint("9.0.0.1:4097"));
    let neighbor = neighbor.encode().octets();

    // Cut short, and from this host's own address: the latter would be trusted otherwise.
    let mut bubble = bubble::build(&neighbor, &own);
    world.arrives(endpoint("9.0.0.1:4097"), &mut bubble[..39]);
    assert_eq!(world.dropped(DropReason::Malformed), 1);
    world.arrives(endpoint("192.168.1.2:4097"), &mut bubble);
    assert_eq!(world.dropped(DropReason::OwnSource), 1);
    let mut looped = bubble::build(&own, &own);
    world.arrives(endpoint("9.0.0.1:4097"), &mut looped);
    assert_eq!(world.dropped(DropReason::SameAddresses), 1);
    assert_eq!(world.client.peers().count(), 0);

    // An unsolicited advertisement, from anywhere.
    let question = world.server_half_asks();
    let (from, mut late) = world.answer(&question).unwrap();
    late[4] ^= 1;
    world.arrives(from, &mut late);
    assert_eq!(world.dropped(DropReason::AdvertisementNonce), 1);

    // A neighbor that is trusted at its endpoint on the link announces itself again.
    let interface = "192.168.1.2".parse().unwrap();
    let discovery = bubble::build_discovery(&neighbor);
    let (client, now) = (&mut world.client, world.now);
    client.handle_discovery(now, interface, endpoint(NEIGHBOR), &discovery);
    world.arrives(endpoint(NEIGHBOR), &mut bubble);
    let is_trusted = |world: &World| {
        let mut peers = world.client.peers();
        peers.any(|peer| peer.trusted && peer.local && peer.mapped == endpoint(NEIGHBOR))
    };
    assert!(is_trusted(&world));
    world.now += Duration::from_secs(20);
    let (client, now) = (&mut world.client, world.now);
    client.handle_discovery(now, interface, endpoint(NEIGHBOR), &discovery);
    world.now += Duration::from_secs(11);
    world.client.handle_timeout(world.now);
    assert!(!is_trusted(&world), "it proves nothing");
    let arrived = world.arrives(endpoint(NEIGHBOR), &mut discovery.clone());
    assert_eq!((arrived, world.dropped(DropReason::Destination)), (None, 1));
}

/// A bubble that the own server forwarded is indirect, regardless of its contents; any other is
/// direct, and has no origin.
#[test]
fn x02_the_outer_source_decides_what_is_direct() {
    let mut world = public();
    let own = world.qualify().address.octets();
    while world.client.poll_transmit().is_some() {}
    let server = "9.10.11.12".parse().unwrap();
    let peer = TeredoAddress::new(server, endpoint("8.0.0.1:1024"));
    let peer = peer.encode().octets();
    let server = world.addresses.primary();
    let bubble = bubble::build(&peer, &own).to_vec();
    let origin = endpoint("8.0.0.1:1024").origin_indication();
    let with_origin = [&origin[..], &bubble].concat();
    let count = |world: &World, kind| world.client.statistics().bubbles[kind];

    for (number, indirect) in (1..).zip([&bubble, &with_origin]) {
        world.arrives(server, &mut indirect.clone());
        assert_eq!(count(&world, Bubble::ReceivedIndirect), number);
        assert!(world.client.peers().all(|peer| !peer.trusted));
    }
    // The other address and another port of the server are not the server.
    for from in ["1.2.3.5:3544", "1.2.3.4:3545"] {
        world.arrives(endpoint(from), &mut bubble.clone());
    }
    assert_eq!(world.dropped(DropReason::Mapping), 2);
    world.arrives(endpoint("8.0.0.1:1024"), &mut with_origin.clone());
    assert_eq!(world.dropped(DropReason::ServerElement), 1);
    assert_eq!(count(&world, Bubble::ReceivedDirect), 0);
    world.arrives(endpoint("8.0.0.1:1024"), &mut bubble.clone());
    assert_eq!(count(&world, Bubble::ReceivedDirect), 1);
    assert!(world.client.peers().all(|peer| peer.trusted));
}

/// Packets held until a test was answered reach the host before those that come after the answer.
#[test]
fn c41_what_was_held_comes_first() {
    let mut world = public();
    let own = world.qualify().address.octets();
    let relay = endpoint("5.6.7.8:3545");
    let host = address("2000::b");
    while world.client.poll_transmit().is_some() {}
    let mut first = packet(&own, &host, 0);
    assert_eq!(world.client.handle_ipv6(world.now, &mut first), None);
    let Some(Transmit::Datagram { payload: test, .. }) = world.client.poll_transmit() else {
        panic!("no test");
    };
    assert_eq!(world.arrives(relay, &mut packet(&host, &own, 1)), None);
    let mut reply = Vec::new();
    assert!(icmpv6::echo_reply(&host, &test, &mut reply));
    assert_eq!(world.arrives(relay, &mut reply), None);
    assert_eq!(world.arrives(relay, &mut packet(&host, &own, 2)), None);

    let transmits = std::iter::from_fn(|| world.client.poll_transmit());
    let delivered = transmits.filter_map(|transmit| match transmit {
        Transmit::Ipv6(packet) => packet.last().copied(),
        _ => None,
    });
    assert_eq!(delivered.collect::<Vec<u8>>(), [1, 2]);
    let third = world.arrives(relay, &mut packet(&host, &own, 3));
    assert_eq!(third, Some(packet(&host, &own, 3)), "nothing waits");
}

/// There are no well-known servers any more: an operator of one in a private network has all that a
/// client needs.
#[test]
fn z04_a_private_deployment_is_enough() {
    let mut world = World::new("10.0.0.1", "10.7.0.2", "10.7.0.2:40000", Ipv4Scope::Lab);
    let identity = world.qualify();
    assert_eq!(identity.server, world.addresses);
    assert_eq!(identity.mapped, world.mapped);
    assert!(identity.port_preserving);
}

/// The measurement of the interval and the extensions choose ports independently.
#[test]
fn no_port_is_open_for_two_purposes() {
    let config = Config::new(vec![ServerEndpoints::new(Ipv4Addr::new(1, 2, 3, 4))], PORT);
    let mut shared = Client::new(config, [5; 32]).shared;
    let first = shared.open_port();
    // The same numbers once more.
    shared.random = StdRng::from_seed([5; 32]);
    let others: Vec<_> = (0..64).map(|_| shared.open_port()).collect();
    assert!(!others.contains(&first));
    assert_eq!(shared.transmits.len(), 65);
    shared.open_again(first);
    assert_eq!(shared.transmits.len(), 65, "it is open");
    shared.close_port(first);
    shared.close_port(first);
    let closed = shared.transmits.drain(65..).collect::<Vec<_>>();
    assert!(matches!(closed[..], [Transmit::ClosePort(port)] if port == first));
}
