//! Router solicitations and what they are answered with.

use teredo_common::address::{ServicePrefix, server_link_local};

use super::harness::*;
use crate::{
    ServerAddress,
    server::{DropReason, Service},
    testing::octets,
    wire::encapsulation,
};

const V11: &str = "00010000cd5669400b22df8800 6000000000183aff fe800000000000008000fffffffffffd \
    ff020000000000000000000000000002 8500a91d00000000 01020000000000008000f12ab9c82815";
const V12: &str = "00010000cd5669400b22df8800 0000f12ab9c82815 6000000000303aff \
    fe800000000000008000f227bec861af fe800000000000008000fffffffffffd \
    86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
    2001000041379e500000000000000000";
const V16: &str = "6000000000383aff fe800000000000008000f227fefdfcfb \
    fe800000000000000000ffffffffffff \
    8600954c 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
    20010000010203040000000000000000 0501000000000500";

/// The server of the capture.
fn captured() -> World {
    World::with(|config| {
        config.primary = [65, 55, 158, 80].into();
        config.secondary = [65, 55, 158, 81].into();
        config.mtu = None;
    })
}

#[test]
fn v11_is_answered_with_v12_from_the_other_address() {
    let mut world = captured();
    let sent = world.receives("70.55.215.234:3797", &octets(V11));
    assert_eq!(sent, datagram(Secondary, "70.55.215.234:3797", octets(V12)));
    // Whichever address it came to.
    let sent = world.arrives(Secondary, "70.55.215.234:3797", &octets(V11));
    assert_eq!(sent, datagram(Primary, "70.55.215.234:3797", octets(V12)));
}

#[test]
fn s17_v15_is_answered_with_v16_and_the_origin_indication() {
    let mut world = World::new();
    let expected = [octets("0000effff6fffffe"), octets(V16)].concat();
    assert_eq!(
        solicitation(SOLICITOR),
        octets(
            "6000000000083aff fe800000000000000000ffffffffffff ff020000000000000000000000000002 \
         85007d3700000000"
        )
    );
    for to in [Primary, Secondary] {
        let sent = world.arrives(to, CLIENT, &solicitation(SOLICITOR));
        assert_eq!(sent, datagram(to, CLIENT, expected.clone()));
    }
    assert_eq!(world.served(Service::Advertised), 2);
}

/// Prefix and link-local address are those of the primary address, whichever was asked.
#[test]
fn s17_the_advertisement_is_that_of_the_primary_address() {
    let mut world = World::new();
    for (to, source) in [
        (Primary, SOLICITOR),
        (Secondary, SOLICITOR),
        (Primary, CONE_SOLICITOR),
        (Secondary, CONE_SOLICITOR),
    ] {
        let (_, payload) = world.arrives(to, CLIENT, &solicitation(source)).unwrap();
        let packet = encapsulation::parse(&payload).unwrap().packet;
        let link_local = server_link_local(PRIMARY.parse().unwrap(), 3544);
        assert_eq!(packet[8..24], link_local.octets());
        assert_eq!(packet[24..40], address(source));
        assert_eq!(packet[72..80], octets("2001000001020304"));
    }
}

#[test]
fn s01_s18_the_cone_bit_asks_for_the_other_address() {
    let mut world = World::new();
    let mut leaves_from = |to, source| {
        let sent = world.arrives(to, CLIENT, &solicitation(source));
        let Some((Output::Datagram { from, to }, _)) = sent else {
            panic!("no answer")
        };
        assert_eq!(to, endpoint(CLIENT));
        from
    };
    let expected: [(ServerAddress, &str, ServerAddress); 8] = [
        (Primary, SOLICITOR, Primary),
        (Secondary, SOLICITOR, Secondary),
        (Primary, CONE_SOLICITOR, Secondary),
        (Secondary, CONE_SOLICITOR, Primary),
        (Primary, "fe80::5445:5245:444f", Primary),
        (Primary, "fe80::8000:5445:5245:444f", Secondary),
        // The other flags do not matter.
        (Primary, "fe80::7fff:1:2:3", Primary),
        (Primary, "fe80::ffff:1:2:3", Secondary),
    ];
    for (to, source, from) in expected {
        assert_eq!(leaves_from(to, source), from, "{source}");
    }
}

