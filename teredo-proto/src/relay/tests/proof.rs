//! Proof before the fast path, and the packets until then (R-35, R-36, L-19).

use std::time::Duration;

use teredo_common::address::Endpoint;

use super::harness::*;
use crate::{
    relay::{Bubble, DropReason, Event, Question},
    shared::limiter::{Ipv4Rates, Rate},
    wire::{icmpv6, ipv6::Header},
};

/// An endpoint whose host never sent anything.
const VICTIM: &str = "9.7.0.1:53";

/// Number of packets, bubbles aside, that went to an endpoint.
fn data(world: &World, to: &str) -> usize {
    let data = world.sent.iter().filter(|(_, sent_to, payload)| {
        *sent_to == endpoint(to) && payload[6] == 17 && Header::parse(payload).is_ok()
    });
    data.count()
}

/// The last echo request to an endpoint.
fn echo_request(world: &World, to: &str) -> Option<Vec<u8>> {
    let mut sent = world.sent.iter().rev();
    let request = sent.find(|(_, sent_to, payload)| {
        *sent_to == endpoint(to) && payload[6] == 58 && payload[40] == 128
    });
    request.map(|(_, _, payload)| payload.clone())
}

fn is_proved(world: &World, client: &[u8; 16]) -> bool {
    let mut peers = world.relay.peers();
    peers.any(|peer| peer.proved && peer.address.octets() == *client)
}

/// Somebody lets the relay send to an endpoint in its own address, with one forged datagram.
fn launder(world: &mut World, forge: impl Fn(&mut World, &[u8; 16])) -> usize {
    let victim = teredo(VICTIM);
    world.native_sends(&packet(&address(HOST), &victim, 0));
    forge(world, &victim);
    for mark in 0..1000_u16 {
        world.native_sends(&packet(&address(HOST), &victim, mark as u8));
        world.pass(Duration::from_millis(1));
    }
    assert_eq!(world.take_events(), [], "the fast path never hears of it");
    data(world, VICTIM)
}

#[test]
fn r36_a_forged_datagram_opens_no_way_to_an_endpoint() {
    let sent = launder(&mut World::new(), |world, victim| {
        world.client_sends(VICTIM, &packet(victim, &address(HOST), 1));
    });
    // What is sent at once, what one packet pays for, and the trickle of a second.
    assert_eq!(sent, 64 + 16 + 15);
}

#[test]
fn r36_nor_does_a_cookie_that_the_attacker_got_at_a_server_of_his_own() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    world.native_sends(&packet(&address(HOST), &client, 0));
    let cookie = world.cookie();
    world.client_sends(VICTIM, &bubble(&client, &cookie));
    for mark in 0..1000_u16 {
        world.native_sends(&packet(&address(HOST), &client, mark as u8));
    }
    assert_eq!(world.take_events(), []);
    assert_eq!(data(&world, VICTIM), 64 + 16);
    assert_eq!(world.dropped(DropReason::EncapUnproved), 1001 - 64 - 16);
}

#[test]
fn r36_what_comes_from_the_mapping_pays_for_what_goes_there() {
    let mut world = World::new();
    let client = world.accept(CLIENT);
    world.take_sent();
    for _ in 0..100 {
        world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
        for mark in 0..10 {
            assert!(world.native_sends(&packet(&address(HOST), &client, mark)));
        }
    }
    assert_eq!(world.dropped(DropReason::EncapUnproved), 0);
}

#[test]
fn r36_an_address_a_network_and_all_of_them_have_bounds() {
    let rates = |burst| Rate::new(1, burst);
    let mut world = World::with(|config| {
        config.unproved_rates = Ipv4Rates {
            address: rates(20),
            network: rates(30),
            total: rates(40),
        };
        config.server_pace.first = 1000;
    });
    let flood = |world: &mut World, mapped: &str| {
        let client = world.accept(mapped);
        world.take_sent();
        (0..100)
            .filter(|&mark| world.native_sends(&packet(&address(HOST), &client, mark)))
            .count()
    };
    // One of each was the packet that waited.
    assert_eq!(flood(&mut world, "9.0.0.1:1"), 19);
    assert_eq!(flood(&mut world, "9.0.0.1:2"), 0, "the same address");
    assert_eq!(flood(&mut world, "9.0.0.2:1"), 9, "the same network");
    assert_eq!(flood(&mut world, "9.1.0.1:1"), 9, "no more at all");
}

#[test]
fn r35_an_answer_to_the_bubble_proves_the_mapping() {
    let mut world = World::new();
    let client = world.accept(CLIENT);
    assert_eq!(world.take_events(), []);
    let question = world.question(CLIENT);
    assert_ne!(question, world.cookie());
    world.client_sends(CLIENT, &bubble(&client, &question));
    assert!(is_proved(&world, &client));
    assert!(matches!(
        world.take_events()[..],
        [Event::PeerTrusted { .. }]
    ));
    let statistics = world.statistics();
    assert_eq!((statistics.proved, statistics.proved_peers), (1, 1));
    assert_eq!(statistics.questions[Question::AnsweredBubble], 1);
    for mark in 0..200 {
        assert!(world.native_sends(&packet(&address(HOST), &client, mark)));
    }
}

