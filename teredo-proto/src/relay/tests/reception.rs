//! W-06, and the loop rules that concern packets from clients.

use std::time::Duration;

use super::harness::*;
use crate::{
    relay::{Bubble, DropReason},
    testing::octets,
};
use teredo_common::{
    address::ServicePrefix,
    prefixes::TeredoPrefixes,
    wire::{DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING, UDP},
};

/// A packet that must be dropped for this reason.
fn dropped(world: &mut World, from: &str, payload: &[u8], reason: DropReason) {
    let before = world.dropped(reason);
    assert_eq!(world.client_sends(from, payload), None);
    assert_eq!(world.dropped(reason), before + 1, "{reason:?}");
    assert!(
        world.sent.is_empty() && world.own_packets.is_empty(),
        "L-13: silently"
    );
}

#[test]
fn v22_a_packet_of_a_peer_is_forwarded_as_it_came() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let request = octets(
        "6000000000103a40 20010000010203040000effff6fffffe 2000000000000000000000000000000b \
         800096f40007000170696e67706f6e67",
    );
    assert_eq!(request[8..24], client);
    assert_eq!(world.client_sends(CLIENT, &request), Some(request));
    assert_eq!(world.statistics().decapsulated.packets, 1);
    assert_eq!(world.statistics().decapsulated.octets, 56);
}

#[test]
fn w03_trailers_are_stripped() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let first = packet(&client, &address(HOST), 1);
    let with_trailer = [&first[..], &octets("0104deadbeef")].concat();
    assert_eq!(
        world.client_sends(CLIENT, &with_trailer),
        Some(first.clone())
    );
    let forbidden = [&first[..], &octets("4100")].concat();
    dropped(&mut world, CLIENT, &forbidden, DropReason::DecapTrailer);
}

#[test]
fn r20_the_source_must_be_a_teredo_address_of_the_service() {
    let mut world = World::new();
    for source in [
        "2001:db8::1",
        "fe80::1",
        "3ffe:831f:102:304:0:efff:f6ff:fffe",
    ] {
        let packet = packet(&address(source), &address(HOST), 1);
        dropped(&mut world, CLIENT, &packet, DropReason::DecapSource);
    }
}

#[test]
fn r20_the_outer_source_must_be_the_peer() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let spoofed = packet(&client, &address(HOST), 1);
    for from in ["9.0.0.1:4097", "9.0.0.2:4096"] {
        dropped(&mut world, from, &spoofed, DropReason::DecapMapping);
    }
    assert!(world.client_sends(CLIENT, &spoofed).is_some());
}

#[test]
fn p08_data_from_elsewhere_does_not_move_a_peer() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let moved = packet(&client, &address(HOST), 1);
    dropped(&mut world, "9.0.0.1:7777", &moved, DropReason::DecapMapping);
    let bubble = bubble(&client, &address(HOST));
    dropped(
        &mut world,
        "9.0.0.1:7777",
        &bubble,
        DropReason::DecapMapping,
    );
    world.native_sends(&packet(&address(HOST), &client, 1));
    assert_eq!(world.take_sent()[0].0, endpoint(CLIENT));
}

#[test]
fn r21_unsolicited_traffic_makes_no_peer() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    let reason = DropReason::DecapUnknownPeer;
    dropped(
        &mut world,
        CLIENT,
        &packet(&client, &address(HOST), 1),
        reason,
    );
    dropped(&mut world, CLIENT, &bubble(&client, &address(HOST)), reason);
    assert_eq!(world.relay.peers().count(), 0);
}

#[test]
fn r22_any_packet_of_the_peer_makes_it_trusted() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    let waiting = packet(&address(HOST), &client, 1);
    world.native_sends(&waiting);
    world.take_sent();
    let data = packet(&client, &address(HOST), 2);
    assert_eq!(world.client_sends(CLIENT, &data), Some(data));
    assert_eq!(world.take_data()[0], (endpoint(CLIENT), waiting));
    assert_eq!(world.take_events(), [], "its mapping is not proved");
    let info = world.relay.peers().next().unwrap();
    assert!(info.trusted && !info.symmetric);
    assert_eq!((info.last_received, info.queued), (world.now, 0));
}

#[test]
fn r22_even_one_that_is_not_forwarded() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    world.native_sends(&packet(&address(HOST), &client, 1));
    world.take_sent();
    assert_eq!(
        world.client_sends(CLIENT, &packet(&client, &address("ff02::1"), 1)),
        None
    );
    assert_eq!(world.take_sent().len(), 1);
    assert_eq!(world.statistics().trusted_peers, 1);
}

