//! The life of entries (P-03 to P-06).

use std::time::Duration;

use super::harness::*;
use crate::relay::{DropReason, Event, Transmit, trust::MAX_CHORES};
use teredo_common::time::Instant;

#[test]
fn p03_silence_ends_trust_for_packets_and_for_the_fast_path() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let start = world.now;
    world.now = start + Duration::from_millis(29_999);
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    world.now = start + Duration::from_secs(30);
    assert!(
        !world.native_sends(&packet(&address(HOST), &client, 2)),
        "whatever the timers did"
    );
    let forgotten = Event::PeerForgotten {
        address: client.into(),
    };
    assert_eq!(world.take_events().last(), Some(&forgotten));
    assert_eq!(
        world.relay.peers().next().unwrap().mapped,
        endpoint(CLIENT),
        "a hint"
    );
}

#[test]
fn p03_an_idle_peer_is_forgotten_and_at_last_removed() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.pass(Duration::from_secs(30));
    assert_eq!(world.take_events(), []);
    world.pass(Duration::from_secs(3));
    let forgotten = Event::PeerForgotten {
        address: client.into(),
    };
    assert_eq!(world.take_events(), [forgotten]);
    assert_eq!(world.relay.peers().count(), 1);
    world.pass(Duration::from_secs(270));
    assert_eq!(world.relay.peers().count(), 0);
    assert_eq!(world.relay.poll_timeout(), None);
    assert_eq!(world.take_events(), []);
    assert_eq!(world.statistics().forgotten, 1);
}

#[test]
fn p03_packets_keep_a_peer() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    for _ in 0..20 {
        world.pass(Duration::from_secs(20));
        assert!(
            world
                .client_sends(CLIENT, &packet(&client, &address(HOST), 1))
                .is_some()
        );
    }
    assert!(world.bubbles().is_empty());
    assert_eq!(world.statistics().forgotten, 0);
}

#[test]
fn p04_time_that_stands_still_or_steps_back_makes_nothing_fresh() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.pass(Duration::from_secs(40));
    assert_eq!(world.statistics().trusted_peers, 0);
    world.now = world.now - Duration::from_secs(35);
    assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
    world.relay.handle_timeout(Instant::ZERO);
    assert_eq!(world.statistics().trusted_peers, 0);
}

#[test]
fn p04_after_suspension_every_peer_proves_itself_again() {
    let mut world = World::with(|config| config.max_peers = 64);
    let trusted: Vec<_> = (1..=40)
        .map(|number| world.trust(&format!("9.0.0.{number}:1")))
        .collect();
    world.pass(Duration::from_secs(5));
    world.take_events();
    world.relay.handle_suspension(Duration::from_secs(3600));
    let mut forgotten = std::collections::HashSet::new();
    while let Some(event) = world.relay.poll_event() {
        let Event::PeerForgotten { address } = event else {
            panic!("{event:?}");
        };
        assert!(forgotten.insert(address.octets()));
    }
    assert_eq!(forgotten, trusted.iter().copied().collect());
    let statistics = world.statistics();
    assert_eq!(statistics.trusted_peers, 0);
    assert_eq!(statistics.untrusted_peers, 8, "the quota holds");
    assert_eq!(statistics.forgotten, 40);
    // The stamps of the fast path are from before.
    for client in &trusted {
        assert!(!world.relay.record_stamps(client, world.now, world.now));
        assert!(!world.relay.is_usable(world.now, client));
    }
    world.take_sent();
    assert!(!world.native_sends(&packet(&address(HOST), &trusted[0], 1)));
    assert_eq!(world.bubbles().len(), 1, "asked at once");
    world.client_sends("9.0.0.1:1", &bubble(&trusted[0], &address(HOST)));
    assert!(world.native_sends(&packet(&address(HOST), &trusted[0], 2)));
}

