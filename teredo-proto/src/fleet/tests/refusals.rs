//! Relays that start with something wrong: they do not take themselves for alone (F-19).

use std::net::SocketAddr;

use super::{
    harness::{Net, client, keys, mapping, member},
    saying::{dropped, record},
};
use crate::fleet::{
    DropReason, Refusal,
    wire::{Heartbeat, Message},
};

/// Why a relay refuses another one.
fn refusal(net: &Net, number: usize, other: usize) -> Option<Refusal> {
    let mut others = net.nodes[number].fleet.others(net.clocks(number).now);
    let other = others.find(|info| info.address == member(other));
    other.expect("a member").refusal
}

fn set_keys(net: &mut Net, number: usize, key: u8) {
    let node = &mut net.nodes[number];
    node.fleet.set_keys(keys(key), &mut node.relay);
}

/// The relay does not join while the time passes.
fn assert_out_for(net: &mut Net, number: usize, seconds: u64) {
    for second in 0..seconds {
        net.run(1_000);
        assert!(!net.nodes[number].fleet.has_joined(), "after {second} s");
    }
}

fn assert_joins_within(net: &mut Net, number: usize, milliseconds: u64) {
    net.run(milliseconds);
    assert!(net.nodes[number].fleet.has_joined());
}

#[test]
fn f19_a_relay_with_another_key_does_not_join() {
    let mut net = Net::new(3);
    net.introduce(0, mapping(1), &client(1));
    net.restart(1);
    set_keys(&mut net, 1, 2);
    assert_out_for(&mut net, 1, 120);
    assert_eq!(refusal(&net, 1, 0), Some(Refusal::Key));
    assert_eq!(refusal(&net, 0, 1), Some(Refusal::Key));
    net.introduce(0, mapping(1), &client(1));
    set_keys(&mut net, 1, 1);
    assert_joins_within(&mut net, 1, 3_000);
    assert!(net.is_usable(1, &client(1)));
    assert_eq!(refusal(&net, 1, 0), None);
}

/// It signs with a key that the others do not have, and has theirs.
#[test]
fn f19_a_relay_that_is_not_heard_does_not_join() {
    let mut net = Net::new(3);
    net.restart(1);
    net.cut.extend([(1, 0), (1, 2)]);
    assert_out_for(&mut net, 1, 90);
    net.cut.clear();
    assert_joins_within(&mut net, 1, 2_000);
}

#[test]
fn f19_a_relay_with_a_wrong_clock_does_not_join() {
    for ahead in [-60_000, 60_000] {
        let mut net = Net::new(3);
        net.nodes[1].ahead = ahead;
        net.restart(1);
        assert_out_for(&mut net, 1, 50);
        assert_eq!(refusal(&net, 1, 0), Some(Refusal::Clock));
        assert_out_for(&mut net, 1, 70);
    }
}

#[test]
fn f19_a_relay_of_another_version_does_not_join() {
    let mut net = Net::new(2);
    net.nodes[1].is_up = false;
    net.restart(0);
    for _ in 0..100 {
        let mut datagram = record(&mut net, 1, 0, &heartbeat());
        datagram[2] += 1;
        net.receive(1, 0, &datagram);
        net.run(1_000);
        assert!(!net.nodes[0].fleet.has_joined());
    }
    assert_eq!(refusal(&net, 0, 1), Some(Refusal::Version));
    // The other one ends.
    net.run(8_000);
    assert!(!net.nodes[0].fleet.has_joined());
    assert_joins_within(&mut net, 0, 2_000);
}

fn heartbeat() -> Message<'static> {
    Message::Heartbeat(Heartbeat {
        is_in_step: true,
        wants_answer: false,
        service: None,
        heard_run: 0,
        peers: 0,
    })
}

