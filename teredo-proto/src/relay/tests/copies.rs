//! Copies, which are asked what the relay would do.

use super::harness::*;
use crate::relay::{DropReason, Transmit};

/// Returns what a relay would do with a packet of the native host: its destination, or what it sends first.
fn tried(world: &World, client: &[u8; 16]) -> (Option<Vec<u8>>, Vec<Transmit>, Option<DropReason>) {
    let mut copy = world.relay.copy(world.now, [7; 32], &[*client]);
    let mut packet = packet(&address(HOST), client, 1);
    let sent = copy.handle_ipv6(world.now, &mut packet);
    let sent = sent.map(|(to, _)| to.to_string().into_bytes());
    let transmits = std::iter::from_fn(|| copy.poll_transmit()).collect();
    let statistics = copy.statistics();
    let mut dropped = statistics.dropped.iter();
    let reason = dropped.find_map(|(reason, count)| (count > 0).then_some(reason));
    (sent, transmits, reason)
}

#[test]
fn a_copy_decides_as_the_relay_does_and_changes_nothing() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    for _ in 0..3 {
        let (sent, transmits, reason) = tried(&world, &client);
        assert_eq!((sent, reason), (None, None), "it asks the client");
        assert!(
            matches!(&transmits[..], [Transmit::Datagram { to, .. }] if *to == endpoint(SERVER))
        );
    }
    assert_eq!(world.relay.peers().count(), 0);
    assert_eq!(world.relay.statistics(), World::new().relay.statistics());

    // The same client, trusted.
    assert!(!world.native_sends(&packet(&address(HOST), &client, 1)));
    assert_eq!(world.relay.unanswered(&client), 1);
    let (_, _, bubble) = world.sent.last().cloned().unwrap();
    let answer = bubble_to(&client, &bubble);
    world.client_sends(CLIENT, &answer);
    let before = world.relay.statistics();
    let (sent, _, reason) = tried(&world, &client);
    assert_eq!(sent, Some(CLIENT.into()));
    assert_eq!((world.relay.unanswered(&client), reason), (0, None));
    assert_eq!(world.relay.statistics(), before);
}

#[test]
fn a_copy_drains_as_the_relay_does() {
    let mut world = World::new();
    world.relay.drain();
    let (sent, _, reason) = tried(&world, &teredo(CLIENT));
    assert_eq!((sent, reason), (None, Some(DropReason::EncapDraining)));
}

/// The client's answer to a bubble.
fn bubble_to(client: &[u8; 16], asked: &[u8]) -> Vec<u8> {
    bubble(client, asked[8..24].try_into().unwrap())
}
