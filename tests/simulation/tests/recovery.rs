//! Recovery from faults, and the time that it takes.

use std::time::Duration;

use teredo_common::address::embedded_mapping;
use teredo_proto::client::{Client, Event, Refresh};
use teredo_simulation::{
    NodeId, Realm, Weather, World, for_seeds,
    matrix::{Means, attempt, client_behind, qualify},
    nat::{Behaviour, Kind},
    packet::{self, Message},
};

/// The refresh interval before anything is measured (C-44).
const REFRESH: Duration = Duration::from_secs(30);
/// Three solicitations, four seconds apart.
const RETRANSMISSIONS: Duration = Duration::from_secs(12);
/// Retransmissions to both addresses of a server, and a second for delays.
const QUALIFICATION: Duration = Duration::from_secs(25);

struct Site {
    world: World,
    server: NodeId,
    relay: NodeId,
    host: NodeId,
    client: NodeId,
}

fn site(seed: u64, kind: Kind) -> Site {
    let mut world = World::new(seed);
    let server = world.add_server();
    let relay = world.add_relay(Realm::INTERNET);
    let host = world.add_host();
    let client = client_behind(&mut world, server, kind, Means::All);
    qualify(&mut world, &[client]);
    assert!(attempt(&mut world, client, host).is_answered());
    Site {
        world,
        server,
        relay,
        host,
        client,
    }
}

impl Site {
    /// The address that the client's NAT gives it now.
    fn is_right(world: &World, client: NodeId, before: Option<std::net::Ipv6Addr>) -> bool {
        let address = world.address(client);
        address.is_some() && address != before
    }

    /// Waits until the client has another address.
    fn readdressed(&mut self, limit: Duration) -> bool {
        let (client, before) = (self.client, self.world.address(self.client));
        self.world
            .run_until(limit, |world| Self::is_right(world, client, before))
    }

    fn works(&mut self) {
        let (client, host) = (self.client, self.host);
        assert!(attempt(&mut self.world, client, host).is_answered());
        assert!(attempt(&mut self.world, host, client).is_answered());
    }
}

/// When the NAT loses its mappings, the client has its new address within one refresh, and no
/// other.
#[test]
fn c45_nat_reboot() {
    for_seeds(10, |seed| {
        for kind in [
            Kind::PortRestricted,
            Kind::AddressRestricted,
            Kind::PortSymmetric,
        ] {
            let mut site = site(seed, kind);
            let gateway = site.world.gateway(site.client).unwrap();
            let behaviour = kind.behaviour(2);
            site.world.nat(gateway).behaviour = behaviour;
            site.world.nat(gateway).reboot();
            assert!(site.readdressed(REFRESH), "{kind:?}");
            site.works();
        }
    });
}

/// The NAT gets another external address.
#[test]
fn c45_another_external_address() {
    for_seeds(10, |seed| {
        let mut site = site(seed, Kind::PortRestricted);
        let gateway = site.world.gateway(site.client).unwrap();
        site.world.renumber(gateway);
        assert!(site.readdressed(REFRESH));
        let address = site.world.address(site.client).unwrap();
        let mapped = embedded_mapping(&address.octets()).ip();
        assert!(site.world.nat(gateway).addresses().contains(&mapped));
        site.works();
    });
}

/// While the server is away, the address stays until maintenance and qualification give up; then it
/// is withdrawn, and it comes back with the server.
#[test]
fn c44_server_outage() {
    for_seeds(5, |seed| {
        let mut site = site(seed, Kind::PortRestricted);
        site.world.set_up(site.server, false);
        let client = site.client;
        site.world.run(Duration::from_secs(15));
        assert!(site.world.address(client).is_some(), "nothing noticed yet");
        let limit = REFRESH + RETRANSMISSIONS + QUALIFICATION;
        let gone = site
            .world
            .run_until(limit, |world| world.address(client).is_none());
        assert!(gone);
        site.world.set_up(site.server, true);
        let back = |world: &World| world.address(client).is_some();
        assert!(site.world.run_until(Duration::from_secs(110), back));
        site.works();
    });
}

