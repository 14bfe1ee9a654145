//! The relay beside a server in the same process.

use std::time::Duration;

use super::harness::*;
use crate::{
    dual::{Recipient, SharedPort},
    relay::{Bubble, DropReason},
};
use teredo_common::{
    address::ServicePrefix,
    wire::{ICMPV6, UDP},
};

fn own_server() -> std::net::Ipv4Addr {
    endpoint(SERVER).ip()
}

/// A relay whose host has the server's address too.
fn world(knows_server: bool) -> World {
    World::with(|config| {
        config.own_ipv4 = vec![own_server()];
        config.own_server = knows_server.then(own_server);
    })
}

#[test]
fn l06_bubbles_for_the_own_server_are_handed_over_and_never_sent() {
    let mut world = world(true);
    let client = teredo(CLIENT);
    assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
    assert!(world.sent.is_empty());
    let [bubble] = &world.own_server[..] else {
        panic!("one bubble, not {:?}", world.own_server);
    };
    let answer = super::harness::bubble(&client, bubble[8..24].try_into().unwrap());
    assert_eq!(world.counted(Bubble::SentIndirect), 1);

    // The client answers from wherever its NAT maps it: the cookie proves it.
    assert_eq!(world.client_sends("9.0.0.1:5000", &answer), None);
    let sent = world.take_data();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, endpoint("9.0.0.1:5000"));
}

#[test]
fn l06_without_a_server_of_its_own_the_address_is_refused() {
    let mut world = world(false);
    assert!(!world.native_sends(&packet(&address(HOST), &teredo(CLIENT), 1)));
    assert!(world.sent.is_empty() && world.own_server.is_empty());
    assert_eq!(world.dropped(DropReason::EncapServer), 1);
}

#[test]
fn other_servers_are_asked_as_ever() {
    let mut world = world(true);
    let client = teredo_of(CLIENT, "8.8.8.8:3544", 0);
    assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
    assert!(world.own_server.is_empty());
    assert_eq!(world.take_sent()[0].0, endpoint("8.8.8.8:3544"));
}

#[test]
fn s30_the_common_entry() {
    let prefixes = vec![ServicePrefix::STANDARD, ServicePrefix::DRAFT];
    let port = SharedPort::new(own_server(), 3544, prefixes);
    let mut world = world(true);
    let peer = {
        let client = teredo(CLIENT);
        world.native_sends(&packet(&address(HOST), &client, 0));
        assert_eq!(
            world.client_sends(CLIENT, &bubble(&client, &address(HOST))),
            None
        );
        client
    };
    let stranger = teredo("9.0.0.2:4096");
    let host = address(HOST);
    let cookie = address("fe80::1234:5678:9abc:def0");
    let own = address("fe80::8000:f227:fefd:fcfb");
    let recipient =
        |world: &World, payload: &[u8]| port.recipient(&world.relay, world.now, payload);
    let echo = |source: &[u8; 16]| ipv6(ICMPV6, 64, source, &host, &[128, 0, 0, 0, 0, 1, 0, 1]);
    let relayed = [
        packet(&peer, &host, 1),
        echo(&peer),
        bubble(&peer, &cookie),
        bubble(&stranger, &cookie),
        bubble(&peer, &host),
    ];
    for payload in &relayed {
        assert_eq!(recipient(&world, payload), Recipient::Relay, "{payload:x?}");
    }
    let all_routers = address("ff02::2");
    let served = [
        // Connectivity tests and unknown packets.
        echo(&stranger),
        packet(&stranger, &host, 1),
        bubble(&stranger, &host),
        // To the server itself.
        ipv6(
            ICMPV6,
            64,
            &cookie,
            &all_routers,
            &[133, 0, 0, 0, 0, 0, 0, 0],
        ),
        ipv6(ICMPV6, 64, &peer, &own, &[128, 0, 0, 0, 0, 1, 0, 1]),
        bubble(&peer, &own),
        // Between clients, and from relays.
        bubble(&peer, &stranger),
        packet(&peer, &stranger, 1),
        bubble(&peer, &address("3ffe:831f:102:304:0:efff:f6ff:fffe")),
        bubble(&cookie, &peer),
        ipv6(UDP, 64, &host, &peer, &[0; 8]),
        // With elements that only servers get or send.
        [
            &[0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0][..],
            &packet(&peer, &host, 1),
        ]
        .concat(),
        [&[0, 0, 1, 2, 3, 4, 5, 6][..], &packet(&peer, &host, 1)].concat(),
        vec![],
        vec![0xff; 100],
    ];
    for payload in &served {
        assert_eq!(
            recipient(&world, payload),
            Recipient::Server,
            "{payload:x?}"
        );
    }
    // Silence ends it.
    world.now += Duration::from_secs(31);
    assert_eq!(
        recipient(&world, &packet(&peer, &host, 1)),
        Recipient::Server
    );
}
