//! Clients on the same link (RFC 4380 section 5.2.8).

use std::time::Duration;

use super::harness::*;
use crate::{
    client::{Attached, Bubble, DropReason, Identity, Nat, exchange::Forward},
    wire::{bubble as bubbles, encapsulation},
};

/// A client behind the same NAT, and its endpoint on the link.
const NEIGHBOR: &str = "9.0.0.1:4097";
const NEIGHBOR_INSIDE: &str = "192.168.1.3:40001";

fn neighbor() -> [u8; 16] {
    teredo(NEIGHBOR, SERVER)
}

fn discovery_of(source: &[u8; 16]) -> Vec<u8> {
    bubbles::build_discovery(source).into()
}

#[test]
fn c60_discovery_bubbles_at_qualification_and_every_few_minutes() {
    let mut world = World::new();
    world.shared.network.attached.push(Attached {
        address: "8.8.8.8".parse().unwrap(),
        prefix_length: 24,
    });
    world.set_identity(None);
    assert_eq!(world.exchange.poll_timeout(), None);
    world.set_identity(Some(World::identity(Nat::Restricted)));
    let expected = (INSIDE.parse().unwrap(), discovery_of(&own()));
    assert_eq!(world.discovery, [expected], "the private network alone");
    for _ in 0..50 {
        world.discovery.clear();
        world.pass(Duration::from_millis(199_999));
        let early = world.discovery.len();
        world.pass(Duration::from_millis(100_001));
        assert!(early == 0 || world.discovery.len() <= 2);
        assert!(!world.discovery.is_empty());
    }
    let mut silent = World::with(|config| config.local_discovery = false);
    silent.set_identity(None);
    silent.set_identity(Some(World::identity(Nat::Restricted)));
    silent.pass_seconds(1000);
    assert_eq!(silent.discovery, []);
    assert_eq!(
        silent.arrives_on_link(NEIGHBOR_INSIDE, &discovery_of(&neighbor())),
        Err(DropReason::Discovery)
    );
}

#[test]
fn c62_a_discovery_bubble_is_answered_and_proves_nothing() {
    let mut world = World::new();
    world.pass_seconds(3);
    let asked = discovery_of(&neighbor());
    assert_eq!(world.arrives_on_link(NEIGHBOR_INSIDE, &asked), Ok(()));
    assert_eq!(
        world.take_payloads(),
        [(endpoint(NEIGHBOR_INSIDE), bubble(&own(), &neighbor(), &[]))]
    );
    assert_eq!(
        world.discovery.len(),
        1,
        "the newcomer gets to know this client"
    );
    assert!(!world.trusts(&neighbor()));
    // The same again: nothing new, and too soon.
    world.arrives_on_link(NEIGHBOR_INSIDE, &asked).unwrap();
    assert_eq!(world.take_sent(), []);
    assert_eq!(world.discovery.len(), 1);
}

#[test]
fn c31_and_c61_spoofed_discovery_bubbles() {
    let mut world = World::new();
    let good = discovery_of(&neighbor());
    for from in [
        "192.168.2.3:40001",
        "8.0.0.1:1024",
        "192.168.1.255:40001",
        "192.168.1.0:40001",
        "192.168.1.2:40001",
        "127.0.0.1:40001",
        "192.168.1.3:0",
    ] {
        assert_eq!(
            world.arrives_on_link(from, &good),
            Err(DropReason::DiscoverySource),
            "{from}"
        );
    }
    for wrong in [
        discovery_of(&own()),
        discovery_of(&address(HOST)),
        discovery_of(&address("fe80::1")),
        discovery_of(&teredo(PEER, SERVER)),
        bubble(&neighbor(), &own(), &[]),
        packet(&neighbor(), &bubbles::ALL_NODES, 1),
        with_origin(NEIGHBOR, &good),
    ] {
        assert_eq!(
            world.arrives_on_link(NEIGHBOR_INSIDE, &wrong),
            Err(DropReason::Discovery)
        );
    }
    assert_eq!(world.take_sent(), []);
    assert_eq!(world.exchange.peers().count(), 0);
}