#[test]
fn p04_a_cookie_from_before_suspension_proves_nothing() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    world.native_sends(&packet(&address(HOST), &client, 1));
    let cookie = world.cookie();
    world.relay.handle_suspension(Duration::from_secs(3600));
    world.client_sends("9.0.0.1:7777", &bubble(&client, &cookie));
    assert_eq!(world.statistics().trusted, 0);
}

#[test]
fn waiting_packets_and_answers_are_timed() {
    let mut world = World::new();
    for mark in 0..2 {
        world.native_sends(&packet(&address(HOST), &teredo(CLIENT), mark));
        world.pass(Duration::from_millis(300));
    }
    world.accept(CLIENT);
    let statistics = world.relay.statistics();
    for (durations, number, milliseconds) in [
        (statistics.waits, 3, 900),
        (statistics.first_waits, 1, 600),
        (statistics.round_trips, 1, 600),
    ] {
        let count: u64 = durations.classes().iter().map(|(_, count)| count).sum();
        assert_eq!((count, durations.sum().as_millis()), (number, milliseconds));
    }
}

#[test]
fn p05_what_waited_is_never_overtaken() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    let packets: Vec<_> = (0..8)
        .map(|mark| packet(&address(HOST), &client, mark))
        .collect();
    for packet in &packets[..5] {
        world.native_sends(packet);
    }
    world.take_sent();
    // Another relay with the same secret asks the same question.
    let mut other = World::new();
    other.accept(CLIENT);
    let question = other.question(CLIENT);
    let relay = &mut world.relay;
    relay.handle_datagram(
        world.now,
        endpoint(CLIENT),
        0,
        &mut bubble(&client, &question),
    );
    // A caller that has not yet sent the waiting packets.
    assert_eq!(relay.handle_ipv6(world.now, &mut packets[5].clone()), None);
    assert_eq!(
        relay.poll_event(),
        None,
        "the fast path hears of the peer last"
    );
    for expected in &packets[..6] {
        let Some(Transmit::Datagram { to, payload }) = relay.poll_transmit() else {
            panic!()
        };
        assert_eq!((to, &payload), (endpoint(CLIENT), expected));
    }
    assert!(
        relay
            .handle_ipv6(world.now, &mut packets[6].clone())
            .is_some()
    );
    assert_eq!(relay.poll_transmit(), None);
    assert!(matches!(
        relay.poll_event(),
        Some(Event::PeerTrusted { .. })
    ));
    assert_eq!(relay.poll_event(), None);
    assert_eq!(world.statistics().encapsulated.packets, 7);
}

