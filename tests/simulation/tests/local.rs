//! Clients that are near to each other: on one link, behind one NAT, or behind nested ones.

use std::time::Duration;
use teredo_simulation::{
    NodeId, Realm, World, for_seeds,
    matrix::{Means, Outcome, attempt, qualify},
    nat::{Behaviour, Dependence, Kind, Pooling},
};

/// The means of a pair of neighbours to find each other.
#[derive(Clone, Copy, Debug)]
struct Near {
    hairpinning: bool,
    discovery: bool,
    /// Alternate addresses.
    alternates: bool,
}

/// Two clients in these networks, qualified.
fn neighbors(world: &mut World, realms: [Realm; 2], near: Near) -> [NodeId; 2] {
    let server = world.add_server();
    let clients = realms.map(|realm| {
        let client = world.add_client_with(realm, server, |config| {
            config.local_discovery = near.discovery;
            config.extensions = Means::All.extensions();
            config.extensions.hairpinning = near.alternates;
        });
        world.start(client);
        client
    });
    qualify(world, &clients);
    clients
}

fn all() -> impl Iterator<Item = Near> {
    (0..8).map(|bits| Near {
        hairpinning: bits & 1 != 0,
        discovery: bits & 2 != 0,
        alternates: bits & 4 != 0,
    })
}

/// Behind one NAT and on one link, each of local discovery, alternate addresses and a hairpinning
/// NAT is enough; without all of them the clients do not connect.
#[test]
fn c62_x50_one_link() {
    for_seeds(3, |seed| {
        for near in all() {
            let mut world = World::new(seed);
            let behaviour = Behaviour {
                hairpinning: near.hairpinning,
                ..Kind::PortRestricted.behaviour(seed)
            };
            let (realm, _) = world.add_nat_with(Realm::INTERNET, behaviour, 1);
            let [a, b] = neighbors(&mut world, [realm, realm], near);
            world.run(Duration::from_secs(1));
            let outcome = attempt(&mut world, a, b);
            if near.hairpinning || near.discovery || near.alternates {
                assert!(outcome.is_answered(), "{near:?}: {outcome:?}");
                let back = attempt(&mut world, b, a);
                assert!(back.is_answered(), "{near:?} and back: {back:?}");
            } else {
                assert!(matches!(outcome, Outcome::Unreachable(_)), "{outcome:?}");
            }
        }
    });
}

/// Neighbours that found each other talk on the link when the internet is gone (C-63).
#[test]
fn c63_the_local_path_is_preferred() {
    let mut world = World::new(1);
    let realm = world.add_nat(Realm::INTERNET, Kind::PortRestricted);
    let near = Near {
        hairpinning: false,
        discovery: true,
        alternates: false,
    };
    let [a, b] = neighbors(&mut world, [realm, realm], near);
    world.run(Duration::from_secs(1));
    assert!(attempt(&mut world, a, b).is_answered());
    world.weather.loss = 1.0;
    for _ in 0..10 {
        assert!(attempt(&mut world, a, b).is_answered());
        assert!(attempt(&mut world, b, a).is_answered());
        world.run(Duration::from_secs(1));
    }
}

/// Clients behind one symmetric NAT without hairpinning.
#[test]
fn x50_one_symmetric_nat() {
    for kind in [
        Kind::PortSymmetric,
        Kind::PortPreservingSymmetric,
        Kind::SequentialSymmetric,
    ] {
        for (discovery, alternates) in [(true, false), (false, true)] {
            let mut world = World::new(1);
            let realm = world.add_nat(Realm::INTERNET, kind);
            let near = Near {
                hairpinning: false,
                discovery,
                alternates,
            };
            let [a, b] = neighbors(&mut world, [realm, realm], near);
            world.run(Duration::from_secs(1));
            let outcome = attempt(&mut world, a, b);
            assert!(outcome.is_answered(), "{kind:?} {near:?}: {outcome:?}");
        }
    }
}