#[test]
fn r35_an_answer_to_the_echo_request_proves_the_mapping_and_ends_at_the_relay() {
    let mut world = World::new();
    let client = world.accept(CLIENT);
    assert_eq!(echo_request(&world, CLIENT), None, "nobody to ask from");
    let data = packet(&client, &address(HOST), 1);
    assert_eq!(world.client_sends(CLIENT, &data), Some(data.clone()));
    let request = echo_request(&world, CLIENT).expect("an echo request");
    let header = Header::parse(&request).unwrap();
    assert_eq!(header.source(), address(HOST), "the host it talks to");
    let mut reply = Vec::new();
    assert!(icmpv6::echo_reply(&client, &request, &mut reply));
    assert_eq!(
        world.client_sends(VICTIM, &reply),
        None,
        "from elsewhere, where nobody could know it"
    );
    assert!(!is_proved(&world, &client));
    assert_eq!(world.client_sends(CLIENT, &reply), None);
    assert!(is_proved(&world, &client));
    assert_eq!(world.statistics().questions[Question::AnsweredEcho], 1);
}

#[test]
fn r35_echo_replies_for_native_hosts_are_theirs() {
    let mut world = World::new();
    let client = world.accept(CLIENT);
    let echo = icmpv6::Echo {
        identifier: 0x5465,
        sequence: 0,
        data: &[7; 8],
    };
    let request = icmpv6::echo_request(&address(HOST), &client, echo);
    let mut reply = Vec::new();
    assert!(icmpv6::echo_reply(&client, &request, &mut reply));
    assert_eq!(world.client_sends(CLIENT, &reply), Some(reply));
    assert!(!is_proved(&world, &client));
}

#[test]
fn r35_questions_become_seldom_and_go_on() {
    let mut world = World::new();
    let client = world.accept(CLIENT);
    for _ in 0..200 {
        world.pass(Duration::from_secs(1));
        world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
    }
    let questions = world.statistics().questions;
    let [bubbles, echoes] = [Question::SentBubble, Question::SentEcho].map(|kind| questions[kind]);
    assert!(
        (7..=10).contains(&(bubbles + echoes)),
        "{bubbles}, {echoes}"
    );
    assert!(bubbles.abs_diff(echoes) <= 1, "{bubbles}, {echoes}");
    assert!(!is_proved(&world, &client));
}

#[test]
fn r35_a_proof_is_renewed_while_the_fast_path_goes_on() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let pass = |world: &mut World, seconds: u64, answers: bool| {
        for _ in 0..seconds {
            world.pass(Duration::from_secs(1));
            let now = world.now;
            world
                .relay
                .record_stamps(&client, now, now - Duration::from_secs(1));
            let asked = std::mem::take(&mut world.sent);
            if answers && !asked.is_empty() {
                world.sent = asked;
                let question = world.question(CLIENT);
                world.client_sends(CLIENT, &bubble(&client, &question));
            }
        }
    };
    pass(&mut world, 2000, true);
    assert!(is_proved(&world, &client));
    let events = world.take_events();
    let forgotten = |event: &Event| matches!(event, Event::PeerForgotten { .. });
    assert!(!events.iter().any(forgotten), "{events:?}");
    let asked = world.statistics().questions[Question::SentBubble];
    assert!((6..=8).contains(&asked), "once in 300 seconds: {asked}");

    // Somebody else is at the mapping now, and is not asked for long.
    pass(&mut world, 601, false);
    assert!(!is_proved(&world, &client));
    assert!(world.take_events().iter().any(forgotten));
    assert_eq!(world.statistics().questions[Question::Expired], 1);
}

#[test]
fn r35_another_mapping_needs_another_proof() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.pass(Duration::from_secs(40));
    world.take_events();
    world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
    assert!(!is_proved(&world, &client), "after silence");
}

#[test]
fn r21_a_cookie_readmits_a_peer_that_was_forgotten() {
    let mut world = World::with(|config| config.max_peers = 16);
    let client = teredo(CLIENT);
    world.native_sends(&first_packet(&address(HOST), &client));
    let cookie = world.cookie();
    for number in 1..=100 {
        let other = teredo(&format!("9.0.1.{number}:1"));
        world.native_sends(&packet(&address(HOST), &other, 1));
    }
    let knows = |world: &World| {
        let mut peers = world.relay.peers();
        peers.any(|peer| peer.address.octets() == client)
    };
    assert!(!knows(&world), "evicted");
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    assert!(!knows(&world), "not without the cookie");
    world.client_sends(CLIENT, &bubble(&client, &cookie));
    assert!(knows(&world));
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    // What nobody may be, is not readmitted.
    let own = teredo(RELAY);
    let (mut other, from) = (World::new(), "9.0.0.9:9");
    other.client_sends(from, &bubble(&own, &address("fe80::1")));
    assert_eq!(other.relay.peers().count(), 0);
}

