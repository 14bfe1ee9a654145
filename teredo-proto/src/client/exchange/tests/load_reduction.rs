//! Server load reduction (RFC 6081 section 5.7).

use super::harness::*;
use crate::{
    client::{Bubble, exchange::Forward},
    wire::trailer::Trailer,
};

fn signed(trailer: Trailer<'_>, source: &[u8; 16], destination: &[u8; 16]) -> Vec<u8> {
    let mut trailers = Vec::new();
    trailer.write(&mut trailers);
    bubble(source, destination, &trailers)
}

#[test]
fn x60_and_x62_a_silent_peer_is_asked_directly_and_packets_wait() {
    let mut world = World::new();
    let peer = world.trust_peer();
    world.pass_seconds(40);
    world.take_sent();
    let data = packet(&own(), &peer, 1);
    assert_eq!(world.host_sends(&data), Ok(Forward::Queued));
    let solicitation = signed(Trailer::NeighborSolicitation, &own(), &peer);
    assert_eq!(world.take_payloads(), [(endpoint(PEER), solicitation)]);
    let answer = signed(Trailer::NeighborAdvertisement, &peer, &own());
    world.arrives(PEER, &answer).unwrap();
    assert_eq!(world.take_payloads(), [(endpoint(PEER), data)]);
    assert_eq!(world.bubbles(Bubble::SentIndirect), 0);
}

#[test]
fn x60_the_third_time_by_the_server() {
    let mut world = World::new();
    let peer = world.trust_peer();
    world.pass_seconds(40);
    world.host_sends(&packet(&own(), &peer, 1)).unwrap();
    world.pass_seconds(10);
    let to: Vec<_> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.to)
        .collect();
    let (direct, server) = (endpoint(PEER), endpoint(PEER_SERVER));
    assert_eq!(to, [direct, direct, direct, server, direct, server]);
    assert_eq!(world.delivered.len(), 1, "and the host is told in time");

    let mut world = World::with(|config| config.extensions.load_reduction = false);
    world.trust_peer();
    world.pass_seconds(40);
    world.host_sends(&packet(&own(), &peer, 1)).unwrap();
    assert_eq!(world.bubbles(Bubble::SentIndirect), 1);
}

#[test]
fn x61_a_solicitation_is_answered_with_an_advertisement() {
    let mut world = World::new();
    let peer = world.trust_peer();
    world.pass_seconds(10);
    let solicitation = signed(Trailer::NeighborSolicitation, &peer, &own());
    world.arrives(PEER, &solicitation).unwrap();
    let advertisement = signed(Trailer::NeighborAdvertisement, &own(), &peer);
    assert_eq!(world.take_payloads(), [(endpoint(PEER), advertisement)]);
    for _ in 0..100 {
        world.arrives(PEER, &solicitation).unwrap();
    }
    assert!(world.take_sent().len() <= 1, "P-09");
    assert!(world.arrives("6.6.6.6:666", &solicitation).is_err());
}

#[test]
fn p12_a_steady_sender_asks_in_time_and_nothing_waits() {
    let mut world = World::new();
    let peer = world.trust_peer();
    for _ in 0..100 {
        world.pass_seconds(1);
        let data = packet(&own(), &peer, 1);
        assert!(matches!(world.host_sends(&data), Ok(Forward::Send(..))));
        for sent in world.take_sent() {
            if trailers(&sent.payload).is_solicitation {
                let answer = signed(Trailer::NeighborAdvertisement, &peer, &own());
                world.arrives(PEER, &answer).unwrap();
            }
        }
    }
    assert_eq!(world.bubbles(Bubble::SentDirect), 4);
}

#[test]
fn p12_a_sender_that_paused_just_now_asks_in_time() {
    for (seconds, is_asked) in [(10, false), (22, true)] {
        let mut world = World::new();
        world.trust_peer();
        world.pass_seconds(seconds);
        world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
        world.take_sent();
        world.pass_seconds(26 - seconds);
        assert_eq!(!world.take_sent().is_empty(), is_asked, "{seconds}");
    }
}
