//! Secure qualification and the tunnel service, with a real server.

use super::{
    harness::{PRIMARY, ROUND_TRIP, SECONDARY, World, credentials, seconds},
    nat::Kind,
};
use crate::{
    client::{Config, DropReason, Event, Nat, Offline, Refresh},
    server,
};

fn registered(octet: u8, retired: &[u8]) -> server::RegisteredClient {
    server::RegisteredClient {
        id: b"alice".to_vec(),
        key: credentials(octet).key,
        retired: retired
            .iter()
            .map(|&octet| credentials(octet).key)
            .collect(),
        prefix: None,
    }
}

fn secure(config: &mut Config) {
    config.credentials = Some(credentials(1));
    config.refresh = Refresh::Fixed(seconds(30));
}

#[test]
fn a01_a06_secure_qualification() {
    let mut world = World::with_server(Kind::Restricted, secure, |server| {
        server.require_authentication = true;
        server.clients.push(registered(1, &[]));
    });
    let identity = world.qualified();
    world.run(seconds(100));
    assert_eq!(world.client.identity(), Some(&identity));
    assert_eq!(world.all_events(), [Event::Qualified(identity)]);
}

#[test]
fn a01_a07_not_with_a_server_that_does_not_know_the_client() {
    let mut world = World::with_server(Kind::Restricted, secure, |_| ());
    world.offline(Offline::NoAnswer);
    assert_eq!(world.dropped(DropReason::AdvertisementAuthentication), 3);
}

#[test]
fn a08_the_operator_is_told_of_a_key_to_renew_once() {
    let mut world = World::with_server(Kind::Restricted, secure, |server| {
        server.clients.push(registered(2, &[1]));
    });
    let identity = world.qualified();
    world.run(seconds(200));
    // It stays qualified.
    assert_eq!(world.client.identity(), Some(&identity));
    assert_eq!(
        world.all_events(),
        [Event::RenewKey, Event::Qualified(identity)]
    );
}

fn tunnel(kind: Kind) -> World {
    World::with_server(
        kind,
        |config| {
            config.credentials = Some(credentials(1));
            config.allow_tunnel = true;
        },
        |server| {
            let mut client = registered(1, &[]);
            client.prefix = Some("2a00:1:2:3::/64".parse().unwrap());
            server.clients.push(client);
        },
    )
}

#[test]
fn t11_a_client_of_the_tunnel_service_after_one_round_trip() {
    for kind in [Kind::Restricted, Kind::Symmetric, Kind::Absent] {
        let mut world = tunnel(kind);
        let start = world.now;
        let identity = world.qualified();
        assert_eq!(world.now, start + ROUND_TRIP);
        assert!(identity.tunnel);
        assert_eq!(identity.address.segments()[..4], [0x2a00, 1, 2, 3]);
        assert_ne!(identity.address.segments()[4..], [0; 4]);
        assert_eq!(identity.nat, Nat::Restricted);
        // No symmetric test and no secondary port; maintenance as ever.
        world.run(seconds(300));
        assert!(world.asked(SECONDARY).is_empty());
        assert_eq!(world.open_ports.len(), 1);
        assert!(world.asked(PRIMARY).len() >= 10);
        assert_eq!(world.all_events(), [Event::Qualified(identity)]);
    }
}

#[test]
fn t11_the_address_outlives_the_mapping() {
    let mut world = tunnel(Kind::Restricted);
    let first = world.qualified();
    world.nat.reboot();
    world.run(seconds(31));
    let second = *world.client.identity().unwrap();
    assert_eq!(second.address, first.address);
    assert_ne!(second.mapped, first.mapped);
    assert_eq!(world.all_events(), [Event::Qualified(first)]);
}

#[test]
fn t11_not_unless_it_is_allowed() {
    let mut world = World::with_server(Kind::Restricted, secure, |server| {
        let mut client = registered(1, &[]);
        client.prefix = Some("2a00:1:2:3::/64".parse().unwrap());
        server.clients.push(client);
    });
    world.offline(Offline::NoAnswer);
    assert_eq!(world.dropped(DropReason::AdvertisementPrefix), 3);
}