#[test]
fn c51_case_3_a_local_peer_is_asked_on_the_link_first() {
    let mut world = World::new();
    world
        .arrives_on_link(NEIGHBOR_INSIDE, &discovery_of(&neighbor()))
        .unwrap();
    world.pass_seconds(10);
    world.take_sent();
    world.discovery.clear();
    let data = packet(&own(), &neighbor(), 1);
    assert_eq!(world.host_sends(&data), Ok(Forward::Queued));
    assert_eq!(
        world.take_payloads(),
        [(endpoint(NEIGHBOR_INSIDE), bubble(&own(), &neighbor(), &[]))],
        "no other bubbles"
    );
    assert_eq!(world.discovery.len(), 1);
    let answer = bubble(&neighbor(), &own(), &[]);
    assert_eq!(world.arrives(NEIGHBOR_INSIDE, &answer), Ok(None));
    assert_eq!(
        world.take_payloads(),
        [(endpoint(NEIGHBOR_INSIDE), data.clone())]
    );
    assert!(world.peer(&neighbor()).unwrap().local);
    assert_eq!(
        world.host_sends(&data),
        Ok(Forward::Send(PORT, endpoint(NEIGHBOR_INSIDE), data.len()))
    );
}

#[test]
fn c63_without_an_answer_on_the_link_the_usual_way_is_tried() {
    let mut world = World::new();
    world
        .arrives_on_link(NEIGHBOR_INSIDE, &discovery_of(&neighbor()))
        .unwrap();
    world.pass_seconds(10);
    world.take_sent();
    world.host_sends(&packet(&own(), &neighbor(), 1)).unwrap();
    world.pass_seconds(3);
    let destinations: Vec<_> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.to)
        .collect();
    assert!(destinations.contains(&endpoint(NEIGHBOR)));
    assert!(destinations.contains(&endpoint(SERVER)));
    world
        .arrives(NEIGHBOR, &bubble(&neighbor(), &own(), &[]))
        .unwrap();
    assert_eq!(world.peer(&neighbor()).unwrap().mapped, endpoint(NEIGHBOR));
}

#[test]
fn c63_the_link_is_preferred_while_it_works() {
    let mut world = World::new();
    world
        .arrives_on_link(NEIGHBOR_INSIDE, &discovery_of(&neighbor()))
        .unwrap();
    let data = packet(&neighbor(), &own(), 1);
    assert!(world.arrives(NEIGHBOR_INSIDE, &data).unwrap().is_some());
    for _ in 0..29 {
        world.pass_seconds(1);
        assert!(world.arrives(NEIGHBOR, &data).unwrap().is_some());
        assert!(world.peer(&neighbor()).unwrap().local);
    }
    world.pass_seconds(2);
    assert!(world.arrives(NEIGHBOR, &data).unwrap().is_some());
    assert_eq!(world.peer(&neighbor()).unwrap().mapped, endpoint(NEIGHBOR));
    assert!(world.arrives(NEIGHBOR_INSIDE, &data).unwrap().is_some());
    assert!(world.peer(&neighbor()).unwrap().local);
}

#[test]
fn c40_rule_5_only_from_where_the_link_knows_the_peer_and_for_ten_minutes() {
    let mut world = World::new();
    let data = packet(&neighbor(), &own(), 1);
    assert_eq!(
        world.arrives(NEIGHBOR_INSIDE, &data),
        Err(DropReason::Mapping)
    );
    world
        .arrives_on_link(NEIGHBOR_INSIDE, &discovery_of(&neighbor()))
        .unwrap();
    assert_eq!(
        world.arrives("192.168.1.4:40001", &data),
        Err(DropReason::Mapping)
    );
    world.pass_seconds(599);
    assert!(world.arrives(NEIGHBOR_INSIDE, &data).unwrap().is_some());
    world.pass_seconds(60);
    assert_eq!(
        world.arrives(NEIGHBOR_INSIDE, &data),
        Err(DropReason::Mapping)
    );
    assert!(!world.trusts(&neighbor()));
}

#[test]
fn dec5_a_spoofed_discovery_bubble_does_not_move_a_trusted_peer() {
    let mut world = World::new();
    world
        .arrives(NEIGHBOR, &bubble(&neighbor(), &own(), &[]))
        .unwrap();
    world.pass_seconds(20);
    world
        .arrives_on_link("192.168.1.66:666", &discovery_of(&neighbor()))
        .unwrap();
    let known = world.peer(&neighbor()).unwrap();
    assert_eq!(known.mapped, endpoint(NEIGHBOR));
    world.pass_seconds(11);
    assert!(!world.trusts(&neighbor()), "nor does it keep it fresh");
}

#[test]
fn c61_a_flood_of_discovery_bubbles_is_bounded() {
    let mut world = World::with(|config| config.max_peers = 64);
    for port in 1..2000 {
        let somebody = teredo(&format!("9.0.0.1:{}", 5000 + port), SERVER);
        let from = format!("192.168.1.{}:{port}", 3 + port % 200);
        let _ = world.arrives_on_link(&from, &discovery_of(&somebody));
    }
    assert!(world.exchange.peers().count() <= 64);
    assert!(
        world.bubbles(Bubble::SentDiscovery) <= 2,
        "not one for each"
    );
}

