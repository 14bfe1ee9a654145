//! and P-09 to P-12.

use std::time::Duration;

use super::harness::*;
use crate::relay::Event;
use crate::{
    relay::{Bubble, DropReason},
    shared::turns::Pace,
    wire::ipv6,
};
use teredo_common::{address::embedded_mapping, scope::is_link_local};

const ELSEWHERE: &str = "9.0.0.1:7777";

/// A pace that nobody waits for.
const NO_PACE: Pace = Pace {
    first: 1000,
    most: 1000,
    network: 1000,
    total: 10_000,
};

/// Creates a client that was sent a bubble. Returns its address and the cookie.
fn asked(world: &mut World) -> ([u8; 16], [u8; 16]) {
    let client = teredo(CLIENT);
    world.native_sends(&packet(&address(HOST), &client, 1));
    let cookie = world.cookie();
    world.take_sent();
    (client, cookie)
}

#[test]
fn r12_bubbles_come_from_a_link_local_cookie() {
    let mut world = World::new();
    let (_, cookie) = asked(&mut world);
    assert!(is_link_local(&cookie));
    world.native_sends(&packet(&address(HOST), &teredo("9.0.0.2:1"), 1));
    assert_ne!(world.cookie(), cookie, "another for each peer");
}

#[test]
fn r13_a_cookie_proves_another_mapping() {
    let mut world = World::new();
    let (client, cookie) = asked(&mut world);
    world.client_sends(ELSEWHERE, &bubble(&client, &cookie));
    assert_eq!(world.counted(Bubble::ReceivedCookie), 1);
    assert_eq!(world.take_events(), [], "not proved yet");
    world.prove(&client, ELSEWHERE);
    let sent = world.take_sent();
    assert_eq!(sent[0].0, endpoint(ELSEWHERE), "what waited");
    let [Event::PeerTrusted { mapped, .. }] = world.take_events()[..] else {
        panic!()
    };
    assert_eq!(mapped, endpoint(ELSEWHERE));
    assert!(world.native_sends(&packet(&address(HOST), &client, 2)));
    assert_eq!(world.take_sent()[0].0, endpoint(ELSEWHERE));
    let data = packet(&client, &address(HOST), 3);
    assert_eq!(
        world.client_sends(ELSEWHERE, &data),
        Some(data),
        "R-20: trusted and symmetric"
    );
}

#[test]
fn r13_only_a_bubble_with_the_right_fresh_cookie_does() {
    let mut world = World::new();
    let (client, cookie) = asked(&mut world);
    let reason = DropReason::DecapMapping;
    world.client_sends(ELSEWHERE, &packet(&client, &cookie, 1));
    assert_eq!(world.dropped(reason), 1, "data");
    let mut wrong = cookie;
    wrong[15] ^= 1;
    world.client_sends(ELSEWHERE, &bubble(&client, &wrong));
    assert_eq!(world.dropped(reason), 2, "another cookie");
    let other = teredo("9.0.0.2:1");
    world.native_sends(&packet(&address(HOST), &other, 1));
    world.client_sends(ELSEWHERE, &bubble(&other, &cookie));
    assert_eq!(world.dropped(reason), 3, "the cookie of another peer");
    world.pass(Duration::from_secs(128));
    world.client_sends(ELSEWHERE, &bubble(&client, &cookie));
    assert_eq!(world.dropped(reason), 4, "too late");
    assert_eq!(world.statistics().trusted, 0);
}

#[test]
fn r13_the_mapping_must_be_acceptable() {
    let mut world = World::new();
    let (client, cookie) = asked(&mut world);
    for from in ["10.0.0.1:5", "9.0.0.1:0", "5.6.7.8:3545"] {
        world.client_sends(from, &bubble(&client, &cookie));
    }
    assert_eq!(world.statistics().trusted, 0);
}

