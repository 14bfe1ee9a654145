//! Native hosts behind relays: packets that are held, and packets that are trusted (RFC 4380
//! section 5.2.3).

use super::harness::*;
use crate::client::{DropReason, Identity, Nat};

const ELSEWHERE: &str = "5.6.7.9:3545";

/// Creates a client whose host sent to the native host. Returns the test of it, too.
fn tested() -> (World, [u8; 16], Vec<u8>) {
    let mut world = World::new();
    let host = address(HOST);
    world.host_sends(&packet(&own(), &host, 0)).unwrap();
    let test = world.sent.pop().unwrap().payload;
    (world, host, test)
}

#[test]
fn c38_a_test_can_be_answered_for_thirty_seconds() {
    for (seconds, counts) in [(29, true), (31, false)] {
        let (mut world, host, test) = tested();
        world.arrives(RELAY, &reply_to(&test)).unwrap();
        world.pass_seconds(20);
        world.arrives(RELAY, &packet(&host, &own(), 1)).unwrap();
        world.pass_seconds(seconds - 20);
        let _ = world.arrives(ELSEWHERE, &reply_to(&test));
        let mapped = world.peer(&host).unwrap().mapped;
        assert_eq!(mapped == endpoint(ELSEWHERE), counts, "after {seconds} s");
    }
}

#[test]
fn c41_and_l05_nothing_is_held_from_where_no_relay_is() {
    let (mut world, host, _) = tested();
    for from in ["10.0.0.1:80", "192.168.1.3:80", "127.0.0.1:80", MAPPED] {
        assert_eq!(
            world.arrives(from, &packet(&host, &own(), 1)),
            Err(DropReason::SourceScope)
        );
    }
}

#[test]
fn c41_what_is_held_comes_from_one_relay() {
    let (mut world, host, test) = tested();
    let [first, second] = [1, 2].map(|mark| packet(&host, &own(), mark));
    assert_eq!(world.arrives(RELAY, &first), Ok(None));
    assert_eq!(
        world.arrives(ELSEWHERE, &second),
        Err(DropReason::HeldElsewhere)
    );
    world.arrives(RELAY, &reply_to(&test)).unwrap();
    assert_eq!(world.take_delivered(), [first]);
}

#[test]
fn c41_another_relay_of_a_host_is_remembered() {
    let (mut world, host, test) = tested();
    world.arrives(RELAY, &packet(&host, &own(), 1)).unwrap();
    assert_eq!(world.peer(&host).unwrap().elsewhere, None);
    // Before the host has answered, and after it.
    let _ = world.arrives(ELSEWHERE, &packet(&host, &own(), 2));
    let other = (endpoint(ELSEWHERE), world.now);
    assert_eq!(world.peer(&host).unwrap().elsewhere, Some(other));
    world.arrives(RELAY, &reply_to(&test)).unwrap();
    world.pass_seconds(1);
    let _ = world.arrives(ELSEWHERE, &packet(&host, &own(), 3));
    let other = (endpoint(ELSEWHERE), world.now);
    assert_eq!(world.peer(&host).unwrap().elsewhere, Some(other));
}

#[test]
fn c45_another_address_forgets_relays() {
    let mut world = World::new();
    let asked = |own: &[u8; 16]| with_origin(RELAY, &bubble(&address("fe80::1"), own, &[]));
    world.arrives(SERVER, &asked(&own())).unwrap();
    let moved = teredo("9.0.0.1:4099", SERVER);
    world.set_identity(Some(Identity {
        address: moved.into(),
        mapped: endpoint("9.0.0.1:4099"),
        ..World::identity(Nat::Restricted)
    }));
    let data = packet(&address(HOST), &moved, 1);
    assert_eq!(world.arrives(RELAY, &data), Err(DropReason::Unsolicited));
}

#[test]
fn c34_bubbles_that_nobody_may_send() {
    let mut world = World::new();
    for source in ["::1", "ff02::1", "::"] {
        let asked = with_origin(RELAY, &bubble(&address(source), &own(), &[]));
        assert_eq!(world.arrives(SERVER, &asked), Err(DropReason::Source));
    }
    // C-42: a native host's bubble comes by the server.
    let direct = bubble(&address(HOST), &own(), &[]);
    assert_eq!(world.arrives(RELAY, &direct), Err(DropReason::RelayBubble));
    assert_eq!(world.take_sent(), []);
}

#[test]
fn c43_a_relay_learns_that_the_client_is_at_its_mapping() {
    let mut world = World::new();
    let question = |source: &str| bubble(&address(source), &own(), &[4, 4, 0, 0, 0, 0]);
    assert_eq!(
        world.arrives(RELAY, &question("fe80::2")),
        Err(DropReason::RelayBubble),
        "a relay that nobody knows"
    );
    let asked = with_origin(RELAY, &bubble(&address("fe80::1"), &own(), &[]));
    world.arrives(SERVER, &asked).unwrap();
    world.take_sent();
    assert_eq!(world.arrives(RELAY, &question("fe80::2")), Ok(None));
    let expected = bubble(&own(), &address("fe80::2"), &[4, 4, 1, 0, 0, 0]);
    let sent = world.take_sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].to, &sent[0].payload), (endpoint(RELAY), &expected));
    for refused in [
        bubble(&address("fe80::2"), &own(), &[]),
        question("2000::b"),
    ] {
        assert_eq!(world.arrives(RELAY, &refused), Err(DropReason::RelayBubble));
    }
    // Forged packets do not raise the rate of an address.
    for _ in 0..100 {
        world.arrives(RELAY, &question("fe80::2")).unwrap();
    }
    assert!(world.take_sent().len() <= 20);
}
