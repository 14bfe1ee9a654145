//! Datagrams of peers: the rules in their order.

use std::time::Duration;

use super::harness::*;
use crate::client::{Bubble, DropReason, Extensions};

#[test]
fn c39_rule_3_the_endpoint_in_the_address_is_proof() {
    let mut world = World::new();
    let data = packet(&peer(), &own(), 1);
    assert_eq!(world.arrives(PEER, &data), Ok(Some(data.len())));
    assert!(world.trusts(&peer()));
    assert_eq!(world.peer(&peer()).unwrap().mapped, endpoint(PEER));
}

#[test]
fn c39_rule_3_only_if_it_is_global() {
    let mut world = World::new();
    for mapped in [
        "10.0.0.1:1024",
        "192.168.1.7:1024",
        "127.0.0.1:1024",
        MAPPED,
    ] {
        let stranger = teredo(mapped, PEER_SERVER);
        assert_eq!(
            world.arrives(mapped, &packet(&stranger, &own(), 1)),
            if mapped == MAPPED && stranger == own() {
                Ok(None)
            } else {
                Err(DropReason::Mapping)
            },
            "{mapped}"
        );
        assert_eq!(
            world.arrives(mapped, &bubble(&stranger, &own(), &[])),
            Err(DropReason::Mapping)
        );
        assert!(!world.trusts(&stranger));
    }
}

#[test]
fn c37_rule_1_a_trusted_peer_is_accepted_from_its_mapping_alone() {
    let mut world = World::new();
    let peer = world.trust_peer();
    let data = packet(&peer, &own(), 1);
    assert!(world.arrives(PEER, &data).unwrap().is_some());
    assert_eq!(
        world.arrives("8.0.0.1:1025", &data),
        Err(DropReason::Mapping)
    );
    let last = world.peer(&peer).unwrap().last_received;
    world.pass_seconds(5);
    assert!(world.arrives(PEER, &data).unwrap().is_some());
    assert_eq!(
        world.peer(&peer).unwrap().last_received,
        last + Duration::from_secs(5)
    );
}

#[test]
fn p08_nothing_from_elsewhere_moves_a_peer() {
    let mut world = World::new();
    let peer = world.trust_peer();
    for from in ["8.0.0.1:1025", "6.6.6.6:666", RELAY, SERVER] {
        let _ = world.arrives(from, &packet(&peer, &own(), 1));
        let _ = world.arrives(from, &bubble(&peer, &own(), &[]));
        assert_eq!(world.peer(&peer).unwrap().mapped, endpoint(PEER));
    }
}

#[test]
fn c32_and_l08_nothing_is_forwarded() {
    let mut world = World::new();
    let peer = world.trust_peer();
    for destination in ["2000::b", "ff02::1", "fe80::1", "2001:0:102:304::1"] {
        let data = packet(&peer, &address(destination), 1);
        assert_eq!(world.arrives(PEER, &data), Err(DropReason::Destination));
    }
    assert_eq!(
        world.arrives(PEER, &bubble(&peer, &address("ff02::1"), &[])),
        Err(DropReason::Destination),
        "C-31: a discovery bubble at a unicast address"
    );
    assert_eq!(world.delivered.len(), 0);
    assert_eq!(world.take_sent(), []);
}

#[test]
fn c18_link_local_sources_never_reach_the_host() {
    let mut world = World::with(|config| config.accept_unsolicited = true);
    for source in ["fe80::1", "::1", "::", "ff02::1", "fc00::1"] {
        let data = packet(&address(source), &own(), 1);
        for from in [RELAY, SERVER] {
            assert_eq!(
                world.arrives(from, &data),
                Err(DropReason::Source),
                "{source}"
            );
        }
    }
}

