//! Symmetric NAT support (RFC 6081 section 5.2): nonces.

use std::time::Duration;

use super::harness::*;
use crate::{
    client::{Bubble, DropReason, Extensions, Identity, Nat, exchange::Forward},
    wire::trailer::Trailer,
};

/// The source of packets of the peer behind a symmetric NAT.
const ELSEWHERE: &str = "8.0.0.1:7777";

fn with_nonce(nonce: [u8; 4]) -> Vec<u8> {
    let mut trailers = Vec::new();
    Trailer::Nonce(nonce).write(&mut trailers);
    trailers
}

/// The nonce in the last indirect bubble.
fn nonce_sent(sent: &[Sent]) -> [u8; 4] {
    let indirect = sent
        .iter()
        .rev()
        .find(|datagram| datagram.to == endpoint(PEER_SERVER));
    trailers(&indirect.unwrap().payload).nonce.unwrap()
}

#[test]
fn x10_a_symmetric_client_exchanges_packets() {
    let mut world = World::behind(Nat::Symmetric, |_| ());
    let host = world.trust_host();
    let data = packet(&own(), &host, 1);
    assert!(matches!(world.host_sends(&data), Ok(Forward::Send(..))));
}

#[test]
fn x11_every_indirect_bubble_has_a_new_nonce_and_no_direct_one_has() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.pass_seconds(8);
    let sent = world.take_sent();
    let nonces: Vec<_> = sent
        .iter()
        .filter(|datagram| datagram.to == endpoint(PEER_SERVER))
        .map(|datagram| trailers(&datagram.payload).nonce.unwrap())
        .collect();
    assert_eq!(nonces.len(), 4);
    assert!((1..4).all(|newer| !nonces[..newer].contains(&nonces[newer])));
    assert!(!nonces.contains(&[0; 4]));
    let mut direct = sent.iter().filter(|datagram| datagram.to == endpoint(PEER));
    assert!(
        direct.all(|datagram| datagram.payload.len() == 40),
        "X-12: nothing to bring back"
    );
}

#[test]
fn x12_x13_and_x15_the_answer_brings_the_nonce_back_and_asks_in_turn() {
    let mut world = World::new();
    let nonce = [0xde, 0xad, 0xbe, 0xef];
    world
        .arrives(SERVER, &bubble(&peer(), &own(), &with_nonce(nonce)))
        .unwrap();
    let sent = world.take_sent();
    let direct = sent
        .iter()
        .find(|datagram| datagram.to == endpoint(PEER))
        .unwrap();
    assert_eq!(direct.payload, bubble(&own(), &peer(), &with_nonce(nonce)));
    assert_eq!(
        sent.iter()
            .filter(|datagram| datagram.to == endpoint(PEER_SERVER))
            .count(),
        1,
        "X-15"
    );
    // one without a nonce clears it.
    world.pass_seconds(3);
    world
        .arrives(SERVER, &bubble(&peer(), &own(), &[]))
        .unwrap();
    let sent = world.take_sent();
    let direct = sent
        .iter()
        .find(|datagram| datagram.to == endpoint(PEER))
        .unwrap();
    assert_eq!(direct.payload, bubble(&own(), &peer(), &[]));
    // To a trusted peer the direct one is enough.
    world.trust_peer();
    world.pass_seconds(3);
    world
        .arrives(SERVER, &bubble(&peer(), &own(), &with_nonce(nonce)))
        .unwrap();
    let sent = world.take_payloads();
    assert_eq!(
        sent,
        [(endpoint(PEER), bubble(&own(), &peer(), &with_nonce(nonce)))]
    );
}

#[test]
fn x14_a_nonce_proves_where_a_peer_is() {
    let mut world = World::new();
    let data = packet(&own(), &peer(), 1);
    world.host_sends(&data).unwrap();
    let nonce = nonce_sent(&world.take_sent());
    for wrong in [
        vec![],
        with_nonce([0; 4]),
        with_nonce(nonce.map(|octet| octet ^ 1)),
    ] {
        let answer = bubble(&peer(), &own(), &wrong);
        assert_eq!(world.arrives(ELSEWHERE, &answer), Err(DropReason::Mapping));
        assert!(!world.trusts(&peer()));
    }
    let answer = bubble(&peer(), &own(), &with_nonce(nonce));
    assert_eq!(world.arrives(ELSEWHERE, &answer), Ok(None));
    assert_eq!(world.take_payloads(), [(endpoint(ELSEWHERE), data)]);
    // The nonce is used up: it moves the peer nowhere else.
    assert_eq!(
        world.arrives("6.6.6.6:666", &answer),
        Err(DropReason::Mapping)
    );
    assert_eq!(world.peer(&peer()).unwrap().mapped, endpoint(ELSEWHERE));
}

