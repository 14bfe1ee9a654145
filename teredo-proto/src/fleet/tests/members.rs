//! Members whose keys, clocks or reports are wrong.

use std::{net::SocketAddr, time::Duration};

use super::{
    harness::{Net, client, keys, mapping, member},
    saying::{claim, dropped, learned, report},
};
use crate::{
    fleet::{
        DropReason, Keys,
        wire::{Message, Reports, build_reports},
    },
    relay::Learned,
};

#[test]
fn f03_relays_with_another_key_are_not_heard() {
    let mut net = Net::new(2);
    let node = &mut net.nodes[1];
    node.fleet.set_keys(keys(2), &mut node.relay);
    net.introduce(1, mapping(1), &client(1));
    net.run(5_000);
    assert!(!net.is_usable(0, &client(1)));
    assert!(dropped(&net, 0, DropReason::Key) > 0);
    net.run(5_000);
    assert!(
        net.nodes[0]
            .fleet
            .others(net.clocks(0).now)
            .all(|other| !other.is_live)
    );
}

#[test]
fn f04_keys_are_changed_without_a_gap() {
    let mut net = Net::new(3);
    let (old, new) = ([1; 32], [2; 32]);
    let steps: [&[[u8; 32]]; 3] = [&[old, new], &[new, old], &[new]];
    let mut number = 0;
    for secrets in steps {
        for changed in 0..3 {
            // Asked before the change, answered after it, at another relay.
            net.send(changed, &client(number));
            let node = &mut net.nodes[changed];
            let keys = Keys::new(secrets).expect("keys");
            node.fleet.set_keys(keys, &mut node.relay);
            net.answer((changed + 1) % 3, mapping(number), &client(number));
            net.run(10);
            if secrets.len() > 1 {
                assert!((0..3).all(|relay| net.is_usable(relay, &client(number))));
            }
            number += 1;
        }
        net.run(1_000);
    }
    for relay in 0..3 {
        let statistics = net.nodes[relay].fleet.statistics();
        assert!(
            statistics.dropped.iter().all(|(_, count)| count == 0),
            "{statistics:?}"
        );
    }
}

#[test]
fn f05_a_datagram_counts_once() {
    let mut net = Net::new(2);
    net.duplication = 1.0;
    net.introduce(1, mapping(1), &client(1));
    net.run(500);
    assert!(dropped(&net, 0, DropReason::Replay) > 0);
    let learned = net.nodes[0].fleet.statistics().learned;
    let learned: u64 = learned.iter().map(|(_, count)| count).sum();
    assert_eq!(learned, net.nodes[1].fleet.statistics().told);
}

#[test]
fn f05_what_was_recorded_is_refused_later() {
    let mut net = Net::new(2);
    net.cut.insert((1, 0));
    net.introduce(1, mapping(1), &client(1));
    let clocks = net.clocks(1);
    let octets = build_reports(clocks.now, &[report(&net, 1, 1, "9.0.1.1:4096")]);
    net.nodes[1]
        .fleet
        .send(clocks, 0, &Message::Reports(Reports::of(&octets)));
    let recorded = net.nodes[1]
        .fleet
        .poll_transmit()
        .expect("a datagram")
        .payload;
    net.run(5_500);
    net.receive(1, 0, &recorded);
    assert_eq!(dropped(&net, 0, DropReason::Clock), 1);
    assert!(!net.is_usable(0, &client(1)));
    // The same for a relay that has just started and knows no sequence numbers.
    net.restart(0);
    net.receive(1, 0, &recorded);
    assert_eq!(dropped(&net, 0, DropReason::Clock), 1);
}

#[test]
fn f05_an_earlier_run_is_refused() {
    let mut net = Net::new(2);
    let clocks = net.clocks(1);
    let octets = build_reports(clocks.now, &[report(&net, 1, 1, "9.0.1.1:4096")]);
    net.nodes[1]
        .fleet
        .send(clocks, 0, &Message::Reports(Reports::of(&octets)));
    let recorded = net.nodes[1]
        .fleet
        .poll_transmit()
        .expect("a datagram")
        .payload;
    net.restart(1);
    net.run(500);
    net.receive(1, 0, &recorded);
    assert_eq!(dropped(&net, 0, DropReason::Replay), 1);
}

