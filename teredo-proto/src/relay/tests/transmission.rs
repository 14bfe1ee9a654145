//! and the loop rules that concern packets from native hosts.

use std::time::Duration;

use super::harness::*;
use crate::{
    relay::{Bubble, DropReason},
    shared::{limiter::Rate, statistics::Unreachable, turns::Pace},
    testing::octets,
};
use teredo_common::wire::{HOP_BY_HOP, ICMPV6, NO_NEXT_HEADER, UDP};

/// Sends one packet, which must be dropped without a trace but its count.
fn dropped(world: &mut World, source: &str, destination: [u8; 16], reason: DropReason) {
    let before = world.dropped(reason);
    assert!(!world.native_sends(&packet(&address(source), &destination, 1)));
    assert_eq!(
        world.dropped(reason),
        before + 1,
        "{source} {destination:?}"
    );
    assert!(world.sent.is_empty() && world.events.is_empty());
    assert_eq!(world.relay.peers().count(), 0);
}

#[test]
fn r01_only_teredo_destinations_with_a_global_endpoint() {
    let mut world = World::new();
    let reason = DropReason::EncapNotTeredo;
    dropped(&mut world, HOST, address("2001:db8::5"), reason);
    // The kernel's own packets are told apart.
    dropped(
        &mut world,
        "::",
        address("ff02::16"),
        DropReason::EncapMulticast,
    );
    let reason = DropReason::EncapDestination;
    for mapped in [
        "10.0.0.1:4096",
        "127.0.0.1:4096",
        "224.0.0.1:4096",
        "9.0.0.1:0",
    ] {
        dropped(&mut world, HOST, teredo(mapped), reason);
    }
    assert!(world.own_packets.is_empty(), "L-13: silently");
}

#[test]
fn r02_v21_a_usable_peer_is_sent_to_at_once() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let mut reply = octets(
        "6000000000183a40 2000000000000000000000000000000b 20010000010203040000effff6fffffe \
         8100852312340001 00112233445566778899aabbccddeeff",
    );
    assert_eq!(reply[24..40], client);
    reply[7] = 63;
    world.pass(Duration::from_millis(10));
    assert!(world.native_sends(&reply));
    assert_eq!(
        world.take_sent(),
        [(endpoint(CLIENT), reply)],
        "R-34: as it came"
    );
    let info = world.relay.peers().next().unwrap();
    assert_eq!(info.last_sent, world.now);
    assert_eq!(world.statistics().encapsulated.packets, 2);
    assert_eq!(world.statistics().encapsulated.octets, 60 + 64);
}

#[test]
fn r02_octets_after_the_packet_are_not_sent() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let first = packet(&address(HOST), &client, 1);
    assert!(world.native_sends(&[&first[..], &[0; 6]].concat()));
    assert_eq!(world.take_sent(), [(endpoint(CLIENT), first)]);
}

#[test]
fn r03_the_cone_flag_is_honoured_on_request_only() {
    let cone = teredo_of(CLIENT, SERVER, 0x8000);
    let first = packet(&address(HOST), &cone, 1);
    let mut world = World::new();
    assert!(!world.native_sends(&first));
    let mut world = World::with(|config| config.honor_cone = true);
    assert!(world.native_sends(&first));
    assert_eq!(world.take_sent(), [(endpoint(CLIENT), first)]);
    assert_eq!(world.take_events(), [], "trusted, and not proved");
    assert!(!world.native_sends(&packet(&address(HOST), &teredo("9.0.0.2:1"), 1)));
}