#[test]
fn r13_a_symmetric_peer_that_fell_silent_needs_a_new_cookie() {
    let mut world = World::new();
    let (client, cookie) = asked(&mut world);
    world.client_sends(ELSEWHERE, &bubble(&client, &cookie));
    world.pass(Duration::from_secs(30));
    assert_eq!(
        world.client_sends(ELSEWHERE, &packet(&client, &address(HOST), 3)),
        None
    );
    assert_eq!(world.dropped(DropReason::DecapMapping), 1);
    world.client_sends(ELSEWHERE, &bubble(&client, &cookie));
    assert_eq!(world.statistics().trusted_peers, 1);
}

#[test]
fn r13_a_change_of_mapping_is_told_at_once() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    world.pass(Duration::from_secs(26));
    world.native_sends(&packet(&address(HOST), &client, 1));
    let cookie = world.cookie();
    world.take_events();
    world.client_sends(ELSEWHERE, &bubble(&client, &cookie));
    let forgotten = Event::PeerForgotten {
        address: client.into(),
    };
    assert_eq!(world.take_events(), [forgotten], "R-35: not proved there");
    world.prove(&client, ELSEWHERE);
    world.client_sends(CLIENT, &packet(&client, &address(HOST), 1));
    world.prove(&client, CLIENT);
    let mappings: Vec<_> = world
        .take_events()
        .into_iter()
        .map(|event| match event {
            Event::PeerTrusted { mapped, .. } => Some(mapped),
            Event::PeerForgotten { .. } => None,
        })
        .collect();
    let expected = [Some(endpoint(ELSEWHERE)), None, Some(endpoint(CLIENT))];
    assert_eq!(mappings, expected, "P-08: both proofs count");
}

#[test]
fn r15_a_link_local_destination_is_good_for_a_bubble_alone() {
    let mut world = World::new();
    let (client, _) = asked(&mut world);
    world.client_sends(CLIENT, &bubble(&client, &address("fe80::dead")));
    assert_eq!(world.statistics().trusted, 1);
    assert_eq!(
        world.client_sends(CLIENT, &packet(&client, &address("fe80::dead"), 1)),
        None
    );
}

#[test]
fn p02_the_first_bubble_goes_at_once() {
    let mut world = World::new();
    let start = world.now;
    asked(&mut world);
    assert_eq!(world.counted(Bubble::SentIndirect), 1);
    assert_eq!(world.now, start);
}

#[test]
fn p09_bursts_without_answer_become_rare() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    let start = world.now;
    for _ in 0..300 {
        world.native_sends(&packet(&address(HOST), &client, 1));
        world.pass(Duration::from_secs(1));
    }
    let seconds: Vec<_> = world
        .bubbles()
        .iter()
        .map(|bubble| bubble.0.saturating_since(start).as_secs())
        .collect();
    let pauses: Vec<_> = seconds.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses.len(), 9, "{seconds:?}");
    for (pause, least) in pauses.into_iter().zip([2, 2, 2, 8, 16, 32, 64, 64, 64]) {
        assert!((least..=least + 1).contains(&pause), "{seconds:?}");
    }
    assert!(world.dropped(DropReason::EncapBubbleLimit) > 200);
    assert!(!world.own_packets.is_empty(), "and the host is told");
    // Whenever the peer is there again, it is asked as soon as before after its answer.
    world.pass(Duration::from_secs(64));
    world.native_sends(&packet(&address(HOST), &client, 1));
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    assert_eq!(world.statistics().trusted_peers, 1);
}

#[test]
fn p09_an_answer_resets_the_count() {
    let mut world = World::new();
    let client = teredo(CLIENT);
    for round in 1..=5 {
        world.native_sends(&first_packet(&address(HOST), &client));
        world.pass(Duration::from_secs(3));
        assert_eq!(world.bubbles().len(), 2 * round);
        world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
        world.pass(Duration::from_secs(33));
    }
}

