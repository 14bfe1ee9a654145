//! Peers that one relay proves and all serve.

use std::time::Duration;

use super::harness::{Net, client, mapping};
use crate::{relay::DropReason, testing::endpoint};

const ELSEWHERE: &str = "9.9.9.9:999";

#[test]
fn f02_a_cookie_counts_wherever_it_comes_back() {
    let mut net = Net::new(3);
    let peer = client(1);
    net.send(0, &peer);
    assert!(!net.is_usable(2, &peer));
    net.answer(2, mapping(1), &peer);
    assert!(net.is_usable(2, &peer), "it was asked by another relay");
}

#[test]
fn f11_the_relay_that_asked_sends_what_waits() {
    let mut net = Net::new(3);
    let peer = client(1);
    net.send(0, &peer);
    net.send(0, &peer);
    net.answer(2, mapping(1), &peer);
    assert!(net.packets.is_empty());
    // The delay of the network, and nothing more.
    net.run(1);
    assert_eq!(net.packets, vec![(0, mapping(1), peer); 2]);
    assert!(net.is_usable(1, &peer));
    assert!(!net.nodes[1].relay.has_proved(&peer));
    net.prove(2, mapping(1), &peer);
    net.run(3);
    for node in &net.nodes {
        assert!(node.relay.has_proved(&peer), "{}", node.address);
    }
    net.assert_proved();
}

/// A cookie that comes back again is told again: the relay that asked may not have heard it the first
/// time, and the peer is not news to the one that hears it.
#[test]
fn f11_what_is_no_news_here_may_be_news_to_the_relay_that_asked() {
    let mut net = Net::new(2);
    let peer = client(1);
    net.cut.insert((1, 0));
    net.introduce(1, mapping(1), &peer);
    net.run(10);
    net.send(0, &peer);
    net.run(400);
    net.cut.clear();
    assert!(
        net.packets.iter().all(|packet| packet.0 != 0),
        "{:?}",
        net.packets
    );
    net.answer(1, mapping(1), &peer);
    net.run(2);
    assert!(net.packets.contains(&(0, mapping(1), peer)));
}

#[test]
fn f11_a_lost_datagram_is_made_up_for_within_a_moment() {
    let mut net = Net::new(2);
    let peer = client(1);
    net.loss = 1.0;
    net.introduce(1, mapping(1), &peer);
    net.run(10);
    net.loss = 0.0;
    net.run(250);
    assert!(net.is_usable(0, &peer));
}

#[test]
fn f02_symmetric_clients_are_known_to_all() {
    let mut net = Net::new(3);
    let peer = client(1);
    net.introduce(1, endpoint(ELSEWHERE), &peer);
    net.run(5);
    assert!(net.send(0, &peer));
    assert_eq!(net.packets.last(), Some(&(0, endpoint(ELSEWHERE), peer)));
    assert!(net.client_sends(2, endpoint(ELSEWHERE), &peer));
    let info = net.peer(2, &peer).expect("a peer");
    assert!(info.symmetric && info.proved);
}

/// Losses and partitions that nobody notices do no harm for long.
#[test]
fn f11_news_is_told_several_times() {
    let mut net = Net::new(2);
    let told: u64 = net.nodes[1].fleet.statistics().told;
    net.cut.insert((1, 0));
    net.introduce(1, mapping(1), &client(1));
    net.run(2_900);
    net.cut.clear();
    assert!(!net.is_usable(0, &client(1)));
    net.run(1_200);
    assert!(net.is_usable(0, &client(1)));
    net.run(20_000);
    let told = net.nodes[1].fleet.statistics().told - told;
    // Trust and proof.
    assert!((5..=10).contains(&told), "{told}");
}

/// A relay that only encapsulates knows from the others that its peers are there, and asks nobody.
#[test]
fn f12_ages_are_told_every_few_seconds() {
    let mut net = Net::new(3);
    let peer = client(1);
    net.introduce(1, mapping(1), &peer);
    net.run(5);
    let bubbles = net.bubbles;
    for _ in 0..120 {
        assert!(net.client_sends(1, mapping(1), &peer));
        assert!(net.send(0, &peer), "it is usable all the time");
        net.run(1_000);
        let age = net
            .clocks(2)
            .now
            .saturating_since(net.peer(2, &peer).unwrap().last_received);
        assert!(age < Duration::from_secs(7), "{age:?}");
    }
    assert_eq!(net.bubbles, bubbles, "nobody asks");
    // Nobody hears the peer any more: it is asked, and then forgotten, everywhere.
    for _ in 0..60 {
        net.send(0, &peer);
        net.run(1_000);
    }
    assert!(net.bubbles > bubbles);
    for number in 0..3 {
        assert!(!net.is_usable(number, &peer));
    }
}