/// Nobody has its address among the members.
#[test]
fn f25_a_relay_with_a_wrong_address_does_not_join() {
    let mut net = Net::new(3);
    net.set_members(0, &[member(1)]);
    net.set_members(1, &[member(0)]);
    net.restart(2);
    assert_out_for(&mut net, 2, 90);
    assert!(dropped(&net, 0, DropReason::Stranger) > 0);
    let stranger = net.nodes[0].fleet.stranger(net.clocks(0).now);
    assert_eq!(stranger, Some(member(2)));
    net.set_members(0, &[member(1), member(2)]);
    assert_joins_within(&mut net, 2, 2_500);
}

/// A stranger without the key gets no answer, and one with it not many.
#[test]
fn f25_strangers_get_few_answers() {
    let mut net = Net::new(2);
    let stranger = SocketAddr::from(([10, 0, 0, 99], 3546));
    let before = net.sent[0].0;
    let clocks = net.clocks(0);
    let node = &mut net.nodes[0];
    for _ in 0..1_000 {
        node.fleet
            .handle_datagram(clocks, stranger, &[0x54; 100], &mut node.relay);
    }
    net.drain(0);
    assert_eq!(net.sent[0].0, before);
    assert_eq!(net.nodes[0].fleet.stranger(clocks.now), None);
    net.set_members(0, &[]);
    net.run(2_000);
    let before = net.sent[0].0;
    for _ in 0..1_000 {
        let datagram = record(&mut net, 1, 0, &heartbeat());
        net.receive(1, 0, &datagram);
    }
    assert!(net.sent[0].0 - before <= 20);
}

/// Its peers are those of another address.
#[test]
fn f24_a_relay_that_serves_something_else_does_not_join() {
    for change in [
        (|config| config.endpoint.port = [1, 2]) as fn(&mut crate::relay::Config),
        |config| config.endpoint.address = [5, 6, 7, 9],
        |config| config.prefix.0 = [0x20, 1, 0, 1],
    ] {
        let mut net = Net::new(3);
        net.introduce(0, mapping(1), &client(1));
        net.set_change(change);
        net.restart(1);
        assert_out_for(&mut net, 1, 90);
        let endpoint = net.nodes[0].relay.config().endpoint;
        assert_eq!(refusal(&net, 1, 0), Some(Refusal::Service(endpoint)));
        assert!(net.usable(1).is_empty());
        net.introduce(0, mapping(2), &client(2));
        net.run(100);
        assert!(net.usable(1).is_empty() && net.is_usable(2, &client(2)));
        net.set_change(|_| ());
        net.restart(1);
        assert_joins_within(&mut net, 1, 2_000);
    }
}

/// One that is wrong does not keep the others from each other.
#[test]
fn f19_relays_that_understand_each_other_join() {
    let mut net = Net::starting(3, |_| ());
    set_keys(&mut net, 2, 2);
    net.run(2_500);
    assert!((0..2).all(|number| net.nodes[number].fleet.has_joined()));
    net.restart(0);
    assert_joins_within(&mut net, 0, 2_000);
    assert!(!net.nodes[2].fleet.has_joined());
}

/// The others are really down.
#[test]
fn f18_a_relay_that_hears_nobody_joins_in_bounded_time() {
    let mut net = Net::new(3);
    (net.nodes[1].is_up, net.nodes[2].is_up) = (false, false);
    net.restart(0);
    assert_out_for(&mut net, 0, 9);
    assert_joins_within(&mut net, 0, 2_000);
}

/// No relay takes itself for alone because the network loses much.
#[test]
fn f18_a_relay_finds_the_others_in_a_bad_network() {
    let mut net = Net::new(2);
    net.introduce(0, mapping(1), &client(1));
    for seed in 0..100 {
        net.loss = 0.0;
        net.client_sends(0, mapping(1), &client(1));
        net.run(20);
        net.restart(1);
        net.loss = if seed % 2 == 0 { 0.5 } else { 0.6 };
        while !net.nodes[1].fleet.has_joined() {
            net.run(100);
        }
        assert!(net.is_usable(1, &client(1)), "start {seed}");
        net.loss = 0.0;
        net.run(4_000);
    }
}
