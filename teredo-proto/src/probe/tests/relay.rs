//! The relay that a native host's packets come through is told.

use std::time::Duration;

use super::world::{By, HOST, Nat, RELAY, World, endpoint, server};
use crate::probe::{RelayProbe, Way};

fn host() -> [u8; 16] {
    let host: std::net::Ipv6Addr = HOST.parse().unwrap();
    host.octets()
}

fn measure(world: &mut World) -> Way {
    let mut probe = RelayProbe::new(server(), host(), [5; 32], world.now);
    world.run(&mut probe);
    probe.way()
}

#[test]
fn the_relay_of_a_host_is_told() {
    for filtering in [By::Nothing, By::Address, By::Endpoint] {
        let mut world = World::new(Nat::new(By::Nothing, filtering));
        world.add_relay();
        let way = measure(&mut world);
        let Way::Answers {
            relay,
            first,
            introduced,
        } = way
        else {
            panic!("{way:?}");
        };
        assert_eq!(relay, endpoint(RELAY, 3545));
        assert!(introduced);
        // To the server; by the server from the relay; to the relay and back.
        assert_eq!(first, 5 * Duration::from_millis(20));
    }
}

#[test]
fn a_lost_test_is_repeated() {
    let mut world = World::new(Nat::new(By::Nothing, By::Endpoint));
    world.add_relay();
    // The first is the solicitation.
    world.is_lost = |number, _| number == 1;
    assert!(matches!(measure(&mut world), Way::Answers { .. }));
}

#[test]
fn a_host_without_a_relay_is_told_from_a_dead_server() {
    let mut world = World::new(Nat::new(By::Nothing, By::Endpoint));
    assert_eq!(measure(&mut world), Way::Silent);
    world.is_up = |_| false;
    assert_eq!(measure(&mut world), Way::NoServer);
}

#[test]
fn nothing_goes_anywhere_but_to_the_server_and_the_relay() {
    let mut world = World::new(Nat::new(By::Nothing, By::Endpoint));
    world.add_relay();
    measure(&mut world);
    let mut sent = world.sent.iter();
    assert!(sent.all(|one| [server().primary(), endpoint(RELAY, 3545)].contains(&one.to)));
}
