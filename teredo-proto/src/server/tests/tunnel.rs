//! The tunnel service.

use std::{net::Ipv6Addr, time::Duration};

use teredo_common::{
    checksum,
    wire::{ECHO_REQUEST, ICMPV6, UDP},
};

use super::harness::*;
use crate::{
    server::{Binding, Config, DRAIN, DropReason, Event, RegisteredClient, Service},
    testing::octets,
    wire::{
        authentication::{Algorithm, Key},
        encapsulation,
    },
};

const PREFIX: &str = "2001:db8:1:2::/64";
const INSIDE: &str = "2001:db8:1:2:aaaa::1";
const ELSEWHERE: &str = "9.0.0.77:5000";
const SECOND: Duration = Duration::from_secs(1);

fn alice_key() -> Key {
    key(Algorithm::HmacSha1, 0x0b)
}

fn alice() -> RegisteredClient {
    RegisteredClient {
        prefix: Some(PREFIX.parse().unwrap()),
        ..client("alice", alice_key())
    }
}

fn bob() -> RegisteredClient {
    RegisteredClient {
        prefix: Some("2001:db8:1:1::/64".parse().unwrap()),
        ..client("bob", key(Algorithm::HmacMd5, 7))
    }
}

fn world() -> World {
    World::with(|config: &mut Config| {
        config.clients = vec![client("carol", key(Algorithm::HmacMd5, 8)), alice(), bob()];
    })
}

/// Solicitations of alice, each with its own nonce.
fn solicit(world: &mut World, from: &str, nonce: u64) -> Sent {
    let nonce = nonce.to_be_bytes();
    let payload = signed("alice", &alice_key(), nonce, &solicitation(SOLICITOR));
    world.receives(from, &payload)
}

fn bound() -> World {
    let mut world = world();
    assert!(solicit(&mut world, CLIENT, 1).is_some());
    world.events();
    world
}

fn udp(source: &str, destination: &str) -> Vec<u8> {
    ipv6(
        UDP,
        64,
        &address(source),
        &address(destination),
        &[0xab; 700],
    )
}

fn place(world: &World) -> Option<Binding> {
    world.server.bindings().find(|one| one.client == b"alice")
}

#[test]
fn t01_t02_the_advertisement_has_the_clients_own_prefix() {
    let mut world = world();
    let (output, payload) = solicit(&mut world, CLIENT, 1).unwrap();
    assert_eq!(
        output,
        Output::Datagram {
            from: Primary,
            to: endpoint(CLIENT)
        }
    );
    let parts = encapsulation::parse(&payload).unwrap();
    let header = parts.authentication.unwrap();
    assert!(
        alice_key().verify(&header, &payload[13 + 5 + 20..]),
        "signed"
    );
    assert_eq!(parts.origin, Some(endpoint(CLIENT)));
    let information = octets("03044040ffffffffffffffff00000000 20010db8000100020000000000000000");
    assert_eq!(parts.packet[56..88], information);
    let sum = checksum::ipv6_transport(
        parts.packet[8..24].first_chunk().unwrap(),
        &address(SOLICITOR),
        ICMPV6,
        &parts.packet[40..],
    );
    assert_eq!(sum, [0, 0]);
    let binding = Binding {
        client: b"alice".to_vec(),
        prefix: PREFIX.parse().unwrap(),
        mapped: endpoint(CLIENT),
        last_seen: world.now,
    };
    assert_eq!(world.server.bindings().collect::<Vec<_>>(), [binding]);
    let told = Event::TunnelBound {
        client: b"alice".to_vec(),
        mapped: endpoint(CLIENT),
    };
    assert_eq!(world.events(), [told]);
}

