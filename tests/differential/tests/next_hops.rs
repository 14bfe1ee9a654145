//! The cache of next hops: how often the kernel's tables are asked.

use std::{
    cell::Cell,
    net::{Ipv4Addr, Ipv6Addr},
};

use teredo_common::{
    address::{Endpoint, TeredoAddress},
    generations::{SECOND, SILENCE},
    peers::Peer,
    time::Instant,
    verdict::Verdict,
    wire::ETHERTYPE_IPV4,
};
use teredo_datapath::{
    Way,
    host::{Arrival, Cpu, Maps, Network, RouteTable},
};
use teredo_differential::{
    packet::{datagram, endpoint, ethernet, udp},
    site::{self, ROUTER, Setup, WAN},
};

const INTERFACES: [u32; 3] = [2, 3, 4];
const CLIENT: &str = "9.0.0.1:4096";
/// Native hosts behind the gateway.
const BEHIND: [&str; 2] = ["2000:5::1", "2000:6::1"];
/// Native hosts on the link of one interface and of another.
const ON_LINK: [&str; 2] = ["2000::b", "2000:3::b"];

/// The kernel's tables, which count how often they are asked.
struct Tables {
    routes: RouteTable,
    asked: Cell<u32>,
}

impl Network for Tables {
    fn look_up_ipv4(&self, from: u32, source: Endpoint, destination: Endpoint) -> Option<Way> {
        self.asked.set(self.asked.get() + 1);
        self.routes.look_up_ipv4(from, source, destination)
    }

    fn look_up_ipv6(&self, from: u32, source: Ipv6Addr, destination: Ipv6Addr) -> Option<Way> {
        self.asked.set(self.asked.get() + 1);
        self.routes.look_up_ipv6(from, source, destination)
    }
}

/// A relay with one client.
struct World {
    maps: Maps,
    cpu: Cpu,
    tables: Tables,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let setup = Setup::default();
        let mut maps = Maps::new(setup.settings(5), setup.max_peers, 0x5eed);
        maps.add_interface(INTERFACES[0], WAN);
        maps.add_interface(INTERFACES[1], site::LAN);
        Self {
            maps,
            cpu: Cpu::default(),
            tables: Tables {
                routes: site::routes(INTERFACES),
                asked: Cell::default(),
            },
            now: Instant::from_nanos(1_000_000_000_000),
        }
    }

    /// Returns how often the tables are asked for a packet of the client to each of these hosts in turn.
    fn asked_for(&self, hosts: &[&str]) -> Vec<u32> {
        let mapped = endpoint(CLIENT);
        let client = TeredoAddress::new(Ipv4Addr::new(1, 2, 3, 4), mapped).encode();
        let peer = Peer {
            mapped,
            last_received: self.now,
            last_sent: self.now,
        };
        assert!(self.maps.insert(&client.octets(), &peer, self.now));
        let ask = |text: &&str| {
            let host = text.parse().expect("an address");
            let packet = udp(client, host, b"data");
            let packet = datagram(mapped, site::relay(), 1, &packet);
            let arrival = Arrival {
                frame: &ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet),
                ingress: INTERFACES[0],
                now: self.now,
            };
            let before = self.tables.asked.get();
            let outcome = self.maps.run(&self.cpu, &self.tables, arrival);
            assert_eq!(outcome.verdict, Verdict::DecapForwarded, "{text}");
            // What was cached for one host must not lead to another.
            let way = self.tables.routes.look_up_ipv6(5, client, host);
            let destination = way.expect("a route").addresses.destination();
            assert_eq!(outcome.frame[..6], destination, "{text}");
            self.tables.asked.get() - before
        };
        hosts.iter().map(ask).collect()
    }
}

#[test]
fn hosts_behind_a_gateway_share_a_next_hop() {
    let world = World::new();
    world.maps.set_generation(1, 1, world.now);
    let [one, other] = BEHIND;
    assert_eq!(world.asked_for(&[one, one, other, other]), [1, 0, 0, 0]);
    // Something has changed.
    world.maps.set_generation(2, 1, world.now);
    assert_eq!(world.asked_for(&[other, one, other]), [1, 0, 0]);
}

#[test]
fn hosts_have_next_hops_of_their_own_where_all_bits_matter() {
    let world = World::new();
    world.maps.set_generation(1, 0, world.now);
    let [one, other] = BEHIND;
    assert_eq!(world.asked_for(&[one, other, one, other]), [1, 1, 0, 0]);
}

#[test]
fn hosts_on_the_link_share_nothing() {
    let world = World::new();
    for (generation, bits) in [(1, 1), (2, 0)] {
        world.maps.set_generation(generation, bits, world.now);
        let [one, other] = ON_LINK;
        assert_eq!(world.asked_for(&[one, other, one, other]), [1, 1, 0, 0]);
    }
}

/// Nobody would tell about a longer route, nor about a change.
#[test]
fn without_a_daemon_every_next_hop_is_asked_for_again_each_second() {
    let mut world = World::new();
    world.maps.set_generation(1, 1, world.now);
    let [one, other] = BEHIND;
    let beat = world.now;
    world.now = beat + SECOND * (SILENCE - 1);
    assert_eq!(world.asked_for(&[one, other]), [1, 0]);
    for silence in [SILENCE + 1, SILENCE + 2, 1_000] {
        world.now = beat + SECOND * silence;
        assert_eq!(world.asked_for(&[one, other, one, other]), [1, 1, 0, 0]);
    }
    world.maps.set_generation(1, 1, world.now);
    // The daemon is back, and what was cached then is good again.
    assert_eq!(world.asked_for(&[one, other]), [0, 0]);
}