#[test]
fn p06_a_scan_does_not_push_out_trusted_peers() {
    let mut world = World::with(|config| config.max_peers = 16);
    let trusted: Vec<_> = (1..=10)
        .map(|number| world.trust(&format!("9.0.0.{number}:1")))
        .collect();
    for port in 1..=500 {
        let client = teredo(&format!("9.1.0.1:{port}"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    let statistics = world.statistics();
    assert_eq!(
        (statistics.trusted_peers, statistics.untrusted_peers),
        (10, 2)
    );
    assert_eq!(world.dropped(DropReason::EncapEvicted), 498);
    assert_eq!(statistics.queue_packets, 2);
    for client in trusted {
        assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    }
    assert_eq!(world.statistics().forgotten, 0);
}

#[test]
fn p06_peers_that_fall_silent_keep_to_the_quota() {
    let mut world = World::with(|config| config.max_peers = 16);
    let trusted: Vec<_> = (1..=10)
        .map(|number| world.trust(&format!("9.0.0.{number}:1")))
        .collect();
    world.now += Duration::from_secs(31);
    for client in trusted {
        world.native_sends(&packet(&address(HOST), &client, 1));
        assert!(world.statistics().untrusted_peers <= 2);
    }
    assert_eq!(world.statistics().trusted_peers, 0);
    assert_eq!(world.statistics().forgotten, 10);
}

#[test]
fn p06_a_peer_that_falls_silent_by_itself_evicts_no_other() {
    let mut world = World::with(|config| config.max_peers = 16);
    world.trust(CLIENT);
    world.pass(Duration::from_secs(31));
    for number in 1..=2 {
        let client = teredo(&format!("9.1.0.{number}:1"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    world.pass(Duration::from_secs(2));
    let statistics = world.statistics();
    assert_eq!((statistics.forgotten, statistics.trusted_peers), (1, 0));
    assert_eq!(
        (statistics.untrusted_peers, statistics.queue_packets),
        (2, 2)
    );
}

#[test]
fn p12_a_peer_is_asked_only_once_until_it_answers() {
    let mut world = World::with(|config| config.peer_lifetime = Duration::from_secs(1000));
    let client = world.trust(CLIENT);
    for _ in 0..900 {
        assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.bubbles().len(), 4, "one procedure");
    world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
    for _ in 0..40 {
        world.native_sends(&packet(&address(HOST), &client, 1));
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.bubbles().len(), 8, "and another one");
}

#[test]
fn p06_the_least_recently_used_trusted_peer_goes_first() {
    let mut world = World::with(|config| config.max_peers = 16);
    let trusted: Vec<_> = (1..=14)
        .map(|number| {
            world.pass(Duration::from_millis(100));
            world.trust(&format!("9.0.0.{number}:1"))
        })
        .collect();
    world.pass(Duration::from_secs(2));
    world.native_sends(&packet(&address(HOST), &trusted[0], 1));
    world.take_events();
    let newest = teredo("9.0.0.15:1");
    world.native_sends(&packet(&address(HOST), &newest, 1));
    world.client_sends("9.0.0.15:1", &bubble(&newest, &address(HOST)));
    let events = world.take_events();
    assert_eq!(
        events[0],
        Event::PeerForgotten {
            address: trusted[1].into()
        }
    );
    assert_eq!(events.len(), 1);
    assert_eq!(world.statistics().trusted_peers, 14);
}

#[test]
fn p06_a_place_given_back_is_used_again() {
    let mut world = World::with(|config| config.max_peers = 16);
    for round in 0..20_u16 {
        for number in 1..=10 {
            world.trust(&format!("9.{round}.0.{number}:1"));
        }
        world.pass(Duration::from_secs(400));
        assert_eq!(world.relay.peers().count(), 0);
    }
}

#[test]
fn l02_peers_that_become_own_are_forgotten() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.trust("9.0.0.2:1");
    world
        .relay
        .set_own_addresses(&["9.0.0.1".parse().unwrap()], &[]);
    let forgotten = Event::PeerForgotten {
        address: client.into(),
    };
    assert_eq!(world.relay.poll_event(), Some(forgotten));
    assert_eq!(world.relay.poll_event(), None);
    assert_eq!(world.relay.peers().count(), 1);
}

#[test]
fn what_is_due_together_wakes_the_daemon_once() {
    let mut world = World::new();
    for client in 1..=200 {
        world.now += Duration::from_micros(500);
        world.trust(&format!("9.0.0.{client}:1"));
    }
    world.pass(Duration::from_secs(3));
    let mut wakes = 0;
    while let Some(deadline) = world.relay.poll_timeout() {
        assert!(deadline > world.now);
        world.now = deadline;
        world.relay.handle_timeout(deadline);
        wakes += 1;
    }
    assert!(wakes <= 6, "{wakes}");
    assert_eq!(world.relay.peers().count(), 0);
}

#[test]
fn one_call_does_a_bounded_part_of_what_is_due() {
    let mut world = World::new();
    let count = 3 * MAX_CHORES;
    for client in 0..count {
        world.trust(&format!("9.0.{}.{}:1", client / 250, client % 250 + 1));
    }
    world.now += Duration::from_secs(100);
    let mut calls = 0;
    while world.statistics().trusted_peers > 0 {
        let before = world.statistics().trusted_peers;
        assert!(world.relay.poll_timeout().unwrap() <= world.now);
        world.relay.handle_timeout(world.now);
        assert!(before - world.statistics().trusted_peers <= MAX_CHORES);
        calls += 1;
    }
    assert!((3..10).contains(&calls), "{calls}");
}
