//! The exchange between the protocol and the fast path's map.

use std::time::Duration;

use super::harness::*;
use crate::relay::Event;
use teredo_common::{peers::Peer, time::Instant};

const SECOND: Duration = Duration::from_secs(1);

fn forgotten(address: [u8; 16]) -> Event {
    Event::PeerForgotten {
        address: address.into(),
    }
}

#[test]
fn stamps_keep_a_peer_alive() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    for _ in 0..100 {
        world.pass(SECOND);
        let stamp = world.now - SECOND;
        assert!(world.relay.record_stamps(&client, stamp, stamp));
    }
    assert_eq!(world.take_events(), []);
    assert!(world.bubbles().is_empty());
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
}

#[test]
fn stamps_only_move_forward() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let before = world.relay.peers().next().unwrap();
    assert!(
        world
            .relay
            .record_stamps(&client, Instant::ZERO, Instant::ZERO)
    );
    assert_eq!(world.relay.peers().next().unwrap(), before);
    world.pass(SECOND);
    let sent = world.now;
    assert!(world.relay.record_stamps(&client, Instant::ZERO, sent));
    let after = world.relay.peers().next().unwrap();
    assert_eq!(
        (after.last_received, after.last_sent),
        (before.last_received, sent)
    );
    let received = world.now;
    assert!(world.relay.record_stamps(&client, received, Instant::ZERO));
    let after = world.relay.peers().next().unwrap();
    assert_eq!((after.last_received, after.last_sent), (received, sent));
}

#[test]
fn stamps_of_strangers_are_refused_and_trust_nobody() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    assert!(!world.relay.record_stamps(&client, world.now, world.now));
    world.native_sends(&packet(&address(HOST), &client, 1));
    assert!(!world.relay.record_stamps(&client, world.now, world.now));
    assert_eq!(world.statistics().trusted_peers, 0);
}

#[test]
fn late_stamps_are_waited_for() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let start = world.now;
    world.pass(Duration::from_millis(31_500));
    assert!(
        world
            .relay
            .record_stamps(&client, start + 29 * SECOND, start)
    );
    world.pass(10 * SECOND);
    assert_eq!(world.take_events(), []);
}

#[test]
fn p12_one_way_traffic_in_the_fast_path_asks_the_peer() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let start = world.now;
    while world.bubbles().is_empty() {
        world.pass(SECOND);
        let stamp = world.now;
        assert!(world.relay.record_stamps(&client, start, stamp));
        assert!(world.now < start + 29 * SECOND);
    }
    assert!(world.now >= start + 25 * SECOND);
    let answer = world.now;
    assert!(
        world.relay.record_stamps(&client, answer, answer),
        "it answers in the fast path"
    );
    world.take_sent();
    world.pass(10 * SECOND);
    assert!(world.bubbles().is_empty());
}

#[test]
fn p12_traffic_that_starts_late_asks_the_peer_too() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let start = world.now;
    world.pass(27 * SECOND);
    assert!(world.bubbles().is_empty());
    assert!(world.relay.record_stamps(&client, start, world.now));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.bubbles().len(), 1);
}

#[test]
fn p12_a_peer_that_stays_silent_is_asked_once_and_forgotten() {
    let mut world = World::with(|config| config.refresh_after = 10 * SECOND);
    let client = world.trust(CLIENT);
    let start = world.now;
    while world.relay.record_stamps(&client, start, world.now) {
        world.pass(SECOND);
        assert!(world.now < start + 34 * SECOND);
    }
    assert!(world.now > start + 30 * SECOND);
    assert_eq!(world.take_events(), [forgotten(client)]);
    assert_eq!(world.bubbles().len(), 4);
}

#[test]
fn a_lost_map_entry_heals_within_a_second_and_not_more_often() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let start = world.now;
    for _ in 0..50 {
        world.pass(Duration::from_millis(100));
        world.native_sends(&packet(&address(HOST), &client, 1));
        world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
    }
    let events = world.take_events();
    assert_eq!(events.len(), 5);
    for event in events {
        let Event::PeerTrusted {
            mapped,
            last_received,
            ..
        } = event
        else {
            panic!()
        };
        assert_eq!(mapped, endpoint(CLIENT));
        assert!(last_received > start || world.now > start);
    }
}

#[test]
fn a_peer_that_was_forgotten_and_comes_back_is_told_at_once() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.pass(40 * SECOND);
    world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
    world.prove(&client, CLIENT);
    let events = world.take_events();
    assert_eq!(events[0], forgotten(client));
    assert!(matches!(events[1], Event::PeerTrusted { .. }));
}

fn entry(now: Instant) -> Peer {
    Peer {
        mapped: endpoint(CLIENT),
        last_received: now,
        last_sent: now,
    }
}

#[test]
fn a_restarted_relay_adopts_what_is_trusted_and_fresh() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    let entry = entry(world.now - 10 * SECOND);
    assert!(world.relay.adopt_peer(world.now, client.into(), &entry));
    assert!(
        !world.relay.adopt_peer(world.now, client.into(), &entry),
        "once"
    );
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    assert!(
        world
            .client_sends(CLIENT, &packet(&client, &address(HOST), 1))
            .is_some()
    );
    world.pass(100 * SECOND);
    assert_eq!(
        world.take_events(),
        [forgotten(client)],
        "and forgets it like any other"
    );
}

#[test]
fn a_restarted_relay_adopts_nothing_else() {
    let mut world = World::new();
    let now = world.now;
    let mut refuse = |address: [u8; 16], change: &dyn Fn(&mut Peer)| {
        let mut entry = entry(now);
        change(&mut entry);
        assert!(
            !world.relay.adopt_peer(now, address.into(), &entry),
            "{entry:?}"
        );
    };
    let client = teredo(CLIENT);
    refuse(client, &|entry| entry.last_received = now - 30 * SECOND);
    refuse(client, &|entry| {
        entry.mapped = endpoint("10.0.0.1:4096");
    });
    refuse(client, &|entry| {
        entry.mapped = endpoint(RELAY);
    });
    refuse(address(HOST), &|_| ());
    refuse(teredo("10.0.0.1:4096"), &|entry| {
        entry.mapped = endpoint("10.0.0.1:4096")
    });
    refuse(teredo_of(CLIENT, "10.0.0.1:1", 0), &|_| ());
    let symmetric = Peer {
        mapped: endpoint("9.0.0.2:77"),
        ..entry(now)
    };
    assert!(world.relay.adopt_peer(now, client.into(), &symmetric));
    assert!(
        world
            .client_sends("9.0.0.2:77", &packet(&client, &address(HOST), 1))
            .is_some()
    );
}

#[test]
fn adoption_ends_where_the_table_does() {
    let mut world = World::with(|config| config.max_peers = 16);
    let adopted = (1..=20)
        .filter(|port| {
            let mapped = format!("9.0.0.1:{port}");
            let entry = Peer {
                mapped: endpoint(&mapped),
                ..entry(world.now)
            };
            world
                .relay
                .adopt_peer(world.now, teredo(&mapped).into(), &entry)
        })
        .count();
    assert_eq!(adopted, 14);
    assert_eq!(world.statistics().trusted_peers, 14);
}