#[test]
fn r04_queues_and_sends_an_indirect_bubble() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    let first = packet(&address(HOST), &client, 1);
    assert!(!world.native_sends(&first));
    let cookie = world.cookie();
    assert_eq!(
        world.take_sent(),
        [(endpoint(SERVER), bubble(&cookie, &client))]
    );
    let info = world.relay.peers().next().unwrap();
    assert!(!info.trusted);
    assert_eq!((info.queued, info.mapped), (1, endpoint(CLIENT)));
    assert_eq!(world.statistics().queue_packets, 1);
    assert_eq!(world.statistics().queued, 1);
    let second = packet(&address(HOST), &client, 2);
    assert!(!world.native_sends(&second));
    assert_eq!(world.take_sent(), [], "one burst for both");
    world.client_sends(CLIENT, &bubble(&client, &cookie));
    let flushed = [(endpoint(CLIENT), first), (endpoint(CLIENT), second)];
    assert_eq!(world.take_data(), flushed, "first in, first out");
    assert_eq!(world.statistics().queue_packets, 0);
}

#[test]
fn r04_repeats_three_times_two_seconds_apart() {
    let mut world = World::new();
    let start = world.now;
    for _ in 0..2 {
        world.native_sends(&first_packet(&address(HOST), &teredo(CLIENT)));
    }
    world.pass(Duration::from_secs(60));
    let bubbles = world.bubbles();
    assert_eq!(bubbles.len(), 4);
    assert_eq!(bubbles[0].0, start);
    for pair in bubbles.windows(2) {
        let gap = pair[1].0.saturating_since(pair[0].0);
        let (least, most) = (Duration::from_secs(2), Duration::from_millis(2250));
        assert!((least..=most).contains(&gap), "{gap:?}");
    }
    assert_eq!(world.counted(Bubble::SentIndirect), 4);
}

#[test]
fn r05_direct_bubbles_on_request() {
    let mut world = World::with(|config| config.direct_bubbles = true);
    let client = teredo(CLIENT);
    world.native_sends(&first_packet(&address(HOST), &client));
    let bubble = bubble(&world.cookie(), &client);
    let burst = [
        (endpoint(CLIENT), bubble.clone()),
        (endpoint(SERVER), bubble),
    ];
    assert_eq!(world.take_sent(), burst);
    assert_eq!(world.counted(Bubble::SentDirect), 1);
    let mut world = World::new();
    world.native_sends(&first_packet(&address(HOST), &client));
    assert_eq!(world.counted(Bubble::SentDirect), 0);
}

#[test]
fn r07_larger_than_the_tunnel_is_dropped() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let largest = ipv6(UDP, 64, &address(HOST), &client, &[0; 1240]);
    assert!(world.native_sends(&largest));
    let larger = ipv6(UDP, 64, &address(HOST), &client, &[0; 1241]);
    assert!(!world.native_sends(&larger));
    assert_eq!(world.dropped(DropReason::EncapTooBig), 1);
}

#[test]
fn r08_l10_only_served_native_sources() {
    let mut world = World::with(|config| config.served = vec!["2000::/8".parse().unwrap()]);
    let teredo_source = std::net::Ipv6Addr::from(teredo("9.0.0.2:1")).to_string();
    for source in [
        "fe80::1",
        "ff02::1",
        "::",
        "::1",
        "fd00::1",
        "2400::1",
        &teredo_source,
    ] {
        dropped(&mut world, source, teredo(CLIENT), DropReason::EncapSource);
    }
    assert!(!world.native_sends(&packet(&address(HOST), &teredo(CLIENT), 1)));
    assert_eq!(world.statistics().queued, 1);
}

#[test]
fn r09_own_packets_obey_the_same_rules() {
    let mut world = World::new();
    assert!(!world.native_sends(&packet(&address(OWN), &teredo(CLIENT), 1)));
    assert_eq!(world.bubbles().len(), 1);
}

#[test]
fn w05_malformed_packets_and_jumbograms() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let first = packet(&address(HOST), &client, 1);
    for length in 0..first.len() {
        assert!(!world.native_sends(&first[..length]));
    }
    assert!(!world.native_sends(&ipv6(HOP_BY_HOP, 64, &address(HOST), &client, &[])));
    let count = first.len() as u64 + 1;
    assert_eq!(world.dropped(DropReason::EncapMalformed), count);
}

