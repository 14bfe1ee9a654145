//! The limits on unsolicited packets (P-09, L-12, R-16).

use std::time::Duration;

use super::harness::*;
use crate::{
    client::{Bubble, DropReason, Identity, Nat, Test},
    shared::{limiter::Rate, statistics::Unreachable, turns::Pace},
    wire::ipv6::Header,
};

/// A peer at one of many ports of one address.
fn peer_at(port: u16, server: &str) -> [u8; 16] {
    teredo(&format!("8.0.0.1:{port}"), server)
}

#[test]
fn l12_direct_bubbles_by_ipv4_address_and_answers_too() {
    let mut world = World::with(|config| config.direct_bubble_rates.address = Rate::new(5, 5));
    for port in 1..=20 {
        let asked = bubble(&peer_at(port, PEER_SERVER), &own(), &[]);
        world.arrives(SERVER, &asked).unwrap();
        world.arrives(SERVER, &asked).unwrap();
    }
    assert_eq!(world.bubbles(Bubble::SentDirect), 5);
}

#[test]
fn l12_indirect_bubbles_by_server() {
    let mut world = World::with(|config| {
        config.server_pace = Pace {
            first: 3,
            most: 3,
            ..Pace::DEFAULT
        };
    });
    let ask = |world: &mut World, server| {
        for port in 1..=10 {
            let asked = bubble(&peer_at(port, server), &own(), &[]);
            world.arrives(SERVER, &asked).unwrap();
        }
    };
    ask(&mut world, PEER_SERVER);
    assert_eq!(world.bubbles(Bubble::SentIndirect), 6);
    assert_eq!(world.bubbles(Bubble::LimitedIndirect), 4);
    ask(&mut world, "9.10.11.13:3544");
    assert_eq!(world.bubbles(Bubble::SentIndirect), 12, "another server");
}

/// Peers that the host sends to wait for their turn at their server; none is taken for dead before.
#[test]
fn l18_peers_of_one_server_take_turns() {
    let mut world = World::new();
    for last in 1..=60 {
        let peer = teredo(&format!("8.0.{last}.1:1"), PEER_SERVER);
        world.host_sends(&packet(&own(), &peer, 1)).unwrap();
    }
    let asked = |world: &World| world.bubbles(Bubble::SentIndirect);
    assert_eq!(asked(&world), 16);
    assert_eq!(world.bubbles(Bubble::LimitedIndirect), 44);
    world.pass(Duration::from_millis(1950));
    assert!((30..=32).contains(&asked(&world)), "eight a second");
    let mut peers = std::collections::HashSet::new();
    for _ in 0..20 {
        for sent in world.take_sent() {
            if sent.to == endpoint(PEER_SERVER) {
                peers.insert(Header::parse(&sent.payload).unwrap().destination());
            }
        }
        world.pass(Duration::from_millis(500));
    }
    assert_eq!(peers.len(), 60, "in twelve seconds, repetitions included");
}

#[test]
fn l18_tests_wait_for_their_turn() {
    let mut world = World::new();
    for number in 1..=40 {
        let host = address(&format!("2000::{number:x}"));
        world.host_sends(&packet(&own(), &host, 1)).unwrap();
    }
    assert_eq!(world.take_sent().len(), 16);
    assert_eq!(world.tests(Test::Limited), 24);
    world.pass(Duration::from_millis(1900));
    assert!(
        (14..=16).contains(&world.take_sent().len()),
        "eight a second"
    );
    assert_eq!(world.unreachable(Unreachable::Sent), 0);
}

#[test]
fn l06_no_indirect_bubble_to_a_forbidden_server() {
    for server in ["10.0.0.1:3544", "127.0.0.1:3544", "192.168.1.2:3544"] {
        let mut world = World::new();
        let asked = bubble(&teredo(PEER, server), &own(), &[]);
        world.arrives(SERVER, &asked).unwrap();
        let sent: Vec<_> = world
            .take_sent()
            .iter()
            .map(|datagram| datagram.to)
            .collect();
        assert_eq!(sent, [endpoint(PEER)], "{server}");
    }
}