#[test]
fn l11_routing_headers_are_dropped() {
    let mut world = World::new();
    let peer = world.trust_peer();
    let routed = |kind: u8| ipv6(43, 64, &peer, &own(), &[59, 0, kind, 0, 0, 0, 0, 0]);
    assert_eq!(
        world.arrives(PEER, &routed(0)),
        Err(DropReason::RoutingHeader)
    );
    assert_eq!(
        world.arrives(PEER, &routed(9)),
        Err(DropReason::RoutingHeader)
    );
    let hidden = [
        &[43, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0][..],
        &[59, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(
        world.arrives(PEER, &ipv6(51, 64, &peer, &own(), &hidden)),
        Err(DropReason::RoutingHeader)
    );
    assert!(world.arrives(PEER, &routed(2)).unwrap().is_some());
}

#[test]
fn w01_server_elements_come_from_the_server() {
    let mut world = World::new();
    let data = packet(&peer(), &own(), 1);
    assert_eq!(
        world.arrives(PEER, &with_origin(PEER, &data)),
        Err(DropReason::ServerElement)
    );
    let authenticated = [&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &data].concat();
    assert_eq!(
        world.arrives(PEER, &authenticated),
        Err(DropReason::ServerElement)
    );
    assert!(!world.trusts(&peer()));
}

#[test]
fn x01_trailers_may_forbid_a_packet() {
    let mut world = World::new();
    let data = [packet(&peer(), &own(), 1), vec![0x41, 0]].concat();
    assert_eq!(world.arrives(PEER, &data), Err(DropReason::Trailer));
    let data = [packet(&peer(), &own(), 1), vec![0x81, 0]].concat();
    assert_eq!(world.arrives(PEER, &data), Ok(Some(data.len() - 2)));
}

#[test]
fn c34_an_indirect_bubble_of_a_peer_is_answered_directly() {
    let mut world = World::with(|config| config.extensions = Extensions::NONE);
    for payload in [
        with_origin("8.0.0.1:1024", &bubble(&peer(), &own(), &[])),
        bubble(&peer(), &own(), &[]),
    ] {
        assert_eq!(world.arrives(SERVER, &payload), Ok(None));
        assert_eq!(
            world.take_payloads(),
            [(endpoint(PEER), bubble(&own(), &peer(), &[]))]
        );
        world.pass_seconds(3);
    }
    assert!(!world.trusts(&peer()));
}

#[test]
fn c34_and_l05_answers_never_go_to_forbidden_addresses() {
    let mut world = World::new();
    for target in [
        "192.168.1.2:40000",
        "192.168.1.9:80",
        "10.1.2.3:80",
        "127.0.0.1:80",
        "0.1.2.3:80",
        "169.254.1.1:80",
        "224.0.0.253:3544",
        "255.255.255.255:80",
        "198.51.100.7:80",
        "5.6.7.8:0",
        MAPPED,
    ] {
        let relay = bubble(&address("fe80::1"), &own(), &[]);
        assert_eq!(
            world.arrives(SERVER, &with_origin(target, &relay)),
            Err(DropReason::BubbleTarget),
            "{target}"
        );
        let stranger = teredo(target, PEER_SERVER);
        if stranger != own() {
            let direct = bubble(&stranger, &own(), &[]);
            assert_eq!(
                world.arrives(SERVER, &with_origin(PEER, &direct)),
                Err(DropReason::BubbleTarget),
                "{target}"
            );
        }
    }
    assert_eq!(world.take_sent(), []);
    let relay = bubble(&address("fe80::1"), &own(), &[]);
    assert_eq!(world.arrives(SERVER, &relay), Err(DropReason::NoOrigin));
}

#[test]
fn c42_and_p09_answers_are_limited() {
    let mut world = World::with(|config| config.extensions = Extensions::NONE);
    let asked = bubble(&peer(), &own(), &[]);
    for _ in 0..1000 {
        world.arrives(SERVER, &asked).unwrap();
        world.pass(Duration::from_millis(50));
    }
    let bursts = world.take_sent();
    assert!(
        bursts.len() <= 8,
        "four bursts, and one answer to each: {}",
        bursts.len()
    );
    assert!(world.bubbles(Bubble::LimitedDirect) > 900);
}

#[test]
fn l12_many_addresses_of_one_victim_do_not_multiply() {
    let mut world = World::with(|config| config.extensions = Extensions::NONE);
    for flags in 0..=255 {
        let mut victim = peer();
        victim[9] = flags;
        world
            .arrives(SERVER, &bubble(&victim, &own(), &[]))
            .unwrap();
    }
    assert_eq!(world.take_sent().len(), 1);
}

#[test]
fn p06_strangers_do_not_push_out_those_whom_the_host_waits_for() {
    let mut world = World::with(|config| config.max_peers = 16);
    let hosts: Vec<_> = (0..2)
        .map(|number| address(&format!("2000::{number:x}")))
        .collect();
    for host in &hosts {
        world.host_sends(&packet(&own(), host, 1)).unwrap();
    }
    for number in 1..1000 {
        let stranger = teredo(&format!("8.0.0.1:{number}"), PEER_SERVER);
        assert_eq!(
            world.arrives(SERVER, &bubble(&stranger, &own(), &[])),
            Err(DropReason::TooManyPeers)
        );
    }
    assert!(
        hosts
            .iter()
            .all(|host| world.peer(host).unwrap().queued == 1)
    );
    world.pass_seconds(10);
    let stranger = teredo("8.0.0.1:1", PEER_SERVER);
    assert_eq!(
        world.arrives(SERVER, &bubble(&stranger, &own(), &[])),
        Ok(None)
    );
}

#[test]
fn p05_any_accepted_packet_resets_the_limits() {
    let mut world = World::new();
    let data = packet(&own(), &peer(), 1);
    world.host_sends(&data).unwrap();
    world.pass_seconds(10);
    assert_eq!(world.host_sends(&data), Err(DropReason::HostBubbleLimit));
    world.trust_peer();
    assert!(world.host_sends(&data).is_ok());
    world.pass_seconds(31);
    assert!(world.host_sends(&data).is_ok(), "bubbles again");
}

#[test]
fn a_datagram_without_address_is_dropped() {
    let mut world = World::new();
    world.set_identity(None);
    assert_eq!(
        world.arrives(PEER, &packet(&peer(), &own(), 1)),
        Err(DropReason::NotQualified)
    );
}

#[test]
fn datagrams_to_other_ports_are_dropped() {
    let mut world = World::new();
    let data = packet(&peer(), &own(), 1);
    assert_eq!(
        world.arrives_at(PORT + 1, endpoint(PEER), &data),
        Err(DropReason::Port)
    );
}