#[test]
fn f03_datagrams_for_others_and_of_strangers_are_refused() {
    let mut net = Net::new(3);
    let clocks = net.clocks(1);
    net.nodes[1]
        .fleet
        .send(clocks, 0, &Message::Reports(Reports::of(&[])));
    let payload = net.nodes[1]
        .fleet
        .poll_transmit()
        .expect("a datagram")
        .payload;
    net.receive(1, 2, &payload);
    assert_eq!(dropped(&net, 2, DropReason::Tag), 1);
    net.receive(2, 0, &payload);
    assert_eq!(dropped(&net, 0, DropReason::Tag), 1);
    let clocks = net.clocks(0);
    let node = &mut net.nodes[0];
    let stranger = SocketAddr::from(([10, 0, 0, 99], 3546));
    node.fleet
        .handle_datagram(clocks, stranger, &payload, &mut node.relay);
    assert_eq!(dropped(&net, 0, DropReason::Stranger), 1);
    net.receive(1, 0, &payload);
    assert_eq!(
        dropped(&net, 0, DropReason::Tag),
        1,
        "it is good for the receiver"
    );
}

#[test]
fn f14_reports_pass_the_checks_for_peers() {
    let mut net = Net::new(2);
    for mapped in [
        "10.0.0.1:1000",
        "5.6.7.8:3545",
        "224.0.0.1:1000",
        "9.0.1.1:0",
    ] {
        let wrong = report(&net, 1, 1, mapped);
        claim(&mut net, 1, 0, wrong);
    }
    assert_eq!(learned(&net, 0, Learned::Unacceptable), 4);
    let mut old = report(&net, 1, 2, "9.0.2.1:4096");
    old.last_received = old.last_received - Duration::from_secs(31);
    claim(&mut net, 1, 0, old);
    assert_eq!(learned(&net, 0, Learned::Old), 1);
    assert!(net.usable(0).is_empty());
}

#[test]
fn f16_a_relay_that_makes_up_peers_gets_its_share_and_no_more() {
    let mut net = Net::starting(3, |config| config.max_peers = 1_000);
    net.run(3_000);
    for number in 0..60 {
        net.introduce(0, mapping(number), &client(number));
    }
    for number in 1_000_u16..1_900 {
        let [high, low] = number.to_be_bytes();
        let lie = report(&net, 2, number, &format!("9.{high}.{low}.1:4096"));
        claim(&mut net, 2, 0, lie);
    }
    assert!(learned(&net, 0, Learned::Full) > 0);
    let lies = net.usable(0).len() - 60;
    assert_eq!(lies, 750);
    for number in 0..60 {
        assert!(net.is_usable(0, &client(number)), "{number}");
    }
    // There is room for those of others.
    let true_one = report(&net, 1, 500, "9.1.244.1:4096");
    claim(&mut net, 1, 0, true_one);
    assert!(net.is_usable(0, &client(500)));
}

#[test]
fn f07_a_relay_that_sends_too_much_is_heard_less() {
    let mut net = Net::new(2);
    net.nodes[0].fleet.config.receive_rate = crate::Rate::new(10, 10);
    for _ in 0..100 {
        let news = report(&net, 1, 1, "9.0.1.1:4096");
        claim(&mut net, 1, 0, news);
    }
    assert!(dropped(&net, 0, DropReason::Rate) >= 80);
}

#[test]
fn f08_members_come_and_go() {
    let mut net = Net::new(3);
    net.set_members(0, &[member(0), member(1)]);
    net.introduce(2, mapping(1), &client(1));
    net.run(500);
    assert!(!net.is_usable(0, &client(1)) && net.is_usable(1, &client(1)));
    assert!(dropped(&net, 0, DropReason::Stranger) > 0);
    net.set_members(0, &[member(0), member(1), member(2)]);
    net.run(3_000);
    assert!(net.is_usable(0, &client(1)));
}
