//! Where accepted packets go.

use teredo_common::{
    address::{ServicePrefix, TeredoAddress, server_link_local},
    time::Instant,
    wire::{ECHO_REPLY, ECHO_REQUEST, UDP},
};

use super::harness::*;
use crate::{
    server::{Buckets, Config, DropReason, Server, Service},
    testing::octets,
};

fn own_link_local() -> [u8; 16] {
    server_link_local(PRIMARY.parse().unwrap(), 3544).octets()
}

fn with_origin(from: &str, packet: &[u8]) -> Vec<u8> {
    [&endpoint(from).origin_indication()[..], packet].concat()
}

#[test]
fn s08_s14_s15_v19_a_bubble_between_clients_gets_an_origin_indication() {
    let mut world = World::with(|config| {
        config.primary = [9, 10, 11, 12].into();
        config.secondary = [9, 10, 11, 13].into();
    });
    let bubble = octets(
        "6000000000003bff 20010000010203040000effff6fffffe 20010000090a0b0c0000fbfff7fffffe",
    );
    let expected = octets(
        "0000effff6fffffe 6000000000003bff 20010000010203040000effff6fffffe \
         20010000090a0b0c0000fbfff7fffffe",
    );
    assert_eq!(
        world.receives(CLIENT, &bubble),
        datagram(Primary, OTHER, expected)
    );
    assert_eq!(world.served(Service::BubbleForwarded), 1);
}

#[test]
fn s09_v13_a_bubble_of_a_relay_from_a_link_local_address() {
    let mut world = World::with(|config| {
        config.primary = [65, 55, 158, 80].into();
        config.secondary = [65, 55, 158, 81].into();
    });
    let expected = octets(
        "00007f7bac55fed9 6000000000003b00 fe80000000000000708dfe834114a512 \
         2001000041379e508000f12ab9c82815",
    );
    // Hop limit zero is as good as any (W-13).
    assert_eq!(
        world.receives("83.170.1.38:32900", &expected[8..]),
        datagram(Primary, "70.55.215.234:3797", expected)
    );
}

#[test]
fn s09_a_bubble_of_a_relay_from_a_native_address() {
    let mut world = World::new();
    for source in [
        "2000::b",
        "2001:db8::1",
        "fd00::1",
        "2002:808:808::1",
        "64:ff9b::1",
    ] {
        let bubble = bubble(&address(source), &teredo(CLIENT));
        let expected = datagram(Primary, CLIENT, with_origin(RELAY, &bubble));
        assert_eq!(world.receives(RELAY, &bubble), expected, "{source}");
    }
}

#[test]
fn s14_the_flags_of_an_address_do_not_matter() {
    let mut world = World::new();
    for flags in [0x8000, 0x4000, 0x3cff, 0x0300, 0xffff] {
        let fields = TeredoAddress {
            prefix: ServicePrefix::STANDARD,
            server: PRIMARY.parse().unwrap(),
            flags,
            mapped: endpoint(OTHER),
        };
        let bubble = bubble(&teredo(CLIENT), &fields.encode().octets());
        let expected = datagram(Primary, OTHER, with_origin(CLIENT, &bubble));
        assert_eq!(world.receives(CLIENT, &bubble), expected);
    }
}

#[test]
fn s14_l02_l05_where_nothing_is_sent() {
    let mut world = World::with(|config| {
        config.own_ipv4 = vec!["7.7.7.7".parse().unwrap()];
        config.relay = Some(endpoint("7.7.7.8:3545"));
    });
    for mapped in [
        "1.2.3.4:3544",
        "1.2.3.4:9",
        "1.2.3.5:3544",
        "7.7.7.7:5000",
        "7.7.7.8:3545",
        "8.0.0.1:0",
        "0.0.0.0:1",
        "10.0.0.1:1",
        "127.0.0.1:1",
        "192.168.0.1:1",
        "224.0.0.253:1",
        "255.255.255.255:1",
        "192.0.2.45:40000",
    ] {
        let from_client = bubble(&teredo(CLIENT), &teredo(mapped));
        world.drops(DropReason::DestinationMapping, CLIENT, &from_client);
        let from_relay = bubble(&address("fe80::1"), &teredo(mapped));
        world.drops(DropReason::DestinationMapping, RELAY, &from_relay);
    }
}

#[test]
fn s15_clients_of_other_servers_only_if_told_to_and_without_origin() {
    let foreign = teredo_of(ServicePrefix::STANDARD, "9.9.9.9", OTHER);
    let outgoing = bubble(&teredo(CLIENT), &foreign);
    let mut world = World::new();
    world.drops(DropReason::DestinationForeign, CLIENT, &outgoing);
    let mut world = World::with(|config| config.forward_foreign = true);
    let expected = datagram(Primary, OTHER, outgoing.clone());
    assert_eq!(world.receives(CLIENT, &outgoing), expected);
    // A client of another server that speaks to one of this server is welcome.
    let incoming = bubble(&foreign, &teredo(CLIENT));
    let expected = datagram(Primary, CLIENT, with_origin(OTHER, &incoming));
    assert_eq!(World::new().receives(OTHER, &incoming), expected);
}

