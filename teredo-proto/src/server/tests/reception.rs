//! What is accepted and what is not.

use teredo_common::{
    address::{CONE_FLAG, server_link_local},
    scope::Ipv4Scope,
    wire::{DESTINATION_OPTIONS, ECHO_REPLY, ECHO_REQUEST, HOP_BY_HOP, NO_NEXT_HEADER, TCP, UDP},
};

use super::harness::*;
use crate::{server::DropReason, testing::octets};

/// A bubble that is accepted from [`CLIENT`].
fn accepted() -> Vec<u8> {
    bubble(&teredo(CLIENT), &teredo(OTHER))
}

#[test]
fn s04_what_is_not_well_formed() {
    let mut world = World::new();
    let bubble = accepted();
    for length in 0..bubble.len() {
        world.drops(DropReason::Malformed, CLIENT, &bubble[..length]);
    }
    let changed = |at: usize, value| {
        let mut changed = bubble.clone();
        changed[at] = value;
        changed
    };
    world.drops(DropReason::Malformed, CLIENT, &changed(0, 0x40));
    world.drops(DropReason::Malformed, CLIENT, &changed(5, 1));
    world.drops(DropReason::Malformed, CLIENT, &changed(6, HOP_BY_HOP));
    let solicitation = solicitation(SOLICITOR);
    for head in [
        "0002",
        "0000effff6fffffe 00010000 0123456789abcdef 00",
        "00010000 0123456789abcdef 00 00010000 0123456789abcdef 00",
        "0000effff6fffffe 0000effff6fffffe",
        "0001ffff",
    ] {
        let payload = [&octets(head)[..], &solicitation].concat();
        world.drops(DropReason::Malformed, CLIENT, &payload);
    }
}

#[test]
fn s05_neither_bubble_nor_icmpv6() {
    let mut world = World::new();
    let (source, destination) = (teredo(CLIENT), teredo(OTHER));
    for next_header in [UDP, TCP, NO_NEXT_HEADER, DESTINATION_OPTIONS, 43, 44, 50] {
        let packet = ipv6(next_header, 64, &source, &destination, &[0; 16]);
        world.drops(DropReason::Protocol, CLIENT, &packet);
    }
    // ICMPv6 behind an extension header is not ICMPv6 to a server.
    let message = echo(&source, &destination)[40..].to_vec();
    let payload = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &message].concat();
    let packet = ipv6(DESTINATION_OPTIONS, 64, &source, &destination, &payload);
    world.drops(DropReason::Protocol, CLIENT, &packet);
}

#[test]
fn s05_dec7_other_icmpv6_is_dropped() {
    let mut world = World::new();
    for kind in [1, 2, 3, 4, 130, 131, 132, 134, 135, 136, 137, 143] {
        for destination in [teredo(OTHER), address(HOST), address("ff02::2")] {
            let packet = icmpv6(kind, 255, &teredo(CLIENT), &destination, &[0; 20]);
            world.drops(DropReason::Icmpv6Type, CLIENT, &packet);
        }
    }
    for kind in [ECHO_REQUEST, ECHO_REPLY] {
        let short = icmpv6(kind, 64, &teredo(CLIENT), &address(HOST), &[0; 3]);
        world.drops(DropReason::Icmpv6Type, CLIENT, &short);
    }
    let empty = ipv6(58, 64, &teredo(CLIENT), &address(HOST), &[]);
    world.drops(DropReason::Icmpv6Type, CLIENT, &empty);
}

#[test]
fn s05_dec20_icmpv6_has_an_end() {
    let echo = |octets: usize| {
        icmpv6(
            ECHO_REQUEST,
            64,
            &teredo(CLIENT),
            &address(HOST),
            &vec![0; octets - 4],
        )
    };
    let mut world = World::new();
    assert!(world.receives(CLIENT, &echo(88)).is_some());
    world.drops(DropReason::Icmpv6Size, CLIENT, &echo(89));
    let mut world = World::with(|config| config.icmpv6_payload = 1000);
    assert!(world.receives(CLIENT, &echo(1000)).is_some());
    world.drops(DropReason::Icmpv6Size, CLIENT, &echo(1001));
}