#[test]
fn p10_repetitions_are_spread() {
    let mut world = World::with(|config| config.server_pace = NO_PACE);
    for port in 1..=100 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&first_packet(&address(HOST), &client));
    }
    let start = world.now;
    world.pass(Duration::from_secs(3));
    let late = |least: u64, most: u64| {
        let range = Duration::from_millis(2000 + least)..Duration::from_millis(2000 + most);
        let after = world
            .bubbles()
            .into_iter()
            .map(|(at, _)| at.saturating_since(start));
        after.filter(|after| range.contains(after)).count()
    };
    let quarters = [late(0, 63), late(63, 125), late(125, 188), late(188, 251)];
    assert_eq!(quarters.iter().sum::<usize>(), 100);
    assert!(quarters.iter().all(|&count| count > 10), "{quarters:?}");
}

#[test]
fn p11_no_answer_drops_what_waited_but_not_the_memory() {
    let mut world = World::new();
    asked(&mut world);
    world.pass(Duration::from_millis(7_900));
    assert_eq!(world.statistics().queue_packets, 1);
    world.pass(Duration::from_millis(1_200));
    assert_eq!(world.statistics().queue_packets, 0);
    assert_eq!(world.dropped(DropReason::EncapNoAnswer), 1);
    assert_eq!(world.relay.peers().count(), 1);
    world.pass(Duration::from_secs(310));
    assert_eq!(world.relay.peers().count(), 0);
    assert_eq!(world.relay.poll_timeout(), None);
}

#[test]
fn p12_a_silent_peer_that_is_sent_to_is_asked_in_time() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    let flowing = packet(&address(HOST), &client, 2);
    let start = world.now;
    while world.bubbles().is_empty() {
        world.pass(Duration::from_millis(500));
        assert!(world.native_sends(&flowing), "it stays trusted");
    }
    let age = world.now.saturating_since(start);
    assert!(
        age >= Duration::from_secs(25) && age < Duration::from_secs(26),
        "{age:?}"
    );
    assert!(world.native_sends(&flowing), "meanwhile, too");
    world.client_sends(CLIENT, &bubble(&client, &address(HOST)));
    world.take_sent();
    world.pass(Duration::from_secs(20));
    assert!(world.bubbles().is_empty(), "answered");
    assert!(world.native_sends(&flowing));
}

#[test]
fn p12_a_peer_that_nobody_sends_to_is_left_alone() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    assert!(world.native_sends(&packet(&address(HOST), &client, 1)));
    world.pass(Duration::from_secs(100));
    assert!(world.bubbles().is_empty());
    let forgotten = Event::PeerForgotten {
        address: client.into(),
    };
    assert_eq!(world.take_events(), [forgotten]);
}

#[test]
fn p12_without_answer_it_is_like_any_other_failure() {
    let mut world = World::new();
    let client = world.trust(CLIENT);
    for _ in 0..120 {
        world.pass(Duration::from_millis(500));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    assert_eq!(
        world.bubbles().len(),
        6,
        "one procedure, and a burst now and then"
    );
    assert!(!world.own_packets.is_empty());
    assert_eq!(world.statistics().queue_packets, 0);
}

#[test]
fn l12_many_addresses_do_not_multiply_the_bubbles_to_one_endpoint() {
    let mut world = World::with(|config| {
        config.direct_bubbles = true;
        config.server_pace = NO_PACE;
    });
    for flags in 0..160 {
        let client = teredo_of(CLIENT, SERVER, flags % 40);
        world.native_sends(&first_packet(&address(HOST), &client));
    }
    world.pass(Duration::from_secs(100));
    let direct: Vec<_> = world
        .bubbles()
        .into_iter()
        .filter(|bubble| bubble.1 == endpoint(CLIENT))
        .collect();
    assert_eq!(direct.len(), 4);
    assert!(world.counted(Bubble::LimitedDirect) > 100);
}

#[test]
fn l12_direct_bubbles_to_one_address_are_limited() {
    let mut world = World::with(|config| {
        config.direct_bubbles = true;
        config.server_pace = NO_PACE;
    });
    for port in 1..=100 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&first_packet(&address(HOST), &client));
    }
    assert_eq!(world.counted(Bubble::SentDirect), 20);
    assert_eq!(world.counted(Bubble::LimitedDirect), 80);
    assert_eq!(
        world.counted(Bubble::SentIndirect),
        100,
        "those count apart"
    );
}