#[test]
fn s16_v19_trailers_are_copied_verbatim() {
    let mut world = World::new();
    for trailers in [
        "0104deadbeef 050204b1",
        "030e0000 c0a801020ed5 0a00000204d2",
        // Not the server's to judge.
        "4100",
        "8102aaaa",
        "0104dead",
        "05",
    ] {
        let mut payload = bubble(&teredo(CLIENT), &teredo(OTHER));
        payload.extend(octets(trailers));
        let expected = datagram(Primary, OTHER, with_origin(CLIENT, &payload));
        assert_eq!(world.receives(CLIENT, &payload), expected);
    }
}

#[test]
fn s16_trailers_have_an_end() {
    let mut world = World::new();
    let bubble = bubble(&teredo(CLIENT), &teredo(OTHER));
    let longest = [&bubble[..], &[0xaa; 128]].concat();
    let expected = datagram(Primary, OTHER, with_origin(CLIENT, &longest));
    assert_eq!(world.receives(CLIENT, &longest), expected);
    let longer = [&bubble[..], &[0xaa; 129]].concat();
    world.drops(DropReason::Trailers, CLIENT, &longer);
}

#[test]
fn s11_an_echo_request_to_the_server_is_answered() {
    let mut world = World::new();
    for destination in [own_link_local(), address("ff02::2")] {
        let request = echo(&teredo(CLIENT), &destination);
        let reply = icmpv6(
            ECHO_REPLY,
            64,
            &own_link_local(),
            &teredo(CLIENT),
            &request[44..],
        );
        assert_eq!(
            world.receives(CLIENT, &request),
            datagram(Primary, CLIENT, reply)
        );
    }
    assert_eq!(world.served(Service::EchoAnswered), 2);
}

#[test]
fn s11_nothing_else_is_for_the_server() {
    let mut world = World::new();
    for destination in [own_link_local(), address("ff02::2")] {
        let client = teredo(CLIENT);
        world.drops(DropReason::Local, CLIENT, &bubble(&client, &destination));
        let reply = icmpv6(ECHO_REPLY, 64, &client, &destination, &[0; 8]);
        world.drops(DropReason::Local, CLIENT, &reply);
        let mut damaged = echo(&client, &destination);
        damaged[50] ^= 1;
        world.drops(DropReason::Local, CLIENT, &damaged);
    }
}

#[test]
fn s12_nothing_goes_to_addresses_that_are_not_global() {
    let mut world = World::new();
    for destination in [
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "::",
        "::1",
        "fc00::1",
        "fd12::1",
        "::ffff:8.8.8.8",
        "::8.8.8.8",
    ] {
        let (source, destination) = (teredo(CLIENT), address(destination));
        world.drops(
            DropReason::DestinationScope,
            CLIENT,
            &echo(&source, &destination),
        );
        world.drops(
            DropReason::DestinationScope,
            CLIENT,
            &bubble(&source, &destination),
        );
    }
}

#[test]
fn s13_v14_a_connectivity_test_leaves_for_native_ipv6() {
    let mut world = World::new();
    let test = octets(
        "60000000000c3a15 2001000041379e508000f12ab9c82815 20014860000020010000000000000068 \
         8000c57cd373b69b53aa0126",
    );
    let mut expected = test.clone();
    expected[7] = 20;
    // Clients of other servers may ask, too; trailers end here.
    let payload = [&test[..], &[1, 4, 1, 2, 3, 4]].concat();
    let sent = world.receives("70.55.215.234:3797", &payload);
    assert_eq!(sent, Some((Output::Native, expected)));
    assert_eq!(world.served(Service::EchoNative), 1);
}

#[test]
fn s13_hop_limits_end() {
    let mut world = World::new();
    for hop_limit in [0, 1] {
        let test = icmpv6(
            ECHO_REQUEST,
            hop_limit,
            &teredo(CLIENT),
            &address(HOST),
            &[0; 8],
        );
        world.drops(DropReason::HopLimit, CLIENT, &test);
    }
    let test = icmpv6(ECHO_REQUEST, 2, &teredo(CLIENT), &address(HOST), &[0; 8]);
    let (_, sent) = world.receives(CLIENT, &test).unwrap();
    assert_eq!(sent[7], 1);
}

#[test]
fn s13_nothing_but_tests_leaves_for_native_ipv6() {
    let mut world = World::new();
    let (client, host) = (teredo(CLIENT), address(HOST));
    let reply = icmpv6(ECHO_REPLY, 64, &client, &host, &[0; 8]);
    world.drops(DropReason::NotEcho, CLIENT, &bubble(&client, &host));
    world.drops(DropReason::NotEcho, CLIENT, &reply);
    world.drops(
        DropReason::Protocol,
        CLIENT,
        &ipv6(UDP, 64, &client, &host, &[0; 20]),
    );

    let mut world = World::with(|config| {
        config.forward_echo = false;
        config.forward_echo_reply = true;
    });
    world.drops(DropReason::NotEcho, CLIENT, &echo(&client, &host));
    assert!(matches!(
        world.receives(CLIENT, &reply),
        Some((Output::Native, _))
    ));
}

