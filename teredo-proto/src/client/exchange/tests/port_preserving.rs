//! Symmetric NATs that preserve ports (RFC 6081 section 5.4).

use super::harness::*;
use crate::{
    client::{Config, DropReason, Identity, Nat, exchange::Forward},
    shared::turns::Pace,
    wire::trailer::Trailer,
};

const NONCE: [u8; 4] = [7; 4];

/// A client behind a NAT that preserves ports.
fn preserving() -> World {
    preserving_with(|_| ())
}

fn preserving_with(change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::with(change);
    world.set_identity(Some(Identity {
        port_preserving: true,
        ..World::identity(Nat::Symmetric)
    }));
    world
}

fn indirect(random_port: Option<u16>) -> Vec<u8> {
    let mut trailers = Vec::new();
    Trailer::Nonce(NONCE).write(&mut trailers);
    if let Some(port) = random_port {
        Trailer::RandomPort(port).write(&mut trailers);
    }
    bubble(&peer(), &own(), &trailers)
}

#[test]
fn x31_and_x32_an_untrusted_peer_gets_a_port_of_its_own_and_is_told() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let [port] = world.ports[..] else {
        panic!("{:?}", world.ports)
    };
    assert!(port >= 49_152);
    let sent = world.take_sent();
    assert!(
        sent.iter().all(|datagram| datagram.from == PORT),
        "its first destination is the peer's port"
    );
    let told = sent
        .iter()
        .filter_map(|datagram| trailers(&datagram.payload).random_port);
    assert_eq!(told.collect::<Vec<_>>(), [port]);
    // Others do not.
    for nat in [Nat::Restricted, Nat::Cone, Nat::Symmetric] {
        let mut world = World::behind(nat, |config| config.extensions.sequential = false);
        world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
        assert!(world.ports.is_empty());
    }
    let mut world = preserving();
    world.shared.config.extensions.port_preserving = false;
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    assert!(world.ports.is_empty());
}

#[test]
fn x33_from_the_own_port_to_the_peers_if_this_side_is_symmetric() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    world.take_sent();
    world.arrives(SERVER, &indirect(Some(1201))).unwrap();
    let sent = world.take_sent();
    let random: Vec<_> = sent
        .iter()
        .filter(|datagram| datagram.from == port)
        .collect();
    assert_eq!(random.len(), 1);
    assert_eq!(random[0].to, endpoint("8.0.0.1:1201"));
    let told = trailers(&random[0].payload);
    assert_eq!((told.nonce, told.random_port), (Some(NONCE), Some(port)));
}

#[test]
fn x33_from_the_own_port_to_a_peer_without_one() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    world.take_sent();
    world.arrives(SERVER, &indirect(None)).unwrap();
    let sent = world.take_sent();
    let random = sent.iter().find(|datagram| datagram.from == port).unwrap();
    assert_eq!(random.to, endpoint(PEER));
}

#[test]
fn x33_from_the_service_port_if_this_side_is_port_restricted() {
    let mut world = World::new();
    world.arrives(SERVER, &indirect(Some(1201))).unwrap();
    let sent = world.take_sent();
    assert!(sent.iter().all(|datagram| datagram.from == PORT));
    let mut to: Vec<_> = sent.iter().map(|datagram| datagram.to).collect();
    to.sort();
    let mut expected = [
        endpoint(PEER),
        endpoint("8.0.0.1:1201"),
        endpoint(PEER_SERVER),
    ];
    expected.sort();
    assert_eq!(to, expected);
}

#[test]
fn x34_the_first_port_counts_while_there_is_traffic() {
    let mut world = World::new();
    world.trust_peer();
    world.arrives(SERVER, &indirect(Some(1201))).unwrap();
    world.arrives(SERVER, &indirect(Some(1202))).unwrap();
    world.pass_seconds(31);
    world.take_sent();
    // Silence for thirty seconds: another one counts.
    world.arrives(SERVER, &indirect(Some(1203))).unwrap();
    let to: Vec<_> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.to)
        .collect();
    assert!(to.contains(&endpoint("8.0.0.1:1203")));
    for stale in [1201, 1202] {
        assert!(!to.contains(&endpoint(&format!("8.0.0.1:{stale}"))));
    }
}