#[test]
fn l18_bubbles_to_one_server_wait_for_their_turn() {
    let mut world = World::with(|config| {
        config.server_pace = Pace {
            first: 5,
            most: 5,
            ..Pace::DEFAULT
        }
    });
    for port in 1..=100 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    assert_eq!(world.counted(Bubble::SentIndirect), 10);
    assert_eq!(world.counted(Bubble::LimitedIndirect), 90);
    assert_eq!(world.statistics().waiting_bubbles, 90);
    let other = teredo_of("9.0.0.2:1", "1.2.3.5:1", 0);
    world.native_sends(&packet(&address(HOST), &other, 1));
    assert_eq!(world.counted(Bubble::SentIndirect), 11, "another server");
    // The peers answer at once; nobody's packet is lost, however long it waits.
    let start = world.now;
    for _ in 0..200 {
        for (_, payload) in world
            .take_sent()
            .into_iter()
            .filter(|sent| is_bubble(&sent.1))
        {
            let header = ipv6::Header::parse(&payload).unwrap();
            let (peer, cookie) = (header.destination(), header.source());
            let from = embedded_mapping(&peer).to_string();
            world.client_sends(&from, &bubble(&peer, &cookie));
        }
        world.pass(Duration::from_millis(100));
    }
    let statistics = world.statistics();
    assert_eq!(
        (statistics.trusted_peers, statistics.queue_packets),
        (101, 0)
    );
    assert_eq!(
        world.counted(Bubble::SentIndirect),
        101,
        "each was asked once"
    );
    assert_eq!(statistics.encapsulated.packets, 101);
    assert_eq!(statistics.waiting_bubbles, 0);
    assert!(world.now.saturating_since(start) < Duration::from_secs(21));
}

/// A scan of one native network does not keep the peers of another one waiting.
#[test]
fn l18_native_networks_take_turns() {
    let mut world = World::new();
    for port in 1..=2000 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    world.take_sent();
    let other = teredo("9.0.0.2:1");
    world.native_sends(&packet(&address("2000:1::b"), &other, 1));
    assert!(world.bubbles().is_empty());
    world.pass(Duration::from_millis(500));
    let sent = world.take_sent();
    let mut peers = sent
        .iter()
        .map(|(_, payload)| ipv6::Header::parse(payload).unwrap().destination());
    assert!(peers.any(|peer| peer == other));
}

/// A peer whose turn did not come is not taken for one that does not answer.
#[test]
fn l18_a_bubble_that_waits_does_not_count() {
    let mut world = World::with(|config| {
        config.server_pace = Pace {
            first: 1,
            most: 1,
            ..Pace::DEFAULT
        }
    });
    for port in 1..=40 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    world.pass(Duration::from_secs(20));
    let last = teredo("9.0.0.1:40");
    world.native_sends(&packet(&address(HOST), &last, 1));
    assert_eq!(world.dropped(DropReason::EncapBubbleLimit), 0);
    let mut peers = world.relay.peers();
    let queued = peers.find(|peer| peer.address.octets() == last);
    assert_eq!(queued.unwrap().queued, 2, "it was not asked yet");
}

#[test]
fn l18_the_server_in_the_same_process_has_no_pace() {
    let mut world = World::with(|config| config.own_server = Some(endpoint(SERVER).ip()));
    for port in 1..=100 {
        let client = teredo(&format!("9.0.0.1:{port}"));
        world.native_sends(&packet(&address(HOST), &client, 1));
    }
    assert_eq!(world.own_server.len(), 100);
}
