//! Stopping a server without its clients noticing.

use std::time::Duration;

use super::harness::*;
use crate::server::{DRAIN, DropReason};

#[test]
fn s27_no_solicitation_is_answered_and_the_rest_goes_on_for_two_intervals() {
    let mut world = World::new();
    assert!(!world.server.is_draining());
    world.server.drain(world.now);
    assert!(world.server.is_draining());
    world.drops(DropReason::Draining, CLIENT, &solicitation(SOLICITOR));
    world.drops(
        DropReason::Draining,
        CLIENT,
        &with_nonce(&solicitation(CONE_SOLICITOR)),
    );
    world.drops_at(
        Secondary,
        DropReason::Draining,
        CLIENT,
        &solicitation(SOLICITOR),
    );

    let client = teredo(CLIENT);
    let from_relay = bubble(&address("fe80::1"), &client);
    let packets = [
        bubble(&client, &teredo(OTHER)),
        echo(&client, &address(HOST)),
        echo(&client, &address("ff02::2")),
        from_relay.clone(),
    ];
    world.pass(DRAIN - Duration::from_nanos(1));
    // Once more does not start anew.
    world.server.drain(world.now);
    for packet in &packets {
        assert!(world.receives(CLIENT, packet).is_some());
    }
    assert!(world.relay_sends(&from_relay).is_some());

    world.pass(Duration::from_nanos(1));
    let before = world.dropped(DropReason::Draining);
    for packet in &packets {
        assert_eq!(world.receives(CLIENT, packet), None);
    }
    assert_eq!(world.relay_sends(&from_relay), None);
    assert_eq!(world.dropped(DropReason::Draining), before + 5);
}

#[test]
fn p04_suspension_counts_for_draining() {
    let mut world = World::new();
    world.server.drain(world.now);
    let echo = echo(&teredo(CLIENT), &address("ff02::2"));
    world
        .server
        .handle_suspension(world.now, DRAIN - Duration::from_secs(1));
    let left = Duration::from_secs(1);
    assert_eq!(world.server.drain_end(), Some(world.now + left));
    assert!(world.receives(CLIENT, &echo).is_some());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.receives(CLIENT, &echo), None);
}