#[test]
fn x35_the_first_direct_bubble_decides() {
    // At the service port: the other one is closed.
    let mut world = preserving();
    let data = packet(&own(), &peer(), 1);
    world.host_sends(&data).unwrap();
    world.arrives(SERVER, &indirect(None)).unwrap();
    world.arrives(PEER, &bubble(&peer(), &own(), &[])).unwrap();
    assert!(world.ports.is_empty());
    assert_eq!(
        world.host_sends(&data),
        Ok(Forward::Send(PORT, endpoint(PEER), data.len()))
    );
    // At the other one: it is kept, and used.
    let mut world = preserving();
    world.host_sends(&data).unwrap();
    let port = world.ports[0];
    world.arrives(SERVER, &indirect(None)).unwrap();
    world
        .arrives_at(port, endpoint(PEER), &bubble(&peer(), &own(), &[]))
        .unwrap();
    assert_eq!(world.ports, [port]);
    assert_eq!(
        world.host_sends(&data),
        Ok(Forward::Send(port, endpoint(PEER), data.len()))
    );
    let answer = packet(&peer(), &own(), 2);
    assert!(
        world
            .arrives_at(port, endpoint(PEER), &answer)
            .unwrap()
            .is_some()
    );
}

/// A client that the peer is trusted by at a port of its own.
fn at_own_port() -> (World, u16) {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    world.arrives(SERVER, &indirect(None)).unwrap();
    let greeting = bubble(&peer(), &own(), &[]);
    world.arrives_at(port, endpoint(PEER), &greeting).unwrap();
    assert!(world.trusts(&peer()));
    world.pass_seconds(3);
    world.take_sent();
    (world, port)
}

fn is_asked_by_server(world: &mut World) -> bool {
    let sent = world.take_sent();
    sent.iter()
        .any(|datagram| datagram.to == endpoint(PEER_SERVER))
}

#[test]
fn x35_later_bubbles_at_the_service_port_do_not_move_the_peer() {
    let (mut world, port) = at_own_port();
    let data = packet(&own(), &peer(), 1);
    world.arrives(PEER, &bubble(&peer(), &own(), &[])).unwrap();
    assert_eq!(world.ports, [port]);
    assert_eq!(
        world.host_sends(&data),
        Ok(Forward::Send(port, endpoint(PEER), data.len()))
    );
}

#[test]
fn x35_another_mapping_at_the_random_port_closes_it_at_once() {
    let (mut world, port) = at_own_port();
    let bubble = bubble(&peer(), &own(), &[]);
    let elsewhere = endpoint("8.0.0.1:7777");
    // Not at the service port, which is open to all.
    assert_eq!(
        world.arrives_at(PORT, elsewhere, &bubble),
        Err(DropReason::Mapping)
    );
    assert!(world.trusts(&peer()) && world.take_sent().is_empty());
    assert_eq!(
        world.arrives_at(port, elsewhere, &bubble),
        Err(DropReason::Mapping)
    );
    assert!(!world.trusts(&peer()));
    assert!(!world.ports.contains(&port));
    assert!(is_asked_by_server(&mut world));
    // no solicitation from a port that is closed.
    world.pass_seconds(3);
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let sent = world.take_sent();
    assert!(!sent.is_empty() && sent.iter().all(|datagram| datagram.from != port));
}

#[test]
fn x35_another_mapping_at_the_service_port_counts_after_silence() {
    let silent = |seconds| {
        let mut world = World::new();
        world.trust_peer();
        world.pass_seconds(seconds);
        world
    };
    let elsewhere = "8.0.0.1:7777";
    let bubble = bubble(&peer(), &own(), &[]);
    for (seconds, is_asked) in [(29, false), (31, true)] {
        let mut world = silent(seconds);
        assert_eq!(world.arrives(elsewhere, &bubble), Err(DropReason::Mapping));
        assert_eq!(world.trusts(&peer()), !is_asked);
        assert_eq!(is_asked_by_server(&mut world), is_asked);
        // P-09: a burst of them is one question.
        assert_eq!(world.arrives(elsewhere, &bubble), Err(DropReason::Mapping));
        assert!(!is_asked_by_server(&mut world));
    }
    // Neither for unknown peers, nor from impossible endpoints, nor without the extension.
    let mut world = World::new();
    assert_eq!(world.arrives(elsewhere, &bubble), Err(DropReason::Mapping));
    assert!(world.take_sent().is_empty());
    let mut world = silent(31);
    assert!(world.arrives("10.0.0.1:7777", &bubble).is_err());
    assert!(world.take_sent().is_empty());
    world.shared.config.extensions.port_preserving = false;
    assert_eq!(world.arrives(elsewhere, &bubble), Err(DropReason::Mapping));
    assert!(world.take_sent().is_empty());
}