/// A server that is gone for good, and another in the list.
#[test]
fn c01_fail_over() {
    for_seeds(5, |seed| {
        let mut world = World::new(seed);
        let [first, second] = [world.add_server(), world.add_server()];
        world.add_relay(Realm::INTERNET);
        let host = world.add_host();
        let servers = [first, second].map(|address| world.server(address));
        let realm = world.add_nat(Realm::INTERNET, Kind::PortRestricted);
        let client = world.add_client_with(realm, first, |config| {
            config.servers = servers.to_vec();
        });
        world.start(client);
        qualify(&mut world, &[client]);
        assert!(attempt(&mut world, client, host).is_answered());
        world.set_up(first, false);
        let limit = REFRESH + RETRANSMISSIONS + 2 * QUALIFICATION;
        let moved = world.run_until(limit, |world| {
            let identity = world.client(client).client.identity();
            identity.is_some_and(|identity| identity.server == servers[1])
        });
        assert!(moved);
        assert!(attempt(&mut world, client, host).is_answered());
        assert!(attempt(&mut world, host, client).is_answered());
    });
}

/// The cable is pulled and plugged in again, once with a notification of the client and once
/// without.
#[test]
fn c46_network_down_and_up() {
    for is_told in [false, true] {
        let mut site = site(1, Kind::PortRestricted);
        let client = site.client;
        site.world.set_connected(client, false);
        if is_told {
            site.world
                .tell_network(client, |network| network.source = None);
            assert_eq!(site.world.address(client), None, "no network, no address");
        }
        site.world.run(Duration::from_secs(300));
        assert_eq!(site.world.address(client), None);
        site.world.set_connected(client, true);
        let start = site.world.now;
        if is_told {
            site.world.start(client);
        }
        let back = |world: &World| world.address(client).is_some();
        assert!(site.world.run_until(Duration::from_secs(900), back));
        if is_told {
            let took = site.world.now.saturating_since(start);
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
        site.works();
    }
}

/// The client moves into another network, behind another NAT.
#[test]
fn c46_another_network() {
    for (old, new) in [
        (Kind::PortRestricted, Kind::PortSymmetric),
        (Kind::PortSymmetric, Kind::Public),
        (Kind::Public, Kind::Cone),
    ] {
        let mut site = site(1, old);
        let (client, realm) = (site.client, site.world.add_nat(Realm::INTERNET, new));
        site.world.relocate(client, realm);
        assert!(site.world.run_until(Duration::from_secs(3), |world| {
            let identity = world.client(client).client.identity();
            identity.is_some_and(|_| world.client(client).is_qualified())
        }));
        site.works();
    }
}

/// The host is suspended until all state of its NAT has expired (P-04, C-46).
#[test]
fn c46_suspended() {
    for_seeds(5, |seed| {
        for hours in [0, 1, 12] {
            let mut site = site(seed, Kind::PortRestricted);
            let gateway = site.world.gateway(site.client).unwrap();
            site.world.nat(gateway).behaviour = Kind::PortRestricted.behaviour(2);
            site.world.nat(gateway).reboot();
            site.world
                .suspend(site.client, Duration::from_secs(60 + 3600 * hours));
            assert!(site.readdressed(Duration::from_secs(3)), "{hours} hours");
            site.works();
        }
    });
}

/// The relay's host was suspended, and its clock stood still: no mapping of before is used, and every
/// peer is found again at once.
#[test]
fn p04_suspended_relay() {
    for_seeds(5, |seed| {
        for seconds in [10, 60, 36_000] {
            let mut site = site(seed, Kind::PortRestricted);
            let (world, relay, client) = (&mut site.world, site.relay, site.client);
            let address = world.address(client).unwrap();
            let is_fast = |world: &World| world.relay(relay).fast.contains(&address);
            assert!(is_fast(world));
            world.suspend(relay, Duration::from_secs(seconds));
            assert!(!is_fast(world), "{seconds} s");
            let mut in_table = 0;
            if let Some(fast_path) = &world.relay(relay).fast_path {
                assert!(fast_path.forwarded > 0, "unused");
                fast_path.for_each_peer(|_, _| in_table += 1);
            }
            assert_eq!(in_table, 0, "{seconds} s");
            let mut peers = world.relay(relay).relay.peers();
            assert!(peers.all(|peer| !peer.trusted));
            drop(peers);
            let (start, request) = (world.now, world.request(site.host, client));
            world.run(Duration::from_secs(3));
            let answered = world.stack(site.host).arrived(Message::Reply(request));
            let took = answered.map(|at| at.saturating_since(start));
            assert!(
                took.is_some_and(|took| took < Duration::from_secs(1)),
                "{took:?}"
            );
            assert!(is_fast(world));
            site.works();
        }
    });
}

/// The client's host was suspended: it sends nothing to the mappings of before.
#[test]
fn p04_suspended_client() {
    for_seeds(5, |seed| {
        let mut site = site(seed, Kind::PortRestricted);
        site.world.suspend(site.client, Duration::from_secs(3600));
        let mut peers = site.world.client(site.client).client.peers();
        assert!(peers.all(|peer| !peer.trusted));
        drop(peers);
        site.world.run(Duration::from_secs(3));
        site.works();
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    None,
    Traffic,
    Event,
}

/// The way to the internet is away for a while, and nothing changes on the client's host. The client
/// is back soon after its end, and at once if there is a hint (C-47).
#[test]
fn c47_outages() {
    for (hint, outages, limit) in [
        (Hint::None, &[57, 120, 300][..], 25),
        (Hint::None, &[3600], 75),
        (Hint::Traffic, &[57, 300, 3600], 9),
        (Hint::Event, &[57, 300, 3600], 5),
    ] {
        for &outage in outages {
            for_seeds(5, |seed| {
                let mut site = site(seed, Kind::PortRestricted);
                let client = site.client;
                let own = site.world.address(client).unwrap();
                let to = site.world.address(site.host).unwrap();
                let mut number = 1_000_000;
                let mut send = |world: &mut World| {
                    number += 1;
                    let packet = packet::numbered(own, to, false, number);
                    world.send_packet(client, packet);
                };
                site.world.set_connected(client, false);
                for _ in 0..outage * 2 {
                    if hint == Hint::Traffic {
                        send(&mut site.world);
                    }
                    site.world.run(Duration::from_millis(500));
                }
                assert_eq!(site.world.address(client), None, "off-line by then");
                site.world.set_connected(client, true);
                if hint == Hint::Event {
                    site.world.run_until(Duration::from_secs(13), |world| {
                        world.client(client).is_settled()
                    });
                }
                let start = site.world.now;
                if hint == Hint::Event {
                    site.world.with_client(client, Client::hasten);
                }
                while site.world.address(client).is_none() {
                    if hint == Hint::Traffic {
                        send(&mut site.world);
                    }
                    site.world.run(Duration::from_millis(100));
                    let took = site.world.now.saturating_since(start);
                    assert!(
                        took < Duration::from_secs(limit),
                        "{hint:?}, {outage} s: {took:?}"
                    );
                }
                site.works();
            });
        }
    }
}

/// The process stood still while its clock went on (P-04).
#[test]
fn p04_clock_jumps() {
    for_seeds(5, |seed| {
        let mut site = site(seed, Kind::PortRestricted);
        let client = site.client;
        for minutes in [1, 10, 600] {
            site.world.set_up(client, false);
            site.world.run(Duration::from_secs(60 * minutes));
            site.world.set_up(client, true);
            assert!(
                site.world
                    .run_until(QUALIFICATION, |world| world.client(client).is_qualified())
            );
            site.world.run(Duration::from_secs(5));
            site.works();
        }
    });
}

/// The measured refresh interval is shorter than the NAT's lifetime, and no shorter than needed;
/// the mapping never expires after that (C-52).
#[test]
fn c52_refresh_follows_the_nat() {
    println!("NAT remembers  refresh interval");
    for_seeds(2, |seed| {
        for lifetime in [35_u64, 45, 61, 90, 130, 300, 3600] {
            let mut world = World::new(seed);
            let server = world.add_server();
            world.add_relay(Realm::INTERNET);
            let behaviour = Behaviour {
                lifetime: Duration::from_secs(lifetime),
                ..Kind::PortRestricted.behaviour(seed)
            };
            let (realm, _) = world.add_nat_with(Realm::INTERNET, behaviour, 1);
            let client = world.add_client(realm, server);
            world.start(client);
            let found = |world: &World| {
                let mut events = world.client(client).events.iter();
                events.find_map(|(_, event)| match event {
                    Event::RefreshFound(interval) => Some(*interval),
                    _ => None,
                })
            };
            let limit = Duration::from_secs(1200);
            assert!(
                world.run_until(limit, |world| found(world).is_some()),
                "{lifetime} s"
            );
            let interval = found(&world).unwrap();
            println!("{lifetime:11} s  {interval:?}");
            assert!(
                interval < Duration::from_secs(lifetime),
                "{lifetime} s: {interval:?}"
            );
            assert!(interval >= REFRESH.min(Duration::from_secs(lifetime / 2)));
            let address = world.address(client);
            for _ in 0..120 {
                world.run(Duration::from_secs(10));
                assert_eq!(world.address(client), address, "{lifetime} s: {interval:?}");
            }
        }
    });
}

/// The NAT's lifetime is too short to be measured, and the operator configures it (C-53).
#[test]
fn c53_a_configured_interval() {
    let mut world = World::new(1);
    let server = world.add_server();
    let behaviour = Behaviour {
        lifetime: Duration::from_secs(12),
        ..Kind::PortRestricted.behaviour(2)
    };
    let (realm, _) = world.add_nat_with(Realm::INTERNET, behaviour, 1);
    let client = world.add_client_with(realm, server, |config| {
        config.refresh = Refresh::Fixed(Duration::from_secs(10));
    });
    world.start(client);
    qualify(&mut world, &[client]);
    let address = world.address(client);
    for _ in 0..200 {
        world.run(Duration::from_secs(3));
        assert_eq!(world.address(client), address);
    }
}

/// Loss, duplication and reordering slow the client down and have no other effect.
#[test]
fn bad_weather_only_slows_down() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed);
        world.weather = Weather {
            jitter: Duration::from_millis(80),
            loss: 0.3,
            duplication: 0.2,
            ..Weather::FAIR
        };
        let server = world.add_server();
        world.add_relay(Realm::INTERNET);
        let host = world.add_host();
        let clients = [
            Kind::PortRestricted,
            Kind::PortRestricted,
            Kind::PortSymmetric,
        ]
        .map(|kind| client_behind(&mut world, server, kind, Means::All));
        for second in 0..600 {
            let [a, b, symmetric] = clients;
            let (from, to) = [(a, b), (b, host), (host, symmetric), (a, host)][second % 4];
            if world.address(from).is_some() && world.address(to).is_some() {
                world.request(from, to);
            }
            world.run(Duration::from_secs(1));
        }
        // Afterwards the client works as well as before, at the latest after the longest wait of a
        // client that found no server: 900 seconds.
        world.weather = Weather::FAIR;
        let settled =
            |world: &World| (clients.iter()).all(|&client| world.client(client).is_qualified());
        assert!(world.run_until(Duration::from_secs(950), settled));
        world.run(Duration::from_secs(301));
        let [a, b, symmetric] = clients;
        for (from, to) in [(a, b), (b, host), (host, symmetric)] {
            let outcome = attempt(&mut world, from, to);
            assert!(outcome.is_answered(), "{outcome:?}");
        }
    });
}