#[test]
fn w04_bubbles_of_others_are_not_carried() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    assert!(!world.native_sends(&bubble(&address(HOST), &client)));
    assert_eq!(world.dropped(DropReason::EncapBubble), 1);
    let with_payload = ipv6(NO_NEXT_HEADER, 64, &address(HOST), &client, &[1]);
    assert!(world.native_sends(&with_payload));
}

/// Lets one packet to a client that does not answer fail.
fn fail(world: &mut World, packet: &[u8]) {
    assert!(!world.native_sends(packet));
    world.pass(Duration::from_secs(20));
}

#[test]
fn r16_failure_is_told_about_the_newest_packet() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    for mark in 1..=3 {
        world.native_sends(&packet(&address(HOST), &client, mark));
    }
    world.pass(Duration::from_secs(20));
    let [error] = &world.own_packets[..] else {
        panic!("{:?}", world.own_packets)
    };
    assert_eq!(error[8..24], address(OWN), "a global address of the relay");
    assert_eq!(error[24..40], address(HOST));
    assert_eq!(error[40..42], [1, 3], "address unreachable");
    assert_eq!(error[48..], packet(&address(HOST), &client, 3));
    assert_eq!(world.unreachable(Unreachable::Sent), 1);
    assert_eq!(world.dropped(DropReason::EncapNoAnswer), 3);
}

#[test]
fn r16_no_error_about_errors() {
    let mut world = World::new();
    let error = ipv6(
        ICMPV6,
        64,
        &address(HOST),
        &teredo(CLIENT),
        &[1, 3, 0, 0, 0, 0, 0, 0],
    );
    fail(&mut world, &error);
    assert!(world.own_packets.is_empty());
    assert_eq!(world.unreachable(Unreachable::Forbidden), 1);
}

#[test]
fn r16_none_without_a_global_address() {
    let mut world = World::with(|config| {
        config.own_ipv6 = vec!["fe80::1".parse().unwrap(), "fd00::1".parse().unwrap()];
    });
    fail(&mut world, &packet(&address(HOST), &teredo(CLIENT), 1));
    assert!(world.own_packets.is_empty());
    assert_eq!(world.unreachable(Unreachable::NoSource), 1);
}

#[test]
fn r16_ten_at_once_and_ten_a_second() {
    let mut world = World::with(|config| {
        config.server_pace = Pace {
            first: 1000,
            most: 1000,
            ..Pace::DEFAULT
        };
    });
    for port in 1..=50 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    world.pass(Duration::from_secs(20));
    let sent = world.own_packets.len();
    assert!((10..=20).contains(&sent), "{sent}");
    assert_eq!(
        world.unreachable(Unreachable::RateLimited),
        50 - sent as u64
    );
}

#[test]
fn r26_no_new_peers_while_draining() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.relay.drain();
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    for _ in 0..50 {
        assert!(!world.native_sends(&packet(&address(HOST), &teredo("9.0.0.2:1"), 1)));
    }
    assert_eq!(world.dropped(DropReason::EncapDraining), 50);
    assert_eq!(world.relay.peers().count(), 1);
    assert!(world.sent.iter().all(|(.., payload)| !is_bubble(payload)));
    assert_eq!(world.own_packets.len(), 10, "the sender is told (R-16)");
    assert_eq!(world.unreachable(Unreachable::RateLimited), 40);
}

/// A peer that the relay has goes on, even if it fell silent and has to be asked.
#[test]
fn r26_peers_go_on_while_draining() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.relay.drain();
    world.pass(Duration::from_secs(60));
    assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    assert_eq!(world.statistics().trusted_peers, 1);
    assert!(world.native_sends(&packet(&address(HOST), &client, 2)));
}