#[test]
fn l02_no_bubble_to_a_server_at_the_own_mapping() {
    const AT: &str = "9.0.0.1:3544";
    let mut world = World::new();
    let own = teredo(AT, SERVER);
    world.set_identity(Some(Identity {
        address: own.into(),
        mapped: endpoint(AT),
        ..World::identity(Nat::Restricted)
    }));
    world.take_sent();
    let peer = teredo(PEER, AT);
    world.arrives(SERVER, &bubble(&peer, &own, &[])).unwrap();
    let sent = world.take_sent();
    assert!(sent.iter().all(|datagram| datagram.to == endpoint(PEER)));
    let other = teredo("8.0.0.2:1", AT);
    let refused = world.host_sends(&packet(&own, &other, 0));
    assert_eq!(refused, Err(DropReason::HostDestination));
    assert_eq!(world.take_sent(), []);
}

#[test]
fn p09_a_relay_that_packets_come_from_has_answered() {
    let asked = with_origin(RELAY, &bubble(&address("fe80::1"), &own(), &[]));
    let unanswered = || {
        let mut world = World::new();
        for _ in 0..4 {
            world.arrives(SERVER, &asked).unwrap();
            world.pass_seconds(3);
        }
        assert_eq!(world.take_sent().len(), 4);
        world
    };
    let mut world = unanswered();
    let data = packet(&address(HOST), &own(), 1);
    assert_eq!(world.arrives(RELAY, &data), Ok(None));
    world.take_sent();
    world.arrives(SERVER, &asked).unwrap();
    assert!(
        world
            .take_sent()
            .iter()
            .any(|datagram| datagram.to == endpoint(RELAY))
    );
    // A packet that is dropped is no answer.
    let mut world = unanswered();
    for number in 0..130 {
        let other = teredo(&format!("8.0.2.{number}:1"), PEER_SERVER);
        world.host_sends(&packet(&own(), &other, 1)).unwrap();
    }
    world.take_sent();
    assert_eq!(world.arrives(RELAY, &data), Err(DropReason::TooManyPeers));
    world.arrives(SERVER, &asked).unwrap();
    assert!(
        world
            .take_sent()
            .iter()
            .all(|datagram| datagram.to != endpoint(RELAY))
    );
}

#[test]
fn p10_repetitions_are_a_little_later_than_two_seconds() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.pass_seconds(10);
    let sent = world.take_sent();
    let to_peer: Vec<_> = sent
        .iter()
        .filter(|datagram| datagram.to == endpoint(PEER))
        .map(|datagram| datagram.at)
        .collect();
    let gaps: Vec<_> = to_peer
        .windows(2)
        .map(|two| two[1].saturating_since(two[0]))
        .collect();
    assert_eq!(gaps.len(), 3);
    let allowed = Duration::from_millis(2000)..=Duration::from_millis(2250);
    assert!(gaps.iter().all(|gap| allowed.contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap > Duration::from_secs(2)));
}

#[test]
fn p11_the_entry_goes_when_its_bubbles_are_forgotten() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.pass_seconds(290);
    assert!(world.peer(&peer()).is_some());
    world.pass_seconds(30);
    assert!(world.peer(&peer()).is_none());
}

#[test]
fn p06_a_silent_peer_that_is_being_asked_stays_in_place_of_an_untrusted_one() {
    let mut world = World::with(|config| config.max_peers = 16);
    let peer = world.trust_peer();
    world.pass_seconds(25);
    world.host_sends(&packet(&own(), &peer, 1)).unwrap();
    world.pass_seconds(4);
    let strangers = [1, 2].map(|port| peer_at(port, PEER_SERVER));
    for stranger in strangers {
        world.host_sends(&packet(&own(), &stranger, 1)).unwrap();
    }
    world.pass_seconds(2);
    let known = |world: &World, address| world.peer(&address).is_some();
    assert!(!world.trusts(&peer) && known(&world, peer));
    assert!(!known(&world, strangers[0]) && known(&world, strangers[1]));
}

#[test]
fn p12_a_peer_that_left_a_bubble_unanswered_is_not_asked_again() {
    for (has_bubble, sent) in [(false, 2), (true, 1)] {
        let mut world = World::new();
        let peer = world.trust_peer();
        world.pass_seconds(20);
        if has_bubble {
            let asked = bubble(&peer, &own(), &[]);
            world.arrives(SERVER, &asked).unwrap();
        }
        world.pass_seconds(6);
        world.take_sent();
        world.host_sends(&packet(&own(), &peer, 1)).unwrap();
        assert_eq!(world.take_sent().len(), sent, "{has_bubble}");
    }
}