#[test]
fn s19_authentication_comes_first_and_only_if_it_was_there() {
    let mut world = World::new();
    let origin = endpoint(CLIENT).origin_indication();
    let (_, plain) = world.receives(CLIENT, &solicitation(SOLICITOR)).unwrap();
    assert!(plain.starts_with(&origin));
    let payload = with_nonce(&solicitation(SOLICITOR));
    let (_, with_nonce) = world.receives(CLIENT, &payload).unwrap();
    assert_eq!(with_nonce, [&payload[..13], &plain].concat());
}

#[test]
fn s07_s20_the_answer_goes_to_the_source_octet_for_octet() {
    let mut world = World::new();
    for source in ["fe80::1", "fe80::1:2:3:4", "febf:1:2:3:4:5:6:7"] {
        let (_, payload) = world.receives("9.9.9.9:1", &solicitation(source)).unwrap();
        let parts = encapsulation::parse(&payload).unwrap();
        assert_eq!(parts.origin, Some(endpoint("9.9.9.9:1")));
        assert_eq!(parts.packet[24..40], address(source));
    }
}

#[test]
fn s07_only_from_link_local_addresses_to_all_routers() {
    let mut world = World::new();
    let (own, link_local) = (teredo(CLIENT), address(SOLICITOR));
    let server = server_link_local(PRIMARY.parse().unwrap(), 3544).octets();
    let all_routers = address("ff02::2");
    for (source, destination) in [
        (own, all_routers),
        (own, server),
        (own, teredo(OTHER)),
        (address("2001:db8::1"), all_routers),
        (address("::"), all_routers),
        (link_local, server),
        (link_local, address("ff02::1")),
        (link_local, teredo(OTHER)),
    ] {
        let packet = icmpv6(133, 255, &source, &destination, &[0; 4]);
        world.drops(DropReason::SolicitationAddress, CLIENT, &packet);
    }
}

#[test]
fn s21_invalid_solicitations_are_dropped() {
    let mut world = World::new();
    let valid = solicitation(SOLICITOR);
    for (at, value) in [(7, 254), (41, 1), (43, 0x38), (47, 1)] {
        let mut changed = valid.clone();
        changed[at] = value;
        world.drops(DropReason::SolicitationInvalid, CLIENT, &changed);
    }
    let source = address(SOLICITOR);
    let options = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let packet = icmpv6(133, 255, &source, &address("ff02::2"), &options);
    world.drops(DropReason::SolicitationInvalid, CLIENT, &packet);
}

/// Trailers say nothing to a server, and are not sent back.
#[test]
fn s16_trailers_of_a_solicitation_are_ignored() {
    let mut world = World::new();
    let plain = world.receives(CLIENT, &solicitation(SOLICITOR));
    let payload = [&solicitation(SOLICITOR)[..], &[1, 4, 1, 2, 3, 4]].concat();
    assert_eq!(world.receives(CLIENT, &payload), plain);
}

#[test]
fn the_first_prefix_is_advertised_and_all_are_served() {
    let mut world = World::with(|config| {
        config.prefixes = vec![ServicePrefix::DRAFT, ServicePrefix::STANDARD];
    });
    let (_, payload) = world.receives(CLIENT, &solicitation(SOLICITOR)).unwrap();
    assert_eq!(payload[8 + 72..8 + 80], octets("3ffe831f01020304"));
    for prefix in [ServicePrefix::DRAFT, ServicePrefix::STANDARD] {
        let (client, other) = (
            teredo_of(prefix, PRIMARY, CLIENT),
            teredo_of(prefix, PRIMARY, OTHER),
        );
        assert!(world.receives(CLIENT, &bubble(&client, &other)).is_some());
    }
}

#[test]
fn the_mtu_option_says_what_is_configured() {
    let mut world = World::with(|config| config.mtu = Some(1400));
    let (_, payload) = world.receives(CLIENT, &solicitation(SOLICITOR)).unwrap();
    assert_eq!(payload.len(), 104);
    assert!(payload.ends_with(&octets("0501000000000578")));
    let mut world = World::with(|config| config.mtu = None);
    let (_, payload) = world.receives(CLIENT, &solicitation(SOLICITOR)).unwrap();
    assert_eq!(payload.len(), 96);
}
