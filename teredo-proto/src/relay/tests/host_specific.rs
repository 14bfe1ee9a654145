//! L-08.

use super::harness::*;
use crate::relay::{Bubble, DropReason};

fn host_specific() -> World {
    World::with(|config| config.host_specific = true)
}

#[test]
fn r30_serves_own_addresses_alone() {
    let mut world = host_specific();
    assert!(!world.native_sends(&packet(&address(HOST), &teredo(CLIENT), 1)));
    assert_eq!(world.dropped(DropReason::EncapSource), 1);
    assert!(!world.native_sends(&packet(&address("fe80::1"), &teredo(CLIENT), 1)));
    assert_eq!(world.dropped(DropReason::EncapSource), 2, "global ones");
    assert!(!world.native_sends(&packet(&address(OWN), &teredo(CLIENT), 1)));
    assert_eq!(world.statistics().queued, 1);
}

#[test]
fn r31_l08_never_forwards() {
    let mut world = host_specific();
    let client = teredo(CLIENT);
    world.native_sends(&packet(&address(OWN), &client, 1));
    let data = packet(&client, &address(OWN), 1);
    assert_eq!(world.client_sends(CLIENT, &data), Some(data));
    assert_eq!(
        world.client_sends(CLIENT, &packet(&client, &address(HOST), 1)),
        None
    );
    assert_eq!(world.dropped(DropReason::DecapDestination), 1);
}

#[test]
fn r33_always_sends_both_bubbles() {
    let mut world = host_specific();
    world.native_sends(&packet(&address(OWN), &teredo(CLIENT), 1));
    assert_eq!(world.counted(Bubble::SentDirect), 1);
    assert_eq!(world.counted(Bubble::SentIndirect), 1);
}

#[test]
fn r34_the_hop_limit_of_own_packets_stays() {
    let mut world = host_specific();
    let client = teredo(CLIENT);
    let first = packet(&address(OWN), &client, 1);
    world.native_sends(&first);
    world.take_sent();
    world.client_sends(CLIENT, &bubble(&client, &address(OWN)));
    assert_eq!(world.take_data(), [(endpoint(CLIENT), first)]);
}

#[test]
fn r30_addresses_may_change() {
    let mut world = host_specific();
    world.relay.set_own_addresses(&[], &[HOST.parse().unwrap()]);
    assert!(!world.native_sends(&packet(&address(HOST), &teredo(CLIENT), 1)));
    assert_eq!(world.statistics().queued, 1);
    assert!(!world.native_sends(&packet(&address(OWN), &teredo(CLIENT), 1)));
    assert_eq!(world.dropped(DropReason::EncapSource), 1);
}