#[test]
fn s13_an_address_of_another_teredo_service_is_not_native() {
    let mut world = World::new();
    let draft = address("3ffe:831f:102:304::1");
    world.drops(
        DropReason::DestinationScope,
        CLIENT,
        &echo(&teredo(CLIENT), &draft),
    );
}

/// Only clients that are where their address says have their packets sent out.
#[test]
fn s13_not_from_native_sources() {
    let mut world = World::new();
    let test = echo(&address("2001:db8::1"), &address(HOST));
    world.drops(DropReason::NoClient, CLIENT, &test);
    let test = echo(&teredo(OTHER), &address(HOST));
    world.drops(DropReason::SourceMapping, CLIENT, &test);
}

#[test]
fn s25_only_with_a_way_to_native_ipv6() {
    let mut world = World::new();
    let test = echo(&teredo(CLIENT), &address(HOST));
    assert!(world.receives(CLIENT, &test).is_some());
    world.server.set_native_reachable(false);
    world.drops(DropReason::NoRoute, CLIENT, &test);
    world.server.set_native_reachable(true);
    assert!(world.receives(CLIENT, &test).is_some());
}

#[test]
fn s25_not_until_the_node_says_so() {
    let config = Config::new(PRIMARY.parse().unwrap(), SECONDARY.parse().unwrap());
    let now = Instant::from_nanos(1);
    let mut server = Server::new(config, Buckets::new());
    let test = echo(&teredo(CLIENT), &address(HOST));
    let sent = server.handle_datagram(now, Primary, endpoint(CLIENT), &test);
    assert_eq!(sent, None);
    assert_eq!(server.statistics().dropped[DropReason::NoRoute], 1);
}

#[test]
fn l07_nothing_goes_where_it_would_come_back_from() {
    let mut world = World::with(|config| config.own_ipv4 = vec!["7.7.7.7".parse().unwrap()]);
    for own in [
        "2002:102:304::1",
        "2002:102:305::1",
        "2002:707:707::1",
        "2001:db8::5efe:102:304",
    ] {
        let own = address(own);
        world.drops(
            DropReason::DestinationLoop,
            CLIENT,
            &echo(&teredo(CLIENT), &own),
        );
        world.drops(
            DropReason::SourceLoop,
            RELAY,
            &bubble(&own, &teredo(CLIENT)),
        );
    }
    let isatap = address("fe80::200:5efe:102:304");
    world.drops(
        DropReason::SourceLoop,
        RELAY,
        &bubble(&isatap, &teredo(CLIENT)),
    );
    let other = address("2002:808:808::1");
    assert!(
        world
            .receives(CLIENT, &echo(&teredo(CLIENT), &other))
            .is_some()
    );
}

/// The draft's relays push echo replies through the client's server.
#[test]
fn s14_echo_to_a_client_is_forwarded_without_trailers() {
    let mut world = World::new();
    for (source, from) in [(address(HOST), RELAY), (teredo(CLIENT), CLIENT)] {
        for kind in [ECHO_REQUEST, ECHO_REPLY] {
            let echo = icmpv6(kind, 1, &source, &teredo(OTHER), &[0; 8]);
            let payload = [&echo[..], &[1, 4, 1, 2, 3, 4]].concat();
            let expected = datagram(Primary, OTHER, with_origin(from, &echo));
            assert_eq!(world.receives(from, &payload), expected);
        }
    }
    assert_eq!(world.served(Service::EchoForwarded), 4);
}

#[test]
fn s30_bubbles_of_the_relay_in_the_same_process() {
    let mut world = World::with(|config| config.relay = Some(endpoint(RELAY)));
    let cookie = address("fe80::1234:5678:9abc:def0");
    let indirect = bubble(&cookie, &teredo(CLIENT));
    let expected = datagram(Primary, CLIENT, with_origin(RELAY, &indirect));
    assert_eq!(world.relay_sends(&indirect), expected);
    assert_eq!(world.served(Service::RelayBubbleForwarded), 1);
    // On the wire the same bubble would be one from this host (L-01).
    world.drops(DropReason::OwnSource, RELAY, &indirect);

    let foreign = teredo_of(ServicePrefix::STANDARD, "9.9.9.9", CLIENT);
    let cases = [
        (bubble(&cookie, &foreign), DropReason::NoClient),
        (bubble(&cookie, &address(HOST)), DropReason::NoClient),
        (
            bubble(&cookie, &teredo("10.0.0.1:1")),
            DropReason::DestinationMapping,
        ),
        (echo(&cookie, &teredo(CLIENT)), DropReason::Protocol),
        (vec![0x60], DropReason::Malformed),
    ];
    for (refused, reason) in cases {
        let before = world.dropped(reason);
        assert_eq!(world.relay_sends(&refused), None);
        assert_eq!(world.dropped(reason), before + 1, "{reason:?}");
    }
    assert_eq!(world.relay_sends(&indirect), expected, "it lives");
}