#[test]
fn s06_v25_outer_sources_are_global_unicast() {
    let mut strict = World::new();
    let mut rfc4380 = World::with(|config| config.ipv4_scope = Ipv4Scope::Rfc4380);
    let both = [
        "9.0.0.1",
        "11.0.0.0",
        "100.63.255.255",
        "126.255.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.88.98.255",
        "192.169.0.0",
        "223.255.255.255",
    ];
    let neither = [
        "0.1.2.3",
        "10.255.255.255",
        "127.0.0.1",
        "169.254.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.88.99.1",
        "224.0.0.253",
        "255.255.255.255",
    ];
    let rfc4380_alone = [
        "100.64.0.0",
        "192.0.0.8",
        "192.0.2.45",
        "198.18.0.1",
        "198.51.100.118",
        "203.0.113.120",
        "240.0.0.1",
    ];
    let solicitation = solicitation(SOLICITOR);
    for from in both {
        let from = format!("{from}:4096");
        assert!(strict.receives(&from, &solicitation).is_some(), "{from}");
        assert!(rfc4380.receives(&from, &solicitation).is_some(), "{from}");
    }
    for from in neither {
        let from = format!("{from}:4096");
        strict.drops(DropReason::SourceScope, &from, &solicitation);
        rfc4380.drops(DropReason::SourceScope, &from, &solicitation);
        // Bubbles are no better.
        let bubble = bubble(&teredo(&from), &teredo(OTHER));
        strict.drops(DropReason::SourceScope, &from, &bubble);
    }
    for from in rfc4380_alone {
        let from = format!("{from}:4096");
        strict.drops(DropReason::SourceScope, &from, &solicitation);
        assert!(rfc4380.receives(&from, &solicitation).is_some(), "{from}");
    }
    strict.drops(DropReason::SourceScope, "9.0.0.1:0", &solicitation);
}

#[test]
fn s08_clients_are_where_their_address_says() {
    let mut world = World::new();
    assert!(world.receives(CLIENT, &accepted()).is_some());
    for from in ["9.0.0.1:4097", "9.0.0.2:4096", "8.0.0.1:1024"] {
        world.drops(DropReason::SourceMapping, from, &accepted());
        let test = echo(&teredo(CLIENT), &address(HOST));
        world.drops(DropReason::SourceMapping, from, &test);
        let ping = echo(&teredo(CLIENT), &address("ff02::2"));
        world.drops(DropReason::SourceMapping, from, &ping);
    }
}

/// The flags do not matter, and neither does the server that the source names.
#[test]
fn s08_only_the_mapping_counts() {
    let mut world = World::new();
    let mut source = teredo_of(
        teredo_common::address::ServicePrefix::STANDARD,
        "9.9.9.9",
        CLIENT,
    );
    source[8..10].copy_from_slice(&CONE_FLAG.to_be_bytes());
    assert!(
        world
            .receives(CLIENT, &bubble(&source, &teredo(OTHER)))
            .is_some()
    );
}

#[test]
fn s09_sources_that_no_packet_can_have() {
    let mut world = World::new();
    for source in [
        "::",
        "::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:9.0.0.1",
        "::9.0.0.1",
    ] {
        let bubble = bubble(&address(source), &teredo(CLIENT));
        world.drops(DropReason::Source, RELAY, &bubble);
    }
}

#[test]
fn s10_l13_everything_else_is_dropped_in_silence() {
    let mut world = World::new();
    let foreign = teredo_of(
        teredo_common::address::ServicePrefix::STANDARD,
        "9.9.9.9",
        CLIENT,
    );
    let draft = teredo_of(
        teredo_common::address::ServicePrefix::DRAFT,
        PRIMARY,
        CLIENT,
    );
    for source in ["fe80::1", "2001:db8::1"] {
        let source = address(source);
        for destination in [
            address(HOST),
            address("ff02::1"),
            address("ff02::2"),
            server_link_local(PRIMARY.parse().unwrap(), 3544).octets(),
            foreign,
            draft,
        ] {
            world.drops(DropReason::NoClient, RELAY, &bubble(&source, &destination));
            world.drops(DropReason::NoClient, RELAY, &echo(&source, &destination));
        }
    }
}

#[test]
fn s22_the_secondary_address_takes_solicitations_alone() {
    let mut world = World::new();
    assert!(
        world
            .arrives(Secondary, CLIENT, &solicitation(SOLICITOR))
            .is_some()
    );
    let (client, host) = (teredo(CLIENT), address(HOST));
    for payload in [
        accepted(),
        echo(&client, &host),
        echo(&client, &address("ff02::2")),
        bubble(&address("fe80::1"), &client),
    ] {
        assert!(world.receives(CLIENT, &payload).is_some());
        world.drops_at(Secondary, DropReason::SecondaryAddress, CLIENT, &payload);
    }
}

#[test]
fn s24_access_lists() {
    let mut world = World::with(|config| {
        config.allow = [
            "9.0.0.0/8",
            "9.1.0.0/16",
            "12.0.0.0/31",
            "12.0.0.9/32",
            "13.0.0.0/8",
        ]
        .map(|network| network.parse().unwrap())
        .into();
    });
    let solicitation = solicitation(SOLICITOR);
    for from in [
        "9.0.0.0:1",
        "9.255.255.255:1",
        "9.1.2.3:1",
        "12.0.0.1:1",
        "13.9.9.9:1",
    ] {
        assert!(world.receives(from, &solicitation).is_some(), "{from}");
    }
    for from in [
        "8.255.255.255:1",
        "10.0.0.0:1",
        "12.0.0.2:1",
        "14.0.0.0:1",
        "223.0.0.1:1",
    ] {
        world.drops(DropReason::AccessList, from, &solicitation);
        world.drops(
            DropReason::AccessList,
            from,
            &bubble(&teredo(from), &teredo(OTHER)),
        );
    }
}

