//! Packets of the host: their destinations, and errors to the host.

use std::time::Duration;

use teredo_common::traffic::Count;

use super::harness::*;
use crate::{
    client::{Bubble, DropReason, Identity, Nat, exchange::Forward},
    shared::statistics::Unreachable,
    wire::ipv6::Header,
};

#[test]
fn c50_what_cannot_be_sent_is_refused() {
    let mut world = World::new();
    let (host, other) = (address(HOST), address("2001:0:102:304::1"));
    let cases = [
        (packet(&other, &host, 0), DropReason::HostSource, Some(5)),
        (
            packet(&address("fe80::1"), &host, 0),
            DropReason::HostSource,
            None,
        ),
        (
            packet(&own(), &address("ff02::1"), 0),
            DropReason::HostMulticast,
            None,
        ),
        (
            packet(&own(), &address("fe80::1"), 0),
            DropReason::HostDestination,
            None,
        ),
        (packet(&own(), &own(), 0), DropReason::HostDestination, None),
        (bubble(&own(), &peer(), &[]), DropReason::HostBubble, None),
        (
            ipv6(17, 64, &own(), &host, &[0; 1241]),
            DropReason::HostTooBig,
            None,
        ),
    ];
    for (packet, reason, code) in cases {
        assert_eq!(world.host_sends(&packet), Err(reason));
        let errors = world.take_delivered();
        let codes: Vec<_> = errors.iter().map(|error| error[41]).collect();
        assert_eq!(codes, Vec::from_iter(code), "{reason:?}");
        world.pass_seconds(1);
    }
    assert_eq!(world.take_sent(), []);
    world.set_identity(None);
    let data = packet(&own(), &host, 0);
    assert_eq!(world.host_sends(&data), Err(DropReason::HostNotQualified));
    assert_eq!(world.take_delivered()[0][40..42], [1, 3]);
}

#[test]
fn c51_case_5_a_direct_and_an_indirect_bubble_and_the_queue_follows_the_answer() {
    let mut world = World::with(|config| config.extensions = crate::client::Extensions::NONE);
    let first = packet(&own(), &peer(), 1);
    assert_eq!(world.host_sends(&first), Ok(Forward::Queued));
    let expected = bubble(&own(), &peer(), &[]);
    assert_eq!(
        world.take_payloads(),
        [
            (endpoint(PEER), expected.clone()),
            (endpoint(PEER_SERVER), expected)
        ]
    );
    assert_eq!(world.arrives(PEER, &bubble(&peer(), &own(), &[])), Ok(None));
    assert_eq!(world.take_payloads(), [(endpoint(PEER), first)]);
    let next = packet(&own(), &peer(), 2);
    assert_eq!(
        world.host_sends(&next),
        Ok(Forward::Send(PORT, endpoint(PEER), next.len()))
    );
}

#[test]
fn p11_an_impossible_peer_is_an_error_within_ten_seconds_and_then_at_once() {
    let mut world = World::new();
    let start = world.now;
    let data = packet(&own(), &peer(), 1);
    world.host_sends(&data).unwrap();
    while world.delivered.is_empty() {
        world.pass(Duration::from_millis(100));
    }
    assert!(world.now.saturating_since(start) < Duration::from_secs(10));
    assert_eq!(world.take_delivered()[0][40..42], [1, 3]);
    assert_eq!(world.bubbles(Bubble::SentDirect), 4);
    assert_eq!(world.bubbles(Bubble::SentIndirect), 4);
    // The limiter refuses more bubbles: every packet is refused, as often as may be.
    for _ in 0..200 {
        assert_eq!(world.host_sends(&data), Err(DropReason::HostBubbleLimit));
        assert_eq!(world.take_delivered().len(), 1);
        world.pass_seconds(1);
    }
    assert_eq!(world.bubbles(Bubble::SentDirect), 4);
    world.pass_seconds(100);
    assert_eq!(
        world.host_sends(&data),
        Ok(Forward::Queued),
        "300 seconds later"
    );
}

#[test]
fn r16_errors_are_limited() {
    let mut world = World::new();
    let data = packet(&address("2001:db8::1"), &address(HOST), 1);
    for _ in 0..100 {
        world.host_sends(&data).unwrap_err();
    }
    assert_eq!(world.delivered.len(), 10);
    assert_eq!(world.unreachable(Unreachable::RateLimited), 90);
}

#[test]
fn l02_l05_and_l06_impossible_destinations_are_refused() {
    let mut world = World::new();
    for (mapped, server) in [
        ("10.0.0.1:1024", PEER_SERVER),
        ("127.0.0.1:1024", PEER_SERVER),
        ("8.0.0.1:0", PEER_SERVER),
        ("192.168.1.2:1024", PEER_SERVER),
        (MAPPED, PEER_SERVER),
        (PEER, "10.0.0.1:3544"),
        (PEER, "0.0.0.0:3544"),
        (PEER, "192.168.1.2:3544"),
        (PEER, "224.0.0.253:3544"),
    ] {
        let data = packet(&own(), &teredo(mapped, server), 0);
        assert_eq!(
            world.host_sends(&data),
            Err(DropReason::HostDestination),
            "{mapped} {server}"
        );
        assert_eq!(world.take_delivered()[0][40..42], [1, 3]);
        world.pass_seconds(1);
    }
    assert_eq!(world.take_sent(), []);
}