#[test]
fn l02_nothing_is_sent_to_an_own_address() {
    let mut world = World::with(|config| config.own_ipv4 = vec!["9.9.9.9".parse().unwrap()]);
    for mapped in ["5.6.7.8:3545", "5.6.7.8:1", "9.9.9.9:4096"] {
        dropped(
            &mut world,
            HOST,
            teredo(mapped),
            DropReason::EncapDestination,
        );
    }
    world
        .relay
        .set_own_addresses(&["9.0.0.1".parse().unwrap()], &[]);
    dropped(
        &mut world,
        HOST,
        teredo(CLIENT),
        DropReason::EncapDestination,
    );
    dropped(
        &mut world,
        HOST,
        teredo(RELAY),
        DropReason::EncapDestination,
    );
    assert!(!world.native_sends(&packet(&address(HOST), &teredo("9.9.9.9:4096"), 1)));
    assert_eq!(world.bubbles().len(), 1, "no longer own");
}

#[test]
fn l06_dec9_the_server_must_be_global_and_not_own() {
    let mut world = World::new();
    for (count, server) in ["0.0.0.0:1", "10.0.0.1:1", "192.0.2.1:1", "5.6.7.8:1"]
        .into_iter()
        .enumerate()
    {
        let client = teredo_of(CLIENT, server, 0);
        assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
        assert_eq!(world.dropped(DropReason::EncapServer), count as u64 + 1);
        assert_eq!(
            world.own_packets.len(),
            count + 1,
            "the destination is unreachable"
        );
    }
    assert!(world.sent.is_empty());
    assert_eq!(world.relay.peers().count(), 0);
}

#[test]
fn l07_sources_that_lead_back_are_refused() {
    let mut world = World::new();
    let reason = DropReason::EncapSource;
    for source in [
        "2002:506:708::1",
        "2001:db8::5efe:506:708",
        "2001:db8::200:5efe:506:708",
    ] {
        dropped(&mut world, source, teredo(CLIENT), reason);
    }
    assert!(!world.native_sends(&packet(&address("2002:506:709::1"), &teredo(CLIENT), 1)));
    assert_eq!(world.dropped(reason), 3);
}

#[test]
fn l12_new_peers_of_one_source_are_limited() {
    let mut world = World::with(|config| config.new_peer_rates.subnet = Rate::new(1, 5));
    let send = |world: &mut World, source: &str, ports: std::ops::Range<u16>| {
        for port in ports {
            let client = teredo(&format!("9.0.0.1:{port}"));
            world.native_sends(&packet(&address(source), &client, 1));
        }
    };
    send(&mut world, "2000::b", 1..6);
    send(&mut world, "2000::c", 6..9);
    assert_eq!(world.relay.peers().count(), 5, "one network, one limit");
    assert_eq!(world.dropped(DropReason::EncapNewPeerRate), 3);
    send(&mut world, "2000:1::b", 10..12);
    assert_eq!(world.relay.peers().count(), 7);
}

#[test]
fn p07_queues_are_bounded() {
    let mut world = World::with(|config| {
        config.queue_per_peer = 2;
        config.queue_total_bytes = 6 * 124;
        config.queue_source_bytes = 4 * 124;
    });
    for client in 1..=9 {
        for mark in 1..=3 {
            let source = if client < 5 { "2000::b" } else { "2000:1::b" };
            let client = teredo(&format!("9.0.0.{client}:1"));
            world.native_sends(&packet(&address(source), &client, mark));
        }
    }
    assert_eq!(world.statistics().queue_packets, 6);
    assert_eq!(world.statistics().queue_octets, 6 * 124);
    assert_eq!(world.dropped(DropReason::EncapQueuePeer), 3);
    assert_eq!(world.dropped(DropReason::EncapQueueSource), 6);
    assert_eq!(world.dropped(DropReason::EncapQueueTotal), 12);
    assert_eq!(world.bubbles().len(), 9, "each is asked all the same");
    world.pass(Duration::from_secs(20));
    assert_eq!(
        world.statistics().queue_octets,
        0,
        "packets expire with the bubbles"
    );
}