#[test]
fn x14_a_nonce_in_data_proves_nothing() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let nonce = nonce_sent(&world.take_sent());
    let data = [packet(&peer(), &own(), 1), with_nonce(nonce)].concat();
    assert_eq!(world.arrives(ELSEWHERE, &data), Err(DropReason::Mapping));
}

#[test]
fn x14_and_l05_no_nonce_makes_a_forbidden_address_a_mapping() {
    for from in [
        "192.168.1.9:80",
        "10.0.0.1:80",
        "127.0.0.1:80",
        "224.0.0.1:80",
        MAPPED,
    ] {
        let mut world = World::new();
        world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
        let nonce = nonce_sent(&world.take_sent());
        let answer = bubble(&peer(), &own(), &with_nonce(nonce));
        assert_eq!(
            world.arrives(from, &answer),
            Err(DropReason::Mapping),
            "{from}"
        );
        assert_eq!(world.take_sent(), []);
    }
}

#[test]
fn x16_eight_wrong_guesses_end_a_procedure() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let nonce = nonce_sent(&world.take_sent());
    for guess in 1..=8_u8 {
        let wrong = bubble(&peer(), &own(), &with_nonce([guess, 0, 0, 0]));
        assert_eq!(world.arrives(ELSEWHERE, &wrong), Err(DropReason::Mapping));
    }
    let right = bubble(&peer(), &own(), &with_nonce(nonce));
    assert_eq!(world.arrives(ELSEWHERE, &right), Err(DropReason::Mapping));
    // The endpoint in the address stays proof enough.
    assert_eq!(world.arrives(PEER, &bubble(&peer(), &own(), &[])), Ok(None));
}

#[test]
fn without_the_extension_there_are_no_trailers_and_nonces_prove_nothing() {
    let mut world = World::with(|config| config.extensions = Extensions::NONE);
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    assert!(
        world
            .take_sent()
            .iter()
            .all(|datagram| datagram.payload.len() == 40)
    );
    let answer = bubble(&peer(), &own(), &with_nonce([0; 4]));
    assert_eq!(world.arrives(ELSEWHERE, &answer), Err(DropReason::Mapping));
    world.pass_seconds(20);
    world
        .arrives(SERVER, &bubble(&peer(), &own(), &with_nonce([1; 4])))
        .unwrap();
    assert_eq!(
        world.bubbles(Bubble::SentIndirect),
        4,
        "X-15 is an extension"
    );
}

#[test]
fn x23_a_symmetric_peer_is_reached_at_its_port_mapping() {
    let symmetric = |upnp| Identity {
        upnp,
        ..World::identity(Nat::Symmetric)
    };
    for upnp in [false, true] {
        let mut world = World::with(|config| config.extensions.sequential = false);
        world.set_identity(Some(symmetric(upnp)));
        world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
        let nonce = nonce_sent(&world.take_sent());
        world
            .arrives(SERVER, &bubble(&peer(), &own(), &with_nonce([7; 4])))
            .unwrap();
        world.take_sent();
        let mut answer = with_nonce(nonce);
        Trailer::NeighborAdvertisement.write(&mut answer);
        let answer = bubble(&peer(), &own(), &answer);
        world.arrives(ELSEWHERE, &answer).unwrap();
        let expected = if upnp { PEER } else { ELSEWHERE };
        let sent = world.take_payloads();
        assert!(
            sent.iter().all(|datagram| datagram.0 == endpoint(expected)),
            "{sent:?}"
        );
        let data = packet(&peer(), &own(), 1);
        assert!(world.arrives(ELSEWHERE, &data).unwrap().is_some());
        // A native host has no port mapping.
        let host = world.trust_host();
        let data = packet(&own(), &host, 1);
        assert_eq!(
            world.host_sends(&data),
            Ok(Forward::Send(PORT, endpoint(RELAY), data.len()))
        );
    }
}