#[test]
fn r23_bubbles_are_never_forwarded() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let before = world.counted(Bubble::ReceivedDirect);
    assert_eq!(
        world.client_sends(CLIENT, &bubble(&client, &address(HOST))),
        None
    );
    assert_eq!(world.counted(Bubble::ReceivedDirect), before + 1);
    assert_eq!(world.statistics().decapsulated.packets, 0);
}

#[test]
fn r23_only_served_destinations() {
    let mut world = World::with(|config| config.served = vec!["2000::/16".parse().unwrap()]);
    let client = world.trust(CLIENT);
    let elsewhere = packet(&client, &address("2001:db8::9"), 1);
    dropped(&mut world, CLIENT, &elsewhere, DropReason::DecapDestination);
    assert!(
        world
            .client_sends(CLIENT, &packet(&client, &address(HOST), 1))
            .is_some()
    );
}

#[test]
fn r24_l10_no_destination_inside_teredo_or_without_global_scope() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let hairpin = packet(&client, &teredo("9.0.0.2:1"), 1);
    dropped(
        &mut world,
        CLIENT,
        &hairpin,
        DropReason::DecapDestinationTeredo,
    );
    for destination in [
        "ff02::1",
        "ff0e::1",
        "fe80::1",
        "::",
        "::1",
        "fd00::1",
        "::ffff:1.2.3.4",
    ] {
        let packet = packet(&client, &address(destination), 1);
        dropped(
            &mut world,
            CLIENT,
            &packet,
            DropReason::DecapDestinationScope,
        );
    }
}

#[test]
fn r24_l10_no_teredo_address_is_native_whichever_service_it_is_of() {
    let served: Vec<_> = [[0x2a, 1, 2, 3], [0x2a, 1, 2, 4]].map(ServicePrefix).into();
    let mut world = World::with(|config| config.teredo = TeredoPrefixes::new(served));
    let client = world.trust(CLIENT);
    for destination in ["3ffe:831f::1", "2001::1", "2a01:203::1", "2a01:204::1"] {
        let packet = packet(&client, &address(destination), 1);
        let reason = DropReason::DecapDestinationTeredo;
        dropped(&mut world, CLIENT, &packet, reason);
        // Nor may it send to a client.
        assert!(!world.native_sends(&ipv6(UDP, 64, &address(destination), &client, &[0; 9])));
    }
    assert_eq!(world.dropped(DropReason::EncapSource), 4);
    let near = packet(&client, &address("2a01:205::1"), 1);
    assert!(world.client_sends(CLIENT, &near).is_some());
}

#[test]
fn r24_the_standard_prefix_is_not_native_where_another_is_served() {
    let prefix = ServicePrefix([0x2a, 1, 2, 3]);
    let mut world = World::with(|config| config.prefix = prefix);
    let in_service = |prefix: ServicePrefix| {
        let mut address = teredo(CLIENT);
        address[..4].copy_from_slice(&prefix.0);
        address
    };
    let client = in_service(prefix);
    world.native_sends(&packet(&address(HOST), &client, 1));
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    world.take_sent();
    for other in [ServicePrefix::STANDARD, ServicePrefix::DRAFT] {
        let packet = packet(&client, &in_service(other), 1);
        let reason = DropReason::DecapDestinationTeredo;
        dropped(&mut world, CLIENT, &packet, reason);
    }
    assert!(
        world
            .client_sends(CLIENT, &packet(&client, &address(HOST), 1))
            .is_some()
    );
}

#[test]
fn r25_elements_that_only_servers_send_are_refused() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let first = packet(&client, &address(HOST), 1);
    for element in ["00010000cd5669400b22df8800", "0000effff6fffffe"] {
        let payload = [&octets(element)[..], &first].concat();
        dropped(&mut world, CLIENT, &payload, DropReason::DecapServerElement);
    }
}

#[test]
fn w01_w03_malformed_payloads_are_refused() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let first = packet(&client, &address(HOST), 1);
    for length in 0..first.len() {
        dropped(
            &mut world,
            CLIENT,
            &first[..length],
            DropReason::DecapMalformed,
        );
    }
    let jumbogram = ipv6(HOP_BY_HOP, 64, &client, &address(HOST), &[]);
    dropped(&mut world, CLIENT, &jumbogram, DropReason::DecapMalformed);
}