#[test]
fn l19_a_packet_makes_the_relay_send_at_most_twice_as_much() {
    for (length, expected) in [(0, 1), (20, 1), (28, 2), (40, 2), (1200, 2)] {
        let mut world = World::new();
        let client = teredo(CLIENT);
        let packet = ipv6(6, 64, &address(HOST), &client, &vec![0; length]);
        world.native_sends(&packet);
        world.pass(Duration::from_secs(60));
        let sent: usize = world.sent.iter().map(|(_, _, sent)| sent.len() + 28).sum();
        assert_eq!(world.bubbles().len(), expected, "{length}");
        assert!(sent <= 2 * packet.len(), "{length}: {sent}");
    }
}

#[test]
fn l19_direct_bubbles_count_too() {
    for length in [20, 40, 100, 1200] {
        let mut world = World::with(|config| config.direct_bubbles = true);
        let packet = ipv6(6, 64, &address(HOST), &teredo(CLIENT), &vec![0; length]);
        world.native_sends(&packet);
        world.pass(Duration::from_secs(60));
        let sent: usize = world.sent.iter().map(|(_, _, sent)| sent.len() + 28).sum();
        assert!(sent <= 2 * packet.len(), "{length}: {sent}");
        assert!(world.sent.len() <= 2);
    }
}

#[test]
fn l19_further_packets_pay_for_further_bubbles() {
    let mut world = World::new();
    for _ in 0..2 {
        world.native_sends(&first_packet(&address(HOST), &teredo(CLIENT)));
    }
    world.pass(Duration::from_secs(60));
    assert_eq!(world.bubbles().len(), 4);
    assert_eq!(world.counted(Bubble::Withheld), 0);
    let to: Vec<Endpoint> = world.bubbles().into_iter().map(|(_, to)| to).collect();
    assert_eq!(to, [endpoint(SERVER); 4]);
}

#[test]
fn l12_new_peers_have_shares_by_network() {
    let mut world = World::with(|config| {
        let rates = &mut config.new_peer_rates;
        rates.subnet = Rate::new(1, 10);
        rates.home = Rate::new(1, 20);
        rates.site = Rate::new(1, 30);
        rates.provider = Rate::new(1, 40);
        rates.total = Rate::new(1, 60);
    });
    let mut port = 0;
    let mut flood = |source: &str| {
        let before = world.relay.peers().count();
        for _ in 0..100 {
            port += 1;
            let client = teredo(&format!("9.0.0.1:{port}"));
            world.native_sends(&packet(&address(source), &client, 1));
        }
        world.relay.peers().count() - before
    };
    assert_eq!(flood("2000:0:0:0::1"), 10);
    assert_eq!(flood("2000:0:0:1::1"), 10, "another /64");
    assert_eq!(flood("2000:0:0:2::1"), 0, "of the same /56");
    assert_eq!(flood("2000:0:0:100::1"), 10, "another /56");
    assert_eq!(flood("2000:0:0:200::1"), 0, "of the same /48");
    assert_eq!(flood("2000:0:1::1"), 10, "another /48");
    assert_eq!(flood("2000:0:2::1"), 0, "of the same /32");
    assert_eq!(flood("2001:db8::1"), 10);
    assert_eq!(flood("2400::1"), 10, "the last of all");
    assert_eq!(flood("2600::1"), 0);
}

#[test]
fn r36_many_honest_peers_of_one_address_lose_nothing() {
    let mut world = World::with(|config| config.server_pace.first = 10_000);
    for batch in 0..6_u16 {
        let ports = batch * 500 + 1..batch * 500 + 501;
        let peers: Vec<_> = ports
            .map(|port| format!("9.0.0.1:{port}"))
            .map(|mapped| (teredo(&mapped), mapped))
            .collect();
        for (client, _) in &peers {
            world.native_sends(&packet(&address(HOST), client, 1));
        }
        for (client, mapped) in &peers {
            world.client_sends(mapped, &bubble(client, &address(HOST)));
        }
        for (client, mapped) in &peers {
            world.client_sends(mapped, &packet(client, &address(HOST), 1));
        }
        for (client, _) in &peers {
            assert!(world.native_sends(&packet(&address(HOST), client, 2)));
        }
        assert_eq!(world.dropped(DropReason::EncapUnproved), 0, "{batch}");
        world.pass(Duration::from_secs(2));
    }
}

#[test]
fn l19_a_datagram_is_answered_with_one_question_at_most_as_long() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    world.native_sends(&first_packet(&address(HOST), &client));
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
        world.take_sent();
        let smallest = ipv6(17, 64, &client, &address(HOST), &[0; 8]);
        world.client_sends(CLIENT, &smallest);
        let sent = world.take_sent();
        assert!(sent.len() <= 1);
        let octets: usize = sent.iter().map(|(_, payload)| payload.len() + 28).sum();
        assert!(octets <= 2 * (smallest.len() + 28), "{octets}");
    }
}