#[test]
fn l01_nothing_from_this_host() {
    let mut world = World::with(|config| {
        config.own_ipv4 = vec!["7.7.7.7".parse().unwrap()];
        config.relay = Some(endpoint("7.7.7.8:3545"));
    });
    let own = [
        "1.2.3.4:3544",
        "1.2.3.5:3544",
        "1.2.3.4:5000",
        "7.7.7.7:3544",
        "7.7.7.8:3545",
    ];
    for from in own {
        world.drops(DropReason::OwnSource, from, &solicitation(SOLICITOR));
        world.drops(
            DropReason::OwnSource,
            from,
            &bubble(&teredo(from), &teredo(OTHER)),
        );
    }
    assert!(
        world
            .receives("7.7.7.9:1", &solicitation(SOLICITOR))
            .is_some()
    );
    world
        .server
        .set_own_addresses(&["7.7.7.9".parse().unwrap()]);
    world.drops(DropReason::OwnSource, "7.7.7.9:1", &solicitation(SOLICITOR));
    for from in ["1.2.3.4:3544", "1.2.3.5:3544", "7.7.7.8:3545"] {
        world.drops(DropReason::OwnSource, from, &solicitation(SOLICITOR));
    }
    assert!(
        world
            .receives("7.7.7.7:1", &solicitation(SOLICITOR))
            .is_some()
    );
}

#[test]
fn l02_v23_the_loop_is_not_entered() {
    let mut world = World::new();
    let packet = octets(
        "6000000000003bff 20010000010203040000f227fefdfcfb 20010000010203040000f227fefdfcfb",
    );
    world.drops(DropReason::OwnSource, "1.2.3.4:3544", &packet);
    // With another source address, and from outside, it still does not come back.
    let bubble = bubble(&teredo(CLIENT), &teredo("1.2.3.4:3544"));
    world.drops(DropReason::DestinationMapping, CLIENT, &bubble);
}

#[test]
fn l03_elements_that_nobody_sends_to_a_server() {
    let mut world = World::new();
    let origin = octets("0000effff6fffffe");
    let solicitation = solicitation(SOLICITOR);
    world.drops(
        DropReason::Element,
        CLIENT,
        &[&origin[..], &accepted()].concat(),
    );
    world.drops(
        DropReason::Element,
        CLIENT,
        &[&origin[..], &solicitation].concat(),
    );
    world.drops(DropReason::Element, CLIENT, &with_nonce(&accepted()));
    world.drops(
        DropReason::Element,
        CLIENT,
        &with_nonce(&echo(&teredo(CLIENT), &address(HOST))),
    );
    assert!(world.receives(CLIENT, &with_nonce(&solicitation)).is_some());
}

#[test]
fn l04_source_and_destination_differ() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    world.drops(DropReason::SameAddresses, CLIENT, &bubble(&client, &client));
    world.drops(DropReason::SameAddresses, CLIENT, &echo(&client, &client));
    // Two addresses of one client are two.
    let mut other = client;
    other[9] = 1;
    assert!(world.receives(CLIENT, &bubble(&client, &other)).is_some());
}

/// Each packet has the fault of its row and those of all rows below it.
#[test]
fn s03_the_order_of_the_checks() {
    let mut world = World::with(|config| {
        config.allow = vec!["9.0.0.0/8".parse().unwrap(), "12.0.0.0/7".parse().unwrap()];
    });
    let client = teredo(CLIENT);
    let private = "10.0.0.1:1";
    let udp = ipv6(UDP, 64, &client, &client, &[0; 8]);
    let bubble = bubble(&teredo(OTHER), &teredo("10.0.0.1:1"));
    world.drops(
        DropReason::Malformed,
        "1.2.3.4:3544",
        &with_nonce(&udp)[..40],
    );
    world.drops(DropReason::OwnSource, "1.2.3.4:3544", &with_nonce(&udp));
    world.drops(DropReason::Element, private, &with_nonce(&udp));
    world.drops(DropReason::SameAddresses, private, &udp);
    world.drops(
        DropReason::AccessList,
        private,
        &ipv6(UDP, 64, &client, &teredo(OTHER), &[0]),
    );
    let mut world = World::new();
    world.drops_at(
        Secondary,
        DropReason::Protocol,
        private,
        &ipv6(UDP, 64, &client, &teredo(OTHER), &[0; 8]),
    );
    world.drops_at(Secondary, DropReason::SourceScope, private, &bubble);
    world.drops_at(Secondary, DropReason::SecondaryAddress, CLIENT, &bubble);
    world.drops(DropReason::SourceMapping, CLIENT, &bubble);
    world.drops(DropReason::DestinationMapping, OTHER, &bubble);
}