#[test]
fn t01_without_proof_there_is_no_tunnel() {
    let mut world = world();
    let service = octets("20010000010203040000000000000000");
    let offers_service = |sent: Sent| {
        let (_, payload) = sent.unwrap();
        encapsulation::parse(&payload).unwrap().packet[72..88] == service
    };
    assert!(offers_service(
        world.receives(CLIENT, &solicitation(SOLICITOR))
    ));
    assert!(offers_service(
        world.receives(CLIENT, &with_nonce(&solicitation(SOLICITOR)))
    ));
    let carol = signed(
        "carol",
        &key(Algorithm::HmacMd5, 8),
        NONCE,
        &solicitation(SOLICITOR),
    );
    assert!(
        offers_service(world.receives(CLIENT, &carol)),
        "no prefix of her own"
    );
    let wrong = signed(
        "alice",
        &key(Algorithm::HmacSha1, 9),
        NONCE,
        &solicitation(SOLICITOR),
    );
    world.drops(DropReason::AuthenticationFailed, CLIENT, &wrong);
    assert_eq!(world.server.bindings().count(), 0);
    assert_eq!(world.events(), []);
}

/// Neither what is refused for its rate nor what a stopping server does not answer binds.
#[test]
fn t03_only_what_is_answered_binds() {
    let mut world = world();
    world.server.drain(world.now);
    assert_eq!(solicit(&mut world, CLIENT, 1), None);
    assert_eq!(world.server.bindings().count(), 0);
}

#[test]
fn t03_the_prefix_follows_the_client() {
    let mut world = bound();
    world.pass(SECOND);
    assert!(solicit(&mut world, ELSEWHERE, 2).is_some());
    let binding = place(&world).unwrap();
    assert_eq!(
        (binding.mapped, binding.last_seen),
        (endpoint(ELSEWHERE), world.now)
    );
    assert_eq!(binding.prefix, PREFIX.parse().unwrap());
    let told = Event::TunnelMoved {
        client: b"alice".to_vec(),
        from: endpoint(CLIENT),
        to: endpoint(ELSEWHERE),
    };
    assert_eq!(world.events(), [told]);
    let packet = udp(HOST, INSIDE);
    assert_eq!(
        world.routed(&packet),
        datagram(Primary, ELSEWHERE, packet.clone())
    );
    world.drops(DropReason::TunnelSource, CLIENT, &udp(INSIDE, HOST));
    assert!(world.receives(ELSEWHERE, &udp(INSIDE, HOST)).is_some());
}

#[test]
fn t03_flapping_is_told_of_now_and_then() {
    let mut world = bound();
    let mut told = Vec::new();
    for nonce in 2..602 {
        world.pass(SECOND);
        let from = if nonce % 2 == 0 { ELSEWHERE } else { CLIENT };
        assert!(solicit(&mut world, from, nonce).is_some());
        told.extend(world.events());
    }
    assert!(matches!(told[0], Event::TunnelMoved { .. }));
    let flapping = |event: &Event| matches!(event, Event::TunnelFlapping { .. });
    assert!(told[1..].iter().all(flapping), "{told:?}");
    assert_eq!(told.len(), 1 + 10);
    // After a rest it is a move again.
    world.pass(60 * SECOND);
    assert!(solicit(&mut world, ELSEWHERE, 1000).is_some());
    assert!(matches!(world.events()[..], [Event::TunnelMoved { .. }]));
}

#[test]
fn t04_packets_to_the_prefix_go_to_the_client_unchanged() {
    let mut world = bound();
    for packet in [
        udp(HOST, INSIDE),
        udp("fd00::1", INSIDE),
        echo(&address(HOST), &address(INSIDE)),
        ipv6(59, 1, &address(HOST), &address(INSIDE), &[]),
    ] {
        assert_eq!(
            world.routed(&packet),
            datagram(Primary, CLIENT, packet.clone())
        );
    }
    // The kernel may hand over more than the packet.
    let packet = udp(HOST, INSIDE);
    let padded = [&packet[..], &[0; 6]].concat();
    assert_eq!(world.routed(&padded), datagram(Primary, CLIENT, packet));
    assert_eq!(world.served(Service::TunnelSent), 5);
}