/// Clients behind different NATs under one outer NAT connect only if that one hairpins
/// (docs/protocol/traversal.md), or if ports of the inner ones are mapped.
#[test]
fn x21_x50_nested_nats() {
    for_seeds(3, |seed| {
        for (hairpinning, upnp) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut world = World::new(seed);
            let outer = Behaviour {
                hairpinning,
                ..Kind::PortRestricted.behaviour(seed)
            };
            let (outer, _) = world.add_nat_with(Realm::INTERNET, outer, 1);
            let server = world.add_server();
            let clients = [0, 1].map(|_| {
                let inner = world.add_nat(outer, Kind::UpnpPortRestricted);
                let client = world.add_client(inner, server);
                if upnp {
                    world.map_port(client);
                }
                world.start(client);
                client
            });
            qualify(&mut world, &clients);
            let identity = world.client(clients[0]).client.identity().copied().unwrap();
            assert_eq!(
                identity.port_mapping.is_some(),
                upnp,
                "X-21: nested, so kept"
            );
            let outcome = attempt(&mut world, clients[0], clients[1]);
            if hairpinning || upnp {
                assert!(outcome.is_answered(), "{hairpinning} {upnp}: {outcome:?}");
            } else {
                assert!(matches!(outcome, Outcome::Unreachable(_)), "{outcome:?}");
            }
        }
    });
}

/// Nested NATs behave towards others as the more restrictive of the two.
#[test]
fn nested_nats_combine() {
    for (inner, outer, works) in [
        (Kind::Cone, Kind::Cone, true),
        (Kind::PortRestricted, Kind::Cone, true),
        (Kind::PortRestricted, Kind::PortRestricted, true),
        (Kind::PortSymmetric, Kind::Cone, false),
        (Kind::Cone, Kind::PortSymmetric, false),
    ] {
        let mut world = World::new(1);
        let server = world.add_server();
        world.add_relay(Realm::INTERNET);
        let host = world.add_host();
        // Ports are random: no guess succeeds.
        let (realm, _) = world.add_nat_with(Realm::INTERNET, outer.behaviour(2), 1);
        let (realm, _) = world.add_nat_with(realm, inner.behaviour(2), 1);
        let client = world.add_client(realm, server);
        let other = world.add_nat(Realm::INTERNET, Kind::PortRestricted);
        let other = world.add_client(other, server);
        world.start(client);
        world.start(other);
        qualify(&mut world, &[client, other]);
        assert!(attempt(&mut world, client, host).is_answered());
        assert!(attempt(&mut world, host, client).is_answered());
        let outcome = attempt(&mut world, client, other);
        assert_eq!(
            outcome.is_answered(),
            works,
            "{inner:?} in {outer:?}: {outcome:?}"
        );
        let outcome = attempt(&mut world, other, client);
        assert_eq!(
            outcome.is_answered(),
            works,
            "to {inner:?} in {outer:?}: {outcome:?}"
        );
    }
}

/// A NAT with several addresses that treats each internal host alike does no harm; one that gives
/// each mapping another address is a symmetric NAT.
#[test]
fn several_external_addresses() {
    for (mapping, pooling) in [
        (Dependence::Independent, Pooling::Paired),
        (Dependence::Independent, Pooling::Arbitrary),
        (Dependence::Address, Pooling::Arbitrary),
        (Dependence::AddressAndPort, Pooling::Arbitrary),
    ] {
        let mut world = World::new(1);
        let server = world.add_server();
        world.add_relay(Realm::INTERNET);
        let host = world.add_host();
        let behaviour = Behaviour {
            mapping,
            pooling,
            ..Kind::PortRestricted.behaviour(2)
        };
        let (realm, _) = world.add_nat_with(Realm::INTERNET, behaviour, 8);
        let client = world.add_client(realm, server);
        let other = world.add_client(Realm::INTERNET, server);
        world.start(client);
        world.start(other);
        qualify(&mut world, &[client, other]);
        for (from, to) in [
            (client, host),
            (host, client),
            (client, other),
            (other, client),
        ] {
            let outcome = attempt(&mut world, from, to);
            assert!(
                outcome.is_answered(),
                "{mapping:?} {pooling:?}: {outcome:?}"
            );
        }
    }
}