#[test]
fn a_symmetric_client_sends_packets_only_when_its_peer_knows_whose_they_are() {
    let mut world = World::behind(Nat::Symmetric, |config| {
        config.extensions.port_preserving = false;
    });
    let data = packet(&own(), &peer(), 1);
    world.host_sends(&data).unwrap();
    world.take_sent();
    assert_eq!(world.arrives(PEER, &bubble(&peer(), &own(), &[])), Ok(None));
    assert_eq!(world.take_sent(), [], "the peer would drop them");
    world
        .arrives(SERVER, &bubble(&peer(), &own(), &with_nonce([7; 4])))
        .unwrap();
    let sent = world.take_payloads();
    assert_eq!(
        sent[0],
        (endpoint(PEER), bubble(&own(), &peer(), &with_nonce([7; 4])))
    );
    assert_eq!(sent.last().unwrap(), &(endpoint(PEER), data));
}

#[test]
fn x16_wrong_guesses_count_anew_in_every_procedure() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    for guess in 1..=8_u8 {
        let wrong = bubble(&peer(), &own(), &with_nonce([guess, 0, 0, 0]));
        assert_eq!(world.arrives(ELSEWHERE, &wrong), Err(DropReason::Mapping));
    }
    world.pass_seconds(400);
    world.take_sent();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let nonce = nonce_sent(&world.take_sent());
    let right = bubble(&peer(), &own(), &with_nonce(nonce));
    assert_eq!(world.arrives(ELSEWHERE, &right), Ok(None));
}

#[test]
fn x14_the_last_nonce_but_one_may_be_under_way() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let nonce = nonce_sent(&world.take_sent());
    world.pass_seconds(3);
    assert_ne!(nonce_sent(&world.take_sent()), nonce);
    let late = bubble(&peer(), &own(), &with_nonce(nonce));
    assert_eq!(world.arrives(ELSEWHERE, &late), Ok(None));
    assert!(world.trusts(&peer()));
}

/// A client behind a symmetric NAT that cannot predict ports, with a packet for the peer.
fn waiting() -> World {
    let mut world = World::behind(Nat::Symmetric, |config| {
        config.extensions.sequential = false;
    });
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world
}

#[test]
fn x14_what_a_bubble_proves_counts_for_eight_seconds() {
    for (seconds, counts) in [(3, true), (9, false)] {
        let mut world = waiting();
        world.arrives(PEER, &bubble(&peer(), &own(), &[])).unwrap();
        assert!(!world.trusts(&peer()));
        world.pass_seconds(seconds);
        let asked = bubble(&peer(), &own(), &with_nonce([1; 4]));
        world.arrives(SERVER, &asked).unwrap();
        assert_eq!(world.trusts(&peer()), counts, "after {seconds} s");
    }
}

#[test]
fn x23_packets_wait_until_the_peer_says_that_it_was_reached() {
    let mut world = waiting();
    world.set_identity(Some(Identity {
        upnp: true,
        ..World::identity(Nat::Symmetric)
    }));
    let asked = bubble(&peer(), &own(), &with_nonce([1; 4]));
    world.arrives(SERVER, &asked).unwrap();
    world.pass(Duration::from_millis(2500));
    world.take_sent();
    world.arrives(PEER, &bubble(&peer(), &own(), &[])).unwrap();
    assert!(!world.trusts(&peer()));
    let sent = world.take_sent();
    assert_eq!(sent.len(), 1);
    let told = trailers(&sent[0].payload);
    assert_eq!((told.nonce, told.is_solicitation), (Some([1; 4]), true));
    let mut answer = Vec::new();
    Trailer::NeighborAdvertisement.write(&mut answer);
    let answer = bubble(&peer(), &own(), &answer);
    world.arrives(PEER, &answer).unwrap();
    assert!(world.trusts(&peer()));
    assert_eq!(world.take_sent().len(), 1, "the packet");
}

#[test]
fn x15_the_first_direct_bubble_is_answered_once() {
    let mut world = World::new();
    let asked = bubble(&peer(), &own(), &with_nonce([1; 4]));
    world.arrives(SERVER, &asked).unwrap();
    world.take_sent();
    let greeting = bubble(&peer(), &own(), &[]);
    world.arrives(PEER, &greeting).unwrap();
    let to: Vec<_> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.to)
        .collect();
    assert_eq!(to, [endpoint(PEER)]);
    world.arrives(PEER, &greeting).unwrap();
    assert_eq!(world.take_sent(), []);
}