#[test]
fn t04_what_is_not_for_a_client_of_the_tunnel_service() {
    let mut world = bound();
    let mut refused = |reason: DropReason, packet: &[u8]| {
        let before = world.dropped(reason);
        assert_eq!(world.routed(packet), None);
        assert_eq!(world.dropped(reason), before + 1, "{reason:?}");
        assert!(world.routed(&udp(HOST, INSIDE)).is_some(), "it lives");
    };
    refused(DropReason::TunnelPacket, &[]);
    refused(DropReason::TunnelPacket, &udp(HOST, INSIDE)[..100]);
    refused(DropReason::TunnelPacket, &udp("fe80::1", INSIDE));
    refused(DropReason::TunnelPacket, &udp("ff0e::1", INSIDE));
    refused(DropReason::TunnelPacket, &udp("::1", INSIDE));
    refused(DropReason::TunnelPacket, &udp(INSIDE, INSIDE));
    refused(DropReason::TunnelDestination, &udp(HOST, "2001:db8:1:3::1"));
    refused(DropReason::TunnelDestination, &udp(HOST, "2001:db8:1::1"));
    refused(DropReason::SourceLoop, &udp("2002:102:304::1", INSIDE));
    let (host, inside) = (address(HOST), address(INSIDE));
    let largest = ipv6(UDP, 9, &host, &inside, &[0; 1240]);
    let larger = ipv6(UDP, 9, &host, &inside, &[0; 1241]);
    refused(DropReason::TunnelTooBig, &larger);
    assert!(world.routed(&largest).is_some());
}

#[test]
fn t04_s05_from_the_client_anything_may_come() {
    let mut world = bound();
    for packet in [
        udp(INSIDE, HOST),
        udp(INSIDE, "2001:db8:1:1::1"),
        ipv6(
            0,
            1,
            &address(INSIDE),
            &address(HOST),
            &[6, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3],
        ),
        icmpv6(1, 9, &address(INSIDE), &address(HOST), &[0; 400]),
        icmpv6(ECHO_REQUEST, 9, &address(INSIDE), &address(HOST), &[0; 900]),
    ] {
        let payload = [&packet[..], &[1, 4, 0, 0, 0, 0]].concat();
        assert_eq!(
            world.receives(CLIENT, &payload),
            Some((Output::Tunnel, packet))
        );
    }
    assert_eq!(world.served(Service::TunnelReceived), 5);
}

#[test]
fn t04_only_from_where_the_client_is() {
    let mut world = bound();
    for from in [ELSEWHERE, "9.0.0.1:4097", OTHER] {
        world.drops(DropReason::TunnelSource, from, &udp(INSIDE, HOST));
    }
    // The prefix of another client, whether it is there or not.
    world.drops(
        DropReason::TunnelSource,
        CLIENT,
        &udp("2001:db8:1:1::1", HOST),
    );
    // No prefix of the tunnel service at all.
    world.drops(DropReason::Protocol, CLIENT, &udp("2001:db8:1:3::1", HOST));
    // The secondary address is not for packets.
    world.drops_at(Secondary, DropReason::Protocol, CLIENT, &udp(INSIDE, HOST));
}

#[test]
fn t04_s12_l07_nowhere_but_to_global_addresses_of_others() {
    let mut world = bound();
    for destination in [
        "fe80::1",
        "ff02::1",
        "ff0e::1",
        "::1",
        "fd00::1",
        "::ffff:8.8.8.8",
    ] {
        world.drops(
            DropReason::DestinationScope,
            CLIENT,
            &udp(INSIDE, destination),
        );
    }
    world.drops(
        DropReason::DestinationLoop,
        CLIENT,
        &udp(INSIDE, "2002:102:304::1"),
    );
    world.drops(DropReason::SameAddresses, CLIENT, &udp(INSIDE, INSIDE));
    let element = [&octets("0000effff6fffffe")[..], &udp(INSIDE, HOST)].concat();
    world.drops(DropReason::Element, CLIENT, &element);
}

/// A data path has no limits but the line's.
#[test]
fn t04_packets_take_no_tokens() {
    let mut world = World::with(|config| {
        config.clients = vec![alice()];
        config.limits.source = teredo_common::limiter::Rate::new(1, 2);
    });
    assert!(solicit(&mut world, CLIENT, 1).is_some());
    for _ in 0..1000 {
        assert!(world.receives(CLIENT, &udp(INSIDE, HOST)).is_some());
        assert!(world.routed(&udp(HOST, INSIDE)).is_some());
    }
}