#[test]
fn c51_case_4_only_with_honor_cone() {
    let mut cone = peer();
    cone[8] = 0x80;
    let data = packet(&own(), &cone, 1);
    let mut world = World::new();
    assert_eq!(world.host_sends(&data), Ok(Forward::Queued));
    let mut world = World::with(|config| config.honor_cone = true);
    assert_eq!(
        world.host_sends(&data),
        Ok(Forward::Send(PORT, endpoint(PEER), data.len()))
    );
    assert_eq!(
        world.host_sends(&packet(&own(), &peer(), 1)),
        Ok(Forward::Queued)
    );
}

#[test]
fn p02_a_new_peer_gets_its_bubble_at_once() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    let known = world.peer(&peer()).unwrap();
    assert!(!known.trusted);
    assert_eq!(known.queued, 1);
    assert_eq!(world.take_sent().len(), 2);
}

#[test]
fn p03_thirty_seconds_of_silence_end_trust_but_not_memory() {
    let mut world = World::new();
    let peer = world.trust_peer();
    let data = packet(&own(), &peer, 1);
    world.pass(Duration::from_millis(29_999));
    assert!(matches!(world.host_sends(&data), Ok(Forward::Send(..))));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.host_sends(&data), Ok(Forward::Queued));
    assert!(!world.trusts(&peer));
    assert_eq!(world.peer(&peer).unwrap().mapped, endpoint(PEER), "a hint");
}

#[test]
fn p05_order_is_kept() {
    let mut world = World::new();
    for mark in 1..=5 {
        world.host_sends(&packet(&own(), &peer(), mark)).unwrap();
    }
    world.take_sent();
    world.arrives(PEER, &packet(&peer(), &own(), 9)).unwrap();
    let marks: Vec<u8> = world
        .take_sent()
        .iter()
        .map(|datagram| datagram.payload[40])
        .collect();
    assert_eq!(marks, [1, 2, 3, 4, 5]);
    assert_eq!(world.statistics().encapsulated.packets, 5);
}

#[test]
fn waiting_packets_and_answers_are_timed() {
    let mut world = World::new();
    world.host_sends(&packet(&own(), &peer(), 1)).unwrap();
    world.pass_seconds(1);
    world.host_sends(&packet(&own(), &peer(), 2)).unwrap();
    world.arrives(PEER, &packet(&peer(), &own(), 9)).unwrap();
    let statistics = world.statistics();
    for (durations, number, seconds) in [
        (statistics.waits, 2, 1),
        (statistics.first_waits, 1, 1),
        (statistics.round_trips, 1, 1),
    ] {
        let count: u64 = durations.classes().iter().map(|(_, count)| count).sum();
        assert_eq!((count, durations.sum().as_secs()), (number, seconds));
    }
    // A peer that has answered is not waited for.
    world.host_sends(&packet(&own(), &peer(), 3)).unwrap();
    assert_eq!(world.statistics().waits, statistics.waits);
}

#[test]
fn p06_the_table_is_bounded_and_a_scan_leaves_the_trusted_alone() {
    let mut world = World::with(|config| config.max_peers = 32);
    let peer = world.trust_peer();
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        let host = address(&format!("2000::{high:x}:{low:x}"));
        let _ = world.host_sends(&packet(&own(), &host, 0));
        assert!(world.exchange.peers().count() <= 32);
    }
    assert!(world.trusts(&peer));
    assert!(world.statistics().dropped[DropReason::Evicted] > 900);
    assert!(world.statistics().queue_packets <= 4);
}

#[test]
fn p09_making_room_does_not_forget_bubbles() {
    let mut world = World::with(|config| config.max_peers = 16);
    let data = packet(&own(), &peer(), 1);
    world.host_sends(&data).unwrap();
    for host in ["2000::1", "2000::2"] {
        let _ = world.host_sends(&packet(&own(), &address(host), 0));
    }
    assert_eq!(world.statistics().dropped[DropReason::Evicted], 1);
    world.host_sends(&data).unwrap();
    assert_eq!(world.bubbles(Bubble::SentIndirect), 1);
    world.pass_seconds(3);
    assert_eq!(world.bubbles(Bubble::SentIndirect), 2);
}