#[test]
fn x35_a_port_is_for_one_peer_alone() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    let other = teredo("8.0.0.2:1024", PEER_SERVER);
    let data = packet(&other, &own(), 1);
    assert_eq!(
        world.arrives_at(port, endpoint("8.0.0.2:1024"), &data),
        Err(DropReason::Port)
    );
}

/// Answers the bubbles that keep the peer at a port of its own. Returns their number.
fn answer_refreshes(world: &mut World, port: u16, seconds: u32) -> u32 {
    let mut answer = Vec::new();
    Trailer::NeighborAdvertisement.write(&mut answer);
    let answer = bubble(&peer(), &own(), &answer);
    let mut kept = 0;
    for _ in 0..seconds {
        world.pass_seconds(1);
        for sent in world.take_sent() {
            if sent.from == port {
                assert!(trailers(&sent.payload).is_solicitation);
                kept += 1;
                world.arrives_at(port, endpoint(PEER), &answer).unwrap();
            }
        }
    }
    kept
}

#[test]
fn x36_data_begin_the_count_anew() {
    let (mut world, port) = at_own_port();
    let first = answer_refreshes(&mut world, port, 10 * 25);
    assert!((5..=10).contains(&first), "{first}");
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.take_sent();
    assert_eq!(answer_refreshes(&mut world, port, 40 * 25), 20);
}

#[test]
fn x34_another_port_is_ignored_while_there_is_traffic() {
    let mut world = World::new();
    world.arrives(SERVER, &indirect(Some(1201))).unwrap();
    world.trust_peer();
    world.pass_seconds(29);
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.pass_seconds(5);
    assert!(!world.trusts(&peer()));
    world.take_sent();
    world.arrives(SERVER, &indirect(Some(1202))).unwrap();
    world.pass_seconds(1);
    let to: Vec<_> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.to)
        .collect();
    assert!(to.contains(&endpoint("8.0.0.1:1201")), "{to:?}");
    assert!(!to.contains(&endpoint("8.0.0.1:1202")), "{to:?}");
}

#[test]
fn x34_another_port_of_the_peer_costs_the_own_one() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    world.arrives(SERVER, &indirect(Some(1201))).unwrap();
    world.pass_seconds(3);
    assert_eq!(world.ports, [port]);
    world.arrives(SERVER, &indirect(Some(1202))).unwrap();
    assert!(!world.ports.contains(&port));
}

#[test]
fn x32_a_port_that_was_not_answered_is_not_told_again() {
    let mut world = preserving();
    world.arrives(SERVER, &indirect(None)).unwrap();
    let port = world.ports[0];
    world.pass_seconds(9);
    world.arrives(SERVER, &indirect(None)).unwrap();
    assert_eq!(world.ports.len(), 1);
    assert_ne!(world.ports[0], port);
}

#[test]
fn x36_a_peer_at_a_random_port_is_kept_for_twenty_bubbles() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    world.arrives(SERVER, &indirect(None)).unwrap();
    world
        .arrives_at(port, endpoint(PEER), &bubble(&peer(), &own(), &[]))
        .unwrap();
    world.take_sent();
    let kept = answer_refreshes(&mut world, port, 40 * 25);
    assert_eq!(kept, 20);
    assert!(world.ports.is_empty(), "and then it is closed");
}

#[test]
fn ports_are_bounded_and_closed_with_their_peers() {
    let mut world = preserving_with(|config| {
        config.server_pace = Pace {
            first: 1000,
            most: 1000,
            ..Pace::DEFAULT
        };
    });
    for number in 0..200 {
        let other = teredo(&format!("8.0.1.{number}:1024"), PEER_SERVER);
        world.host_sends(&packet(&own(), &other, 1)).unwrap();
        assert!(world.ports.len() <= 64);
    }
    assert_eq!(world.ports.len(), 64);
    world.pass_seconds(10);
    assert!(world.ports.is_empty(), "nobody answered");
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.set_identity(None);
    assert!(world.ports.is_empty());
}

#[test]
fn x32_a_port_that_is_taken_is_replaced() {
    let mut world = preserving();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let taken = world.ports.pop().unwrap();
    world.exchange.handle_port_failure(taken);
    world.pass_seconds(3);
    assert_eq!(world.ports.len(), 1);
    assert_ne!(world.ports[0], taken);
}