#[test]
fn t04_a_client_that_is_gone_is_unreachable() {
    let mut world = bound();
    world.pass(Duration::from_nanos(239_999_999_999));
    assert!(world.routed(&udp(HOST, INSIDE)).is_some());
    assert!(world.receives(CLIENT, &udp(INSIDE, HOST)).is_some());
    world.pass(Duration::from_nanos(1));
    let (output, error) = world.routed(&udp(HOST, INSIDE)).unwrap();
    assert_eq!(output, Output::Tunnel);
    assert_eq!(error[40..42], [1, 3], "address unreachable");
    assert_eq!(error[24..40], address(HOST));
    let source: Ipv6Addr = (*error[8..24].first_chunk::<16>().unwrap()).into();
    assert_eq!(
        source,
        "2001:db8:1:2:8000:f227:fefd:fcfb"
            .parse::<Ipv6Addr>()
            .unwrap()
    );
    assert_eq!(error[48..], udp(HOST, INSIDE));
    assert_eq!(world.dropped(DropReason::TunnelUnreachable), 1);
    assert_eq!(world.server.statistics().unreachable_sent, 1);
    // It is not heard either, until it solicits again.
    world.drops(DropReason::TunnelSource, CLIENT, &udp(INSIDE, HOST));
    assert!(solicit(&mut world, CLIENT, 2).is_some());
    assert!(world.routed(&udp(HOST, INSIDE)).is_some());
    assert!(matches!(world.events()[..], [Event::TunnelBound { .. }]));
}

/// The clock does not count the suspension, and the client may be anywhere since.
#[test]
fn p04_a_client_may_be_gone_after_suspension() {
    for (suspended, is_there) in [(200, true), (220, false), (86_400, false)] {
        let mut world = bound();
        world.pass(Duration::from_secs(30));
        world
            .server
            .handle_suspension(world.now, Duration::from_secs(suspended));
        assert_eq!(place(&world).is_some(), is_there);
        let heard = world.receives(CLIENT, &udp(INSIDE, HOST));
        assert_eq!(heard.is_some(), is_there, "{suspended}");
        world.pass(Duration::from_secs(10));
        assert!(world.receives(CLIENT, &udp(INSIDE, HOST)).is_none());
    }
}

#[test]
fn t04_errors_are_few_and_never_about_errors() {
    let mut world = world();
    let error = icmpv6(1, 64, &address(HOST), &address(INSIDE), &[0; 60]);
    assert_eq!(world.routed(&error), None, "about an error");
    let sent = (0..100).filter(|_| world.routed(&udp(HOST, INSIDE)).is_some());
    assert_eq!(sent.count(), 10);
    assert_eq!(world.dropped(DropReason::TunnelUnreachable), 101);
    world.pass(SECOND);
    let sent = (0..100).filter(|_| world.routed(&udp(HOST, INSIDE)).is_some());
    assert_eq!(sent.count(), 10);
}

#[test]
fn t03_refreshes_keep_the_client_there() {
    let mut world = bound();
    for nonce in 2..20 {
        world.pass(200 * SECOND);
        assert!(world.routed(&udp(HOST, INSIDE)).is_some());
        assert!(solicit(&mut world, CLIENT, nonce).is_some());
    }
    assert_eq!(world.events(), []);
}

#[test]
fn t05_an_old_solicitation_moves_nobody() {
    let mut world = bound();
    assert!(solicit(&mut world, CLIENT, 2).is_some());
    for nonce in [1, 2] {
        world.answers();
        assert_eq!(solicit(&mut world, ELSEWHERE, nonce), None);
        world.answers();
    }
    assert_eq!(world.dropped(DropReason::Replayed), 2);
    assert_eq!(place(&world).unwrap().mapped, endpoint(CLIENT));
    assert_eq!(world.events(), []);
    // From where the client is, it was duplicated on the way: answered, but no sign of life.
    world.pass(SECOND);
    assert!(solicit(&mut world, CLIENT, 1).is_some());
    assert_eq!(place(&world).unwrap().last_seen, world.now - SECOND);
    // And nobody is brought back to life.
    world.pass(240 * SECOND);
    assert_eq!(solicit(&mut world, CLIENT, 2), None);
    assert!(solicit(&mut world, CLIENT, 3).is_some());
}