#[test]
fn p07_queues_are_bounded() {
    let mut world = World::with(|config| {
        config.queue_per_peer = 3;
        config.queue_total_bytes = 1000;
    });
    let data = packet(&own(), &peer(), 1);
    for _ in 0..3 {
        assert_eq!(world.host_sends(&data), Ok(Forward::Queued));
    }
    assert_eq!(world.host_sends(&data), Err(DropReason::HostQueuePeer));
    let mut total = Ok(Forward::Queued);
    for number in 0..10 {
        total = world.host_sends(&packet(&own(), &address(&format!("2000::{number:x}")), 1));
    }
    assert_eq!(total, Err(DropReason::HostQueueTotal));
    assert!(world.statistics().queue_octets <= 1000);
}

#[test]
fn c45_another_address_forgets_all_peers() {
    let mut world = World::new();
    world.trust_peer();
    world
        .host_sends(&packet(&own(), &address(HOST), 1))
        .unwrap();
    world.take_sent();
    let changed = Identity {
        address: teredo("9.0.0.1:5000", SERVER).into(),
        mapped: endpoint("9.0.0.1:5000"),
        ..World::identity(Nat::Restricted)
    };
    world.set_identity(Some(changed));
    assert_eq!(world.exchange.peers().count(), 0);
    assert_eq!(world.statistics().queue_packets, 0);
    world.pass_seconds(20);
    assert_eq!(world.take_sent(), []);
    assert_eq!(
        world.host_sends(&packet(&own(), &peer(), 1)),
        Err(DropReason::HostSource)
    );
    let data = packet(&own(), &address(HOST), 1);
    assert_eq!(
        world.arrives(PEER, &packet(&peer(), &own(), 1)),
        Err(DropReason::Destination)
    );
    assert_eq!(world.host_sends(&data), Err(DropReason::HostSource));
}

#[test]
fn t11_in_the_tunnel_everything_goes_to_the_server_and_comes_from_it() {
    let mut world = World::new();
    let address_of = address("2001:db8:1:2:3:4:5:6");
    world.set_identity(Some(Identity {
        address: address_of.into(),
        tunnel: true,
        ..World::identity(Nat::Symmetric)
    }));
    let to_server = |data: &[u8]| Ok(Forward::Send(PORT, endpoint(SERVER), data.len()));
    for destination in [address(HOST), peer(), teredo("10.0.0.1:1", "10.0.0.1:1")] {
        let data = packet(&address_of, &destination, 1);
        assert_eq!(world.host_sends(&data), to_server(&data));
        let data = packet(&destination, &address_of, 1);
        assert_eq!(world.arrives(SERVER, &data), Ok(Some(data.len())));
        for elsewhere in ["1.2.3.4:3545", "1.2.3.5:3544", PEER, RELAY] {
            assert_eq!(world.arrives(elsewhere, &data), Err(DropReason::Tunnel));
        }
    }
    let foreign = packet(&address(HOST), &address("2001:db8:1:2::7"), 1);
    assert_eq!(
        world.arrives(SERVER, &foreign),
        Err(DropReason::Destination)
    );
    world.pass_seconds(1000);
    assert_eq!(world.take_sent().len(), 3, "no bubbles, no tests");
    assert_eq!(world.exchange.peers().count(), 0);
    assert_eq!(world.discovery, []);
}

#[test]
fn packets_that_go_at_once_are_decided_on_together() {
    let mut world = World::new();
    let host = address(HOST);
    let forward = |world: &mut World, packet: &[u8], largest| {
        let header = Header::parse(packet).unwrap();
        let way = world.exchange.forward(
            &mut world.shared,
            world.now,
            header,
            largest,
            Count::of(largest),
        );
        assert_eq!(world.shared.transmits.len(), 0);
        way
    };
    let data = packet(&own(), &host, 1);
    // Nobody knows the host, and asking is for the packets one by one.
    assert_eq!(forward(&mut world, &data, data.len()), None);
    assert_eq!(world.peer(&host), None);

    world.trust_host();
    world.pass_seconds(2);
    assert_eq!(
        forward(&mut world, &data, 1280),
        Some((PORT, endpoint(RELAY)))
    );
    assert_eq!(world.peer(&host).unwrap().last_sent, world.now);
    for (packet, largest) in [
        (&data, 1281),
        (&packet(&address("2001:0:102:304::1"), &host, 0), 100),
        (&packet(&own(), &address("ff02::1"), 0), 100),
        (&bubble(&own(), &host, &[]), 40),
    ] {
        assert_eq!(forward(&mut world, packet, largest), None);
    }
    world.pass_seconds(40);
    assert_eq!(forward(&mut world, &data, data.len()), None);

    let identity = Identity {
        tunnel: true,
        ..World::identity(Nat::Restricted)
    };
    world.set_identity(Some(identity));
    assert_eq!(
        forward(&mut world, &data, data.len()),
        Some((PORT, endpoint(SERVER)))
    );
    world.set_identity(None);
    assert_eq!(forward(&mut world, &data, data.len()), None);
}