#[test]
fn c60_another_network_forgets_local_peers() {
    let mut world = World::new();
    world
        .arrives_on_link(NEIGHBOR_INSIDE, &discovery_of(&neighbor()))
        .unwrap();
    world
        .arrives(NEIGHBOR_INSIDE, &packet(&neighbor(), &own(), 1))
        .unwrap();
    assert!(world.trusts(&neighbor()));
    world.shared.network.attached.clear();
    world.exchange.network_changed(&mut world.shared);
    assert!(!world.trusts(&neighbor()));
}

#[test]
fn no_discovery_in_the_tunnel() {
    let mut world = World::new();
    world.set_identity(Some(Identity {
        address: "2001:db8::1".parse().unwrap(),
        tunnel: true,
        ..World::identity(Nat::Restricted)
    }));
    assert_eq!(world.discovery, []);
    assert_eq!(world.exchange.poll_timeout(), None);
}

#[test]
fn c61_nobody_is_his_own_neighbor() {
    let mut world = World::new();
    let cases = [(NEIGHBOR_INSIDE, own()), ("192.168.1.2:40001", neighbor())];
    for (from, source) in cases {
        assert!(world.arrives_on_link(from, &discovery_of(&source)).is_err());
    }
    // Nor a neighbor without a Teredo address.
    let mut native = neighbor();
    native[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let bubble = discovery_of(&native);
    assert_eq!(
        world.arrives_on_link(NEIGHBOR_INSIDE, &bubble),
        Err(DropReason::Discovery)
    );
    assert_eq!(world.exchange.peers().count(), 0);
}

#[test]
fn p02_and_c62_a_discovery_bubble_is_a_sign_of_life() {
    let mut world = World::new();
    let asked = discovery_of(&neighbor());
    world.arrives_on_link(NEIGHBOR_INSIDE, &asked).unwrap();
    let peer = world.peer(&neighbor()).unwrap();
    assert_eq!(peer.last_received, world.now);
}

#[test]
fn c62_and_p09_one_answer_wherever_the_neighbor_seems_to_be() {
    let mut world = World::new();
    for port in 40_001..40_020 {
        let from = format!("192.168.1.3:{port}");
        let asked = discovery_of(&neighbor());
        world.arrives_on_link(&from, &asked).unwrap();
    }
    assert_eq!(world.take_sent().len(), 1);
}

#[test]
fn c40_and_c62_a_link_that_is_gone_proves_nothing() {
    let mut world = World::new();
    let asked = discovery_of(&neighbor());
    world.arrives_on_link(NEIGHBOR_INSIDE, &asked).unwrap();
    world.pass_seconds(3);
    world.take_sent();
    world.shared.network.attached.clear();
    let answer = bubble(&neighbor(), &own(), &[]);
    assert_eq!(
        world.arrives(NEIGHBOR_INSIDE, &answer),
        Err(DropReason::Mapping)
    );
    let _ = world.host_sends(&packet(&own(), &neighbor(), 1));
    let to: Vec<_> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.to)
        .collect();
    assert!(!to.contains(&endpoint(NEIGHBOR_INSIDE)), "{to:?}");
}

#[test]
fn c61_a_neighbor_is_one_of_the_interface_that_it_came_by() {
    let mut world = World::new();
    let payload = discovery_of(&neighbor());
    let parts = encapsulation::parse(&payload).unwrap();
    let other = "192.168.7.2".parse().unwrap();
    let from = endpoint(NEIGHBOR_INSIDE);
    let result = world
        .exchange
        .handle_discovery(&mut world.shared, world.now, other, from, &parts);
    assert_eq!(result, Err(DropReason::DiscoverySource));
}

#[test]
fn x23_a_neighbor_is_reached_on_the_link() {
    let mut world = World::new();
    world.set_identity(Some(Identity {
        upnp: true,
        ..World::identity(Nat::Symmetric)
    }));
    world.pass_seconds(3);
    let asked = discovery_of(&neighbor());
    world.arrives_on_link(NEIGHBOR_INSIDE, &asked).unwrap();
    let answer = bubble(&neighbor(), &own(), &[]);
    world.arrives(NEIGHBOR_INSIDE, &answer).unwrap();
    let data = packet(&own(), &neighbor(), 1);
    let way = Forward::Send(PORT, endpoint(NEIGHBOR_INSIDE), data.len());
    assert_eq!(world.host_sends(&data), Ok(way));
}