#[test]
fn t05_thirty_two_nonces_are_remembered() {
    let mut world = bound();
    for nonce in 2..=32 {
        assert!(solicit(&mut world, CLIENT, nonce).is_some());
    }
    for nonce in 1..=32 {
        assert_eq!(solicit(&mut world, ELSEWHERE, nonce), None, "{nonce}");
    }
    assert!(solicit(&mut world, CLIENT, 33).is_some());
    assert!(solicit(&mut world, ELSEWHERE, 1).is_some(), "forgotten");
}

/// The nonces of one client say nothing about another.
#[test]
fn t05_nonces_are_the_clients_own() {
    let mut world = bound();
    let nonce = 1_u64.to_be_bytes();
    let payload = signed(
        "bob",
        &key(Algorithm::HmacMd5, 7),
        nonce,
        &solicitation(SOLICITOR),
    );
    assert!(world.receives(OTHER, &payload).is_some());
    assert_eq!(world.server.bindings().count(), 2);
    let packet = udp(INSIDE, "2001:db8:1:1::1");
    assert!(world.receives(CLIENT, &packet).is_some());
    assert_eq!(
        world.routed(&packet),
        datagram(Primary, OTHER, packet.clone())
    );
}

#[test]
fn l02_not_even_a_client_of_the_tunnel_service_is_at_an_own_address() {
    let mut world = bound();
    world
        .server
        .set_own_addresses(&["9.0.0.1".parse().unwrap()]);
    let (output, _) = world.routed(&udp(HOST, INSIDE)).unwrap();
    assert_eq!(output, Output::Tunnel, "an error");
    world.drops(DropReason::OwnSource, CLIENT, &udp(INSIDE, HOST));
}

#[test]
fn s27_the_tunnel_goes_on_for_two_intervals() {
    let mut world = bound();
    world.server.drain(world.now);
    world.pass(DRAIN - Duration::from_nanos(1));
    assert!(world.routed(&udp(HOST, INSIDE)).is_some());
    assert!(world.receives(CLIENT, &udp(INSIDE, HOST)).is_some());
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.routed(&udp(HOST, INSIDE)), None);
    assert_eq!(world.receives(CLIENT, &udp(INSIDE, HOST)), None);
    assert_eq!(world.dropped(DropReason::Draining), 2);
}

/// Of two clients with the same prefix the first one by name has it.
#[test]
fn t01_prefixes_are_unique() {
    let twin = RegisteredClient {
        prefix: alice().prefix,
        ..client("zoe", key(Algorithm::HmacMd5, 3))
    };
    let mut world = World::with(|config| config.clients = vec![twin, alice()]);
    assert!(solicit(&mut world, CLIENT, 1).is_some());
    assert!(world.receives(CLIENT, &udp(INSIDE, HOST)).is_some());
}

/// Events that nobody takes are bounded.
#[test]
fn s26_events_are_bounded() {
    let name = |number: usize| format!("client-{number}");
    let mut world = World::with(|config| {
        config.clients = (0..100)
            .map(|number: usize| RegisteredClient {
                id: name(number).into(),
                prefix: format!("2001:db8:1:{number}::/64").parse().ok(),
                ..alice()
            })
            .collect();
    });
    for number in 0..100 {
        let payload = signed(&name(number), &alice_key(), NONCE, &solicitation(SOLICITOR));
        assert!(world.receives(CLIENT, &payload).is_some());
    }
    assert_eq!(world.events().len(), 64);
    assert_eq!(world.server.statistics().events_lost, 36);
    assert_eq!(world.server.bindings().count(), 100);
}