/// What is told is not told back, and a peer that nobody hears costs nothing.
#[test]
fn f12_only_the_relay_that_hears_a_peer_tells_about_it() {
    let mut net = Net::new(4);
    for number in 0..40 {
        net.introduce(1, mapping(number), &client(number));
    }
    net.run(11_000);
    let before: Vec<u64> = told(&net);
    net.run(10_000);
    assert_eq!(told(&net), before);
    for _ in 0..10 {
        for number in 0..40 {
            net.client_sends(1, mapping(number), &client(number));
        }
        net.run(1_000);
    }
    let after = told(&net);
    assert!((40..=3 * 40).contains(&(after[1] - before[1])), "{after:?}");
    assert_eq!(
        [after[0], after[2], after[3]],
        [before[0], before[2], before[3]]
    );
}

fn told(net: &Net) -> Vec<u64> {
    let nodes = net.nodes.iter();
    nodes.map(|node| node.fleet.statistics().told).collect()
}

/// Somebody who repeats his cookie again and again makes the relay send hardly anything.
#[test]
fn f13_repetitions_of_a_cookie_are_told_ten_times_a_second_at_most() {
    let mut net = Net::new(2);
    let peer = client(1);
    net.introduce(1, mapping(1), &peer);
    let before = told(&net)[1];
    for _ in 0..10_000 {
        net.answer(1, mapping(1), &peer);
        net.run(1);
    }
    let after = told(&net)[1];
    assert!(after - before <= 5 * 100 + 20, "{}", after - before);
}

#[test]
fn f13_news_is_bounded_in_rate() {
    let mut net = Net::new(2);
    net.nodes[1].fleet.config.news_rate = crate::Rate::new(100, 100);
    for number in 0..1_000 {
        net.introduce(1, mapping(number), &client(number));
    }
    net.run(1);
    let first = told(&net)[1];
    assert!(first <= 101, "{first}");
    // What waits is told later.
    net.run(15_000);
    assert_eq!(net.usable(0).len(), net.usable(1).len());
}

/// Peers that others told about are asked for a new proof by one relay, not by all.
#[test]
fn f22_one_relay_asks_for_a_new_proof() {
    let mut net = Net::new(4);
    let peer = client(1);
    net.introduce(1, mapping(1), &peer);
    net.questions.clear();
    for second in 0..330 {
        net.client_sends(1, mapping(1), &peer);
        net.send(0, &peer);
        net.run(1_000);
        net.prove(1, mapping(1), &peer);
        let _ = second;
    }
    let asked = net.nodes.iter().map(|node| {
        let questions = node.relay.statistics().questions;
        questions[crate::relay::Question::SentBubble]
    });
    let asked: Vec<u64> = asked.collect();
    assert_eq!([asked[0], asked[2], asked[3]], [0; 3], "{asked:?}");
    assert!(net.nodes.iter().all(|node| node.relay.has_proved(&peer)));
}

/// If that one is gone, another does.
#[test]
fn f22_a_proof_is_renewed_although_the_relay_that_has_it_is_gone() {
    let mut net = Net::new(3);
    let peer = client(1);
    net.introduce(1, mapping(1), &peer);
    net.run(100);
    net.nodes[1].is_up = false;
    for _ in 0..900 {
        net.client_sends(2, mapping(1), &peer);
        assert!(net.send(0, &peer));
        net.run(1_000);
        net.prove(2, mapping(1), &peer);
        assert!(net.nodes[0].relay.has_proved(&peer));
    }
}

#[test]
fn f21_nothing_is_trusted_without_a_cookie() {
    let mut net = Net::new(2);
    let peer = client(1);
    assert!(!net.client_sends(0, mapping(1), &peer));
    net.run(6_000);
    assert!(net.usable(0).is_empty() && net.usable(1).is_empty());
    let dropped = net.nodes[0].relay.statistics().dropped;
    assert_eq!(dropped[DropReason::DecapUnknownPeer], 1);
}
