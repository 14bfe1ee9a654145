//! Qualification behind every kind of NAT: its result and its duration.

use std::time::Duration;

use teredo_common::address::embedded_mapping;
use teredo_proto::client::{Client, Event, Nat, Offline, State};
use teredo_simulation::{
    ROUND_TRIP, Realm, World, for_seeds,
    matrix::{Means, client_behind, qualify},
    nat::Kind,
};

/// The table of docs/protocol/traversal.md, without cone probing (C-10, C-14, C-15, X-10).
#[test]
fn every_nat_is_recognised() {
    for_seeds(5, |seed| {
        for kind in Kind::ALL {
            let mut world = World::new(seed);
            let server = world.add_server();
            let client = client_behind(&mut world, server, kind, Means::All);
            let start = world.now;
            qualify(&mut world, &[client]);
            let identity = world.client(client).client.identity().copied().unwrap();
            let nat = if kind.is_symmetric() {
                Nat::Symmetric
            } else {
                Nat::Restricted
            };
            assert_eq!(identity.nat, nat, "{kind:?}");
            assert_eq!(
                world.now.saturating_since(start),
                2 * ROUND_TRIP,
                "one round trip to each address of the server"
            );
            assert_eq!(world.address(client), Some(identity.address));
            let mapped = embedded_mapping(&identity.address.octets());
            assert_eq!(mapped, identity.mapped);
            if let Some(gateway) = world.gateway(client).filter(|_| kind != Kind::Firewall) {
                let addresses = world.nat(gateway).addresses();
                assert!(addresses.contains(&mapped.ip()), "{kind:?}");
            } else {
                assert_eq!(mapped, world.client(client).endpoint(), "{kind:?}");
            }
            if kind == Kind::PortPreservingSymmetric {
                assert!(identity.port_preserving, "X-31");
            }
        }
    });
}

/// RFC 4380 alone does not qualify behind a symmetric NAT.
#[test]
fn symmetric_nats_need_their_extension() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_symmetric()) {
        let mut world = World::new(1);
        let server = world.add_server();
        let client = client_behind(&mut world, server, kind, Means::Basic);
        qualify(&mut world, &[client]);
        let client = world.client(client);
        assert_eq!(client.client.state(), State::Offline(Offline::Symmetric));
        assert_eq!(client.address, None);
    }
}

/// Without any answer the client goes off-line after three solicitations, once, and comes back when
/// UDP passes again.
#[test]
fn c44_udp_blocked() {
    let mut world = World::new(1);
    let server = world.add_server();
    world.set_up(server, false);
    let client = client_behind(&mut world, server, Kind::PortRestricted, Means::All);
    world.run(Duration::from_secs(600));
    let told = |world: &World| {
        let events = world.client(client).events.iter();
        events
            .filter(|(_, event)| matches!(event, Event::Offline(_)))
            .count()
    };
    assert_eq!(told(&world), 1);
    world.set_up(server, true);
    let back = world.run_until(Duration::from_secs(900), |world| {
        world.client(client).is_qualified()
    });
    assert!(back, "within the longest wait");
    world.with_client(client, Client::stop);
    assert_eq!(world.address(client), None);
}

/// The probe for a cone NAT makes the secondary address send first, and a Linux router without an
/// input filter keeps that in mind: the port of the mapping towards that address moves. This is the
/// price of `client.cone-probe`, which is off by default, as docs/configuration.md warns.
#[test]
fn the_probe_for_a_cone_nat_leaves_an_entry_in_linux_routers() {
    for (kind, cone_probe, nat) in [
        (Kind::LinuxFiltered, false, Nat::Restricted),
        (Kind::LinuxFiltered, true, Nat::Restricted),
        (Kind::LinuxUnfiltered, false, Nat::Restricted),
        (Kind::LinuxUnfiltered, true, Nat::Symmetric),
    ] {
        let mut world = World::new(1);
        let server = world.add_server();
        let realm = world.add_nat(Realm::INTERNET, kind);
        let client = world.add_client_with(realm, server, |config| {
            config.cone_probe = cone_probe;
        });
        world.start(client);
        qualify(&mut world, &[client]);
        let identity = world.client(client).client.identity();
        assert_eq!(identity.map(|own| own.nat), Some(nat), "{kind:?}");
    }
}
