//! The traffic of each peer.

use std::time::Duration;

use teredo_common::traffic::{Count, Traffic};

use super::harness::*;

fn traffic(world: &World) -> Traffic {
    world.relay.peers().next().expect("a peer").traffic
}

fn count(packets: u64, octets: u64) -> Count {
    Count { packets, octets }
}

#[test]
fn packets_are_counted_in_both_directions_and_bubbles_are_not() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let before = traffic(&world);
    let packet = packet(&address(HOST), &client, 1);
    let octets = packet.len() as u64;
    for _ in 0..3 {
        assert!(world.native_sends(&packet));
    }
    let answer = ipv6(17, 64, &client, &address(HOST), &[0; 100]);
    for _ in 0..2 {
        assert!(world.client_sends(CLIENT, &answer).is_some());
    }
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    let since = traffic(&world).since(before);
    assert_eq!(since.encap, count(3, 3 * octets));
    assert_eq!(since.decap, count(2, 2 * 140));
    let statistics = world.statistics();
    assert_eq!(
        traffic(&world).encap.packets,
        statistics.encapsulated.packets
    );
    assert_eq!(
        traffic(&world).decap.packets,
        statistics.decapsulated.packets
    );
}

#[test]
fn packets_that_waited_are_counted_when_they_are_sent() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
    assert!(traffic(&world).is_none());
    world.trust(CLIENT);
    assert_eq!(
        traffic(&world).encap.packets,
        world.statistics().encapsulated.packets
    );
    assert!(traffic(&world).encap.packets > 0);
}

#[test]
fn the_fast_path_adds_to_the_same_account_and_a_restart_keeps_it() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let before = traffic(&world);
    let fast = Traffic {
        encap: count(1_000_000, 1 << 40),
        decap: count(7, 700),
    };
    assert!(world.relay.record_traffic(&client, fast));
    assert!(!world.relay.record_traffic(&teredo("9.0.0.9:1"), fast));
    world.restart();
    assert_eq!(traffic(&world).since(before), fast);
}

/// The sum of all reports.
fn report(world: &mut World) -> Traffic {
    let mut sum = Traffic::default();
    let slots = world.relay.slots();
    world.relay.report(0..slots, |peer| sum += peer.traffic);
    for peer in world.relay.take_removed() {
        assert_eq!(peer.mapped, endpoint(CLIENT));
        sum += peer.traffic;
    }
    sum
}

#[test]
fn every_packet_is_reported_once_also_after_a_restart_and_of_a_peer_that_goes() {
    let mut world = World::new();
    world.relay.begin_reports();
    let client = world.trust(CLIENT);
    let packet = packet(&address(HOST), &client, 1);
    let mut sum = report(&mut world);
    assert!(world.native_sends(&packet));
    let state_with_one_unreported = traffic(&world).since(sum);
    assert_eq!(state_with_one_unreported.encap.packets, 1);
    world.restart();
    world.relay.begin_reports();
    sum += report(&mut world);
    assert_eq!(sum, traffic(&world));
    assert!(report(&mut world).is_none());
    assert!(world.native_sends(&packet));
    let all = traffic(&world);
    for _ in 0..200 {
        world.pass(Duration::from_secs(10));
        sum += report(&mut world);
    }
    assert_eq!(world.relay.peers().count(), 0);
    assert_eq!(sum, all);
}

#[test]
fn reports_that_begin_later_do_not_tell_the_past() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    let before = traffic(&world);
    assert!(!before.is_none());
    world.restart();
    world.relay.begin_reports();
    assert!(report(&mut world).is_none());
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    assert_eq!(report(&mut world), traffic(&world).since(before));
}
