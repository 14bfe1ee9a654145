//! Relays that are restarted, hosts that fall silent, and suspension (P-04, P-09, P-14).

use std::time::Duration;

use super::harness::*;
use crate::client::{Test, exchange::Forward};

/// A relay that is restarted asks again and again, and its packets show that it got the answer.
#[test]
fn p09_packets_of_a_trusted_host_answer_for_its_relay() {
    let mut world = World::new();
    let host = world.trust_host();
    world.take_sent();
    for restart in 0..20 {
        let cookie = address(&format!("fe80::{restart:x}"));
        let asked = with_origin(RELAY, &bubble(&cookie, &own(), &[]));
        world.arrives(SERVER, &asked).unwrap();
        let sent = world.take_sent();
        assert_eq!(sent.len(), 1, "restart {restart}");
        assert_eq!(sent[0].to, endpoint(RELAY));
        let data = packet(&host, &own(), 1);
        assert_eq!(world.arrives(RELAY, &data), Ok(Some(data.len())));
        world.pass_seconds(12);
    }
}

/// Bubbles in a relay's name that others have sent do not silence the client for minutes.
#[test]
fn p09_forged_bubbles_do_not_keep_a_relay_away() {
    let mut world = World::new();
    let ask = |world: &mut World| {
        let asked = with_origin(RELAY, &bubble(&address("fe80::1"), &own(), &[]));
        world.arrives(SERVER, &asked).unwrap();
        world.take_sent().len()
    };
    for _ in 0..300 {
        ask(&mut world);
        world.pass_seconds(1);
    }
    world.pass_seconds(64);
    assert_eq!(ask(&mut world), 1);
}

/// A host that answers no more is tested soon (P-14), one that never sent anything is not.
#[test]
fn p14_a_host_that_falls_silent_while_it_is_sent_to_is_tested() {
    for is_talking in [true, false] {
        let mut world = World::new();
        let host = world.trust_host();
        world.take_sent();
        if is_talking {
            world.arrives(RELAY, &packet(&host, &own(), 1)).unwrap();
        }
        world.pass_seconds(5);
        let start = world.now;
        let data = packet(&own(), &host, 1);
        while world.tests(Test::Sent) == 1 {
            assert!(world.now.saturating_since(start) < Duration::from_secs(25));
            assert!(matches!(world.host_sends(&data), Ok(Forward::Send(..))));
            world.pass(Duration::from_millis(100));
        }
        let silence = world.now.saturating_since(start).as_secs_f64();
        let expected = if is_talking { 3.0 } else { 20.0 };
        assert!((silence - expected).abs() < 1.0, "{is_talking}: {silence}");
    }
}

/// Requests that are answered are no reason for a test, however long the pauses between them.
#[test]
fn p14_a_host_that_answers_is_not_tested() {
    let mut world = World::new();
    let host = world.trust_host();
    for _ in 0..10 {
        world.host_sends(&packet(&own(), &host, 1)).unwrap();
        world.pass(Duration::from_millis(100));
        world.arrives(RELAY, &packet(&host, &own(), 1)).unwrap();
        world.pass_seconds(20);
    }
    assert_eq!(world.tests(Test::Sent), 1);
}

/// After suspension every peer has to prove itself again, and nothing of before proves anything.
#[test]
fn p04_suspension_ends_all_trust() {
    let mut world = World::new();
    let (host, peer) = (world.trust_host(), world.trust_peer());
    let other = address("2000::c");
    world.host_sends(&packet(&own(), &other, 1)).unwrap();
    let sent = world.take_payloads();
    let (_, test) = sent.last().unwrap();
    world.suspend(Duration::from_secs(3600));
    assert!(!world.trusts(&host) && !world.trusts(&peer));
    let _ = world.arrives(RELAY, &reply_to(test));
    assert!(!world.trusts(&other), "an old answer");
    for address in [host, peer] {
        let data = packet(&own(), &address, 1);
        assert_eq!(world.host_sends(&data), Ok(Forward::Queued));
    }
    let sent: Vec<_> = world.take_sent().iter().map(|sent| sent.to).collect();
    assert!(sent.contains(&endpoint(SERVER)), "the host is tested");
    assert!(sent.contains(&endpoint(PEER_SERVER)), "the peer is asked");
}