#[test]
fn w06_congestion_reaches_the_packet_or_drops_it() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let marked = |congestion: u8| {
        let mut packet = packet(&client, &address(HOST), 1);
        packet[1] = congestion << 4;
        packet
    };
    for (outer, inner, expected) in [
        (0, 0, Some(0)),
        (1, 0, Some(0)),
        (2, 1, Some(1)),
        (0, 3, Some(3)),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
        (3, 0, None),
    ] {
        let result = world.client_sends_marked(CLIENT, outer, &marked(inner));
        assert_eq!(result, expected.map(marked), "{outer} {inner}");
    }
    assert_eq!(world.dropped(DropReason::DecapCongestion), 1);
}

#[test]
fn l01_own_addresses_are_no_sources() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let first = packet(&client, &address(HOST), 1);
    for from in ["5.6.7.8:3545", "5.6.7.8:9"] {
        dropped(&mut world, from, &first, DropReason::DecapOwnSource);
    }
    world
        .relay
        .set_own_addresses(&["9.0.0.1".parse().unwrap()], &[]);
    dropped(&mut world, CLIENT, &first, DropReason::DecapOwnSource);
}

#[test]
fn l04_source_and_destination_differ() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let reason = DropReason::DecapSameAddresses;
    dropped(&mut world, CLIENT, &packet(&client, &client, 1), reason);
    dropped(&mut world, CLIENT, &bubble(&client, &client), reason);
}

#[test]
fn l05_outer_sources_are_global_unicast() {
    let mut world = World::new();
    for from in [
        "10.0.0.1:4096",
        "192.0.2.1:4096",
        "224.0.0.253:4096",
        "9.0.0.1:0",
    ] {
        let packet = packet(&teredo(from), &address(HOST), 1);
        dropped(&mut world, from, &packet, DropReason::DecapSourceScope);
    }
}

#[test]
fn l07_destinations_that_lead_back_are_refused() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    for destination in [
        "2002:506:708::1",
        "2001:db8::5efe:506:708",
        "2001:db8::200:5efe:506:708",
    ] {
        let packet = packet(&client, &address(destination), 1);
        dropped(
            &mut world,
            CLIENT,
            &packet,
            DropReason::DecapDestinationLoop,
        );
    }
    let other = packet(&client, &address("2002:506:709::1"), 1);
    assert!(world.client_sends(CLIENT, &other).is_some());
}

#[test]
fn l09_w13_bubbles_with_hop_limit_zero_count() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    world.native_sends(&packet(&address(HOST), &client, 1));
    let mut bubble = bubble(&client, &address(HOST));
    bubble[7] = 0;
    world.client_sends(CLIENT, &bubble);
    assert_eq!(world.statistics().trusted_peers, 1);
}

#[test]
fn l11_routing_headers_other_than_of_mobile_ipv6_are_refused() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let routed = |kind: u8| [UDP, 0, kind, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    let behind_options = [&[ROUTING, 0, 1, 4, 0, 0, 0, 0][..], &routed(0)].concat();
    let to = address(HOST);
    let reason = DropReason::DecapRoutingHeader;
    for kind in [0, 1, 3, 4, 253] {
        let packet = ipv6(ROUTING, 64, &client, &to, &routed(kind));
        dropped(&mut world, CLIENT, &packet, reason);
    }
    for first in [HOP_BY_HOP, DESTINATION_OPTIONS] {
        let packet = ipv6(first, 64, &client, &to, &behind_options);
        dropped(&mut world, CLIENT, &packet, reason);
    }
    // Authentication, Shim6 and others hide nothing.
    let behind_authentication =
        [&[ROUTING, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0][..], &routed(0)].concat();
    let packet = ipv6(51, 64, &client, &to, &behind_authentication);
    dropped(&mut world, CLIENT, &packet, reason);
    for first in [135, 139, 140, 253, 254] {
        let packet = ipv6(first, 64, &client, &to, &behind_options);
        dropped(&mut world, CLIENT, &packet, reason);
    }
    let mobile = ipv6(ROUTING, 64, &client, &to, &routed(2));
    assert!(world.client_sends(CLIENT, &mobile).is_some());
}

#[test]
fn p03_a_stale_peer_proves_itself_again() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.statistics().trusted_peers, 0);
    let data = packet(&client, &address(HOST), 1);
    assert_eq!(world.client_sends(CLIENT, &data), Some(data));
    assert_eq!(
        world.statistics().trusted_peers,
        1,
        "its source is proof enough"
    );
}
