//! Peers behind the same NAT (RFC 6081 section 5.6).

use super::harness::*;
use crate::{
    client::{DropReason, Identity, Nat},
    wire::trailer::{Trailer, write_alternate_addresses},
};

/// A client behind the same NAT, on another network inside.
const NEIGHBOR: &str = "9.0.0.1:4097";
const NONCE: [u8; 4] = [7; 4];

fn neighbor() -> [u8; 16] {
    teredo(NEIGHBOR, PEER_SERVER)
}

fn indirect(source: &[u8; 16], alternates: &[&str]) -> Vec<u8> {
    let mut trailers = Vec::new();
    Trailer::Nonce(NONCE).write(&mut trailers);
    let alternates: Vec<_> = alternates.iter().map(|text| endpoint(text)).collect();
    write_alternate_addresses(&alternates, &mut trailers);
    bubble(source, &own(), &trailers)
}

fn destinations(world: &mut World) -> Vec<String> {
    let sent = world.take_sent().into_iter();
    let direct = sent.filter(|datagram| datagram.to != endpoint(PEER_SERVER));
    direct.map(|datagram| datagram.to.to_string()).collect()
}

#[test]
fn x50_indirect_bubbles_tell_where_else_the_client_is() {
    let mut world = World::new();
    world.set_identity(Some(Identity {
        port_mapping: Some(endpoint("10.0.0.2:1234")),
        ..World::identity(Nat::Restricted)
    }));
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let sent = world.take_sent();
    let list = sent
        .iter()
        .find_map(|datagram| trailers(&datagram.payload).alternates)
        .unwrap();
    let list: Vec<_> = list
        .endpoints()
        .map(|endpoint| endpoint.to_string())
        .collect();
    assert_eq!(list, ["192.168.1.2:40000", "10.0.0.2:1234"]);
    let direct = sent
        .iter()
        .find(|datagram| datagram.to == endpoint(PEER))
        .unwrap();
    assert!(trailers(&direct.payload).alternates.is_none());

    let mut world = World::with(|config| config.extensions.hairpinning = false);
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let mut sent = world.take_sent().into_iter();
    assert!(sent.all(|datagram| trailers(&datagram.payload).alternates.is_none()));
}

#[test]
fn x51_and_x52_all_endpoints_are_tried_and_the_nonce_proves_one() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &neighbor(), 1)).unwrap();
    let sent = world.take_sent();
    let nonce = sent
        .iter()
        .find_map(|datagram| trailers(&datagram.payload).nonce)
        .unwrap();
    let asked = indirect(&neighbor(), &["192.168.9.3:40001", "10.0.0.3:40001"]);
    world.arrives(SERVER, &asked).unwrap();
    assert_eq!(
        destinations(&mut world),
        [NEIGHBOR, "192.168.9.3:40001", "10.0.0.3:40001"]
    );
    let mut answer = Vec::new();
    Trailer::Nonce(nonce).write(&mut answer);
    let answer = bubble(&neighbor(), &own(), &answer);
    world.arrives("10.0.0.3:40001", &answer).unwrap();
    assert_eq!(destinations(&mut world), ["10.0.0.3:40001"], "the packet");
    // To a trusted peer only one.
    world.pass_seconds(3);
    world.arrives(SERVER, &asked).unwrap();
    assert_eq!(destinations(&mut world), ["10.0.0.3:40001"]);
}

#[test]
fn x53_nobody_else_steers_bubbles_into_private_networks() {
    let mut world = World::new();
    let asked = indirect(&peer(), &["192.168.1.9:80", "10.0.0.1:80"]);
    world.arrives(SERVER, &asked).unwrap();
    assert_eq!(destinations(&mut world), [PEER]);
}

#[test]
fn x53_and_no_neighbor_steers_them_to_where_nobody_is() {
    let mut world = World::new();
    for forbidden in [
        [
            "127.0.0.1:80",
            "0.1.2.3:80",
            "224.0.0.253:3544",
            "255.255.255.255:80",
        ],
        [
            "192.168.1.2:40000",
            "192.168.1.255:80",
            "10.0.0.1:0",
            MAPPED,
        ],
    ] {
        world
            .arrives(SERVER, &indirect(&neighbor(), &forbidden))
            .unwrap();
        assert_eq!(destinations(&mut world), [NEIGHBOR]);
        world.pass_seconds(3);
    }
    let mut malformed = indirect(&neighbor(), &[]);
    malformed.extend([3, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(world.arrives(SERVER, &malformed), Err(DropReason::Trailer));
}

#[test]
fn x50_not_to_a_peer_that_is_reached() {
    let mut world = World::new();
    world.trust_peer();
    world.pass_seconds(25);
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.pass(std::time::Duration::from_millis(4900));
    assert!(world.trusts(&peer()));
    let sent = world.take_sent();
    let mut indirect = sent
        .iter()
        .filter(|datagram| datagram.to == endpoint(PEER_SERVER));
    let one = indirect.next().unwrap();
    assert!(trailers(&one.payload).alternates.is_none());
}