/// A stopped client has no address and sends no packets; it can be started again.
#[test]
fn z01_stop_and_start() {
    let mut site = site(1, Kind::PortRestricted);
    let client = site.client;
    site.world.with_client(client, Client::stop);
    assert_eq!(site.world.address(client), None);
    assert_eq!(site.world.client(client).open_ports().len(), 1);
    site.world.run(Duration::from_secs(1000));
    let number = site.world.request(client, site.host);
    site.world.run(Duration::from_secs(10));
    assert_eq!(site.world.stack(client).count(Message::Reply(number)), 0);
    site.world.with_client(client, Client::start);
    qualify(&mut site.world, &[client]);
    site.works();
}

/// The client has no address while the host has other IPv6, until that is gone (Z-01).
#[test]
fn z01_native_ipv6_appears() {
    let mut site = site(1, Kind::PortRestricted);
    let client = site.client;
    site.world
        .tell_network(client, |network| network.native_ipv6 = true);
    assert_eq!(site.world.address(client), None);
    site.world.run(Duration::from_secs(1000));
    assert_eq!(site.world.address(client), None);
    site.world
        .tell_network(client, |network| network.native_ipv6 = false);
    assert!(site.world.run_until(Duration::from_secs(5), |world| {
        world.address(client).is_some()
    }));
    site.works();
}
