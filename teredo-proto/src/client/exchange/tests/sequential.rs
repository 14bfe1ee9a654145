//! Symmetric NATs that count ports up (RFC 6081 section 5.5).

use std::time::Duration;

use teredo_common::address::{Endpoint, server_link_local};

use super::harness::*;
use crate::{
    client::{DropReason, Nat},
    wire::{encapsulation, ipv6::Header, router::Advertisement, trailer::Trailer},
};

const SECONDARY: &str = "1.2.3.5:3544";

/// Returns a server's answer to a solicitation from `mapped`.
fn advertisement(solicitation: &[u8], mapped: &str) -> Vec<u8> {
    let parts = encapsulation::parse(solicitation).unwrap();
    let nonce = parts.authentication.unwrap().nonce;
    let source = Header::parse(parts.packet).unwrap().source();
    let server = endpoint(SERVER).ip();
    let mut payload = Vec::new();
    encapsulation::write_authentication(&[], 0, nonce, 0, &mut payload);
    payload.extend(endpoint(mapped).origin_indication());
    let [a, b, c, d] = server.octets();
    Advertisement::new(
        &server_link_local(server, 3544).octets(),
        [0x20, 1, 0, 0, a, b, c, d],
        None,
    )
    .write(&source, &mut payload);
    payload
}

/// Sends to the peer. Returns the test's port, and the datagrams from it.
fn start(world: &mut World) -> (u16, Vec<Sent>) {
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let port = world.ports[0];
    let sent = world.take_sent();
    (
        port,
        sent.into_iter()
            .filter(|datagram| datagram.from == port)
            .collect(),
    )
}

fn predicted(sent: &[Sent]) -> Option<u16> {
    let mut indirect = sent
        .iter()
        .filter(|datagram| datagram.to == endpoint(PEER_SERVER));
    trailers(&indirect.next()?.payload).random_port
}

#[test]
fn x40_two_solicitations_around_a_bubble_show_the_port_between() {
    let mut world = World::behind(Nat::Symmetric, |_| ());
    let (port, test) = start(&mut world);
    let to: Vec<Endpoint> = test.iter().map(|datagram| datagram.to).collect();
    assert_eq!(to, [endpoint(SERVER), endpoint(PEER), endpoint(SECONDARY)]);
    let first = advertisement(&test[0].payload, "9.0.0.1:5000");
    let second = advertisement(&test[2].payload, "9.0.0.1:5003");
    world.arrives_at(port, endpoint(SERVER), &first).unwrap();
    assert_eq!(world.take_sent(), [], "not before both are there");
    world
        .arrives_at(port, endpoint(SECONDARY), &second)
        .unwrap();
    assert_eq!(predicted(&world.take_sent()), Some(5001), "rounded down");
}

#[test]
fn x41_another_test_after_a_second_and_the_plain_bubble_after_two() {
    let mut world = World::behind(Nat::Symmetric, |_| ());
    let (port, _) = start(&mut world);
    world.pass(Duration::from_millis(999));
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_millis(1));
    assert_ne!(world.ports, [port], "a fresh port");
    assert_eq!(world.take_sent().len(), 3);
    world.pass(Duration::from_millis(999));
    assert_eq!(world.take_sent(), []);
    world.pass(Duration::from_millis(251));
    assert!(world.ports.is_empty());
    let mut sent = world.take_sent().into_iter();
    let indirect = sent
        .find(|datagram| datagram.to == endpoint(PEER_SERVER))
        .unwrap();
    assert_eq!(trailers(&indirect.payload).random_port, None);
    world.pass_seconds(8);
    assert_eq!(world.delivered.len(), 1, "the host is told in time");
}

#[test]
fn x42_advertisements_of_a_test_are_checked_and_say_nothing_else() {
    let mut world = World::behind(Nat::Symmetric, |_| ());
    let (port, test) = start(&mut world);
    let right = advertisement(&test[0].payload, "9.0.0.1:5000");
    for from in [SECONDARY, "6.6.6.6:3544"] {
        assert!(
            world.arrives_at(port, endpoint(from), &right).is_err(),
            "{from}"
        );
    }
    let mut wrong = right.clone();
    wrong[5] ^= 1;
    assert!(
        world.arrives_at(port, endpoint(SERVER), &wrong).is_err(),
        "nonce"
    );
    assert_eq!(
        world.arrives_at(port ^ 1, endpoint(SERVER), &right),
        Err(DropReason::Port)
    );
    world.arrives_at(port, endpoint(SERVER), &right).unwrap();
    assert!(world.shared.events.is_empty());
    assert_eq!(world.exchange.peers().count(), 1);
}

#[test]
fn x40_not_for_other_nats_nor_without_what_it_needs() {
    for change in [
        |config: &mut crate::client::Config| config.extensions.sequential = false,
        |config: &mut crate::client::Config| config.extensions.port_preserving = false,
    ] {
        let mut world = World::behind(Nat::Symmetric, change);
        world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
        assert!(world.ports.is_empty());
    }
    let mut world = World::behind(Nat::Restricted, |_| ());
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    assert!(world.ports.is_empty());
}

/// Creates a client that tests its NAT's next port, because the peer asked. Returns the port, too.
fn asked() -> (World, u16) {
    let mut world = World::behind(Nat::Symmetric, |_| ());
    let mut nonce = Vec::new();
    Trailer::Nonce([1; 4]).write(&mut nonce);
    world
        .arrives(SERVER, &bubble(&peer(), &own(), &nonce))
        .unwrap();
    let port = world.ports[0];
    world.take_sent();
    (world, port)
}

#[test]
fn x41_the_plain_bubble_goes_to_a_peer_that_asked_too() {
    let (mut world, _) = asked();
    world.pass_seconds(3);
    let sent = world.take_sent();
    let plain = sent
        .iter()
        .find(|datagram| datagram.to == endpoint(PEER_SERVER));
    assert_eq!(trailers(&plain.unwrap().payload).random_port, None);
}

#[test]
fn x40_an_answer_at_the_port_ends_the_test() {
    let (mut world, port) = asked();
    world
        .arrives_at(port, endpoint(PEER), &bubble(&peer(), &own(), &[]))
        .unwrap();
    assert!(world.trusts(&peer()));
    world.take_sent();
    world.pass_seconds(3);
    assert_eq!(world.take_sent(), []);
    assert_eq!(world.ports, [port]);
}
