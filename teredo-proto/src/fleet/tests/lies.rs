//! Members that lie about peers.

use std::time::Duration;

use proptest::prelude::*;
use teredo_common::time::Instant;

use super::{
    harness::{Net, client, mapping},
    saying::{claim, learned, report},
};
use crate::{
    relay::{Learned, Report},
    testing::{bubble, endpoint},
};

const ELSEWHERE: &str = "9.9.9.9:9";

/// Reports a peer where it is, and then elsewhere.
fn lure(net: &mut Net, liar: usize, victim: usize, number: u16) {
    let truth = report(net, liar, number, &mapping(number).to_string());
    claim(net, liar, victim, truth);
    let lie = report(net, liar, number, ELSEWHERE);
    claim(net, liar, victim, lie);
}

/// The time since a relay knows that a peer was heard.
fn silence(net: &Net, relay: usize, number: u16) -> Duration {
    let peer = net.peer(relay, &client(number)).expect("a peer");
    net.clocks(relay).now.saturating_since(peer.last_received)
}

/// Checks that a relay has the first client at its true mapping, and may use it.
#[track_caller]
fn assert_at_home(net: &Net, relay: usize) {
    let peer = net.peer(relay, &client(1)).expect("a peer");
    assert_eq!(peer.mapped, mapping(1), "at {:?}", net.clocks(relay).now);
    assert!(net.is_usable(relay, &client(1)));
}

/// A relay that lies moves no peer that another one hears, neither here nor elsewhere.
#[test]
fn f15_a_peer_that_is_heard_stays_where_it_is() {
    let mut net = Net::new(3);
    net.introduce(0, mapping(1), &client(1));
    net.run(100);
    for _ in 0..60 {
        net.client_sends(0, mapping(1), &client(1));
        for victim in 0..2 {
            let lie = report(&net, 2, 1, ELSEWHERE);
            claim(&mut net, 2, victim, lie);
            assert_at_home(&net, victim);
        }
        net.run(1_000);
    }
    assert!(learned(&net, 0, Learned::HeldElsewhere) > 0);
    assert!(learned(&net, 1, Learned::HeldElsewhere) > 0);
}

/// Even if it tells the truth first, and whether the peer is heard often or only now and then.
#[test]
fn f15_nobody_takes_a_peer_over() {
    for pause in [1, 5, 12, 25] {
        let mut net = Net::new(4);
        net.introduce(0, mapping(1), &client(1));
        net.run(100);
        for second in 0..120 {
            if second % pause == 0 {
                assert!(net.client_sends(0, mapping(1), &client(1)));
            }
            for victim in 0..3 {
                lure(&mut net, 3, victim, 1);
                assert_at_home(&net, victim);
            }
            net.run(990);
        }
        assert!(learned(&net, 0, Learned::HeldElsewhere) > 0);
        assert!(learned(&net, 1, Learned::HeldElsewhere) > 0);
    }
}

/// Nor with the help of a relay that has just got the peer from somebody else.
#[test]
fn f15_a_relay_that_starts_loses_no_peer_that_is_heard() {
    let mut net = Net::new(4);
    net.introduce(0, mapping(1), &client(1));
    net.run(100);
    net.restart(2);
    net.run(1_000);
    for _ in 0..120 {
        net.client_sends(0, mapping(1), &client(1));
        lure(&mut net, 3, 2, 1);
        assert_at_home(&net, 2);
        net.run(990);
    }
}

/// The relay that alone hears a peer says at once that it has moved.
#[test]
fn f15_a_relay_moves_the_peers_that_it_alone_hears() {
    let mut net = Net::new(3);
    net.introduce(0, mapping(1), &client(1));
    net.run(5_000);
    let moved = endpoint(ELSEWHERE);
    net.send(0, &client(1));
    net.answer(0, moved, &client(1));
    net.run(5);
    for number in 0..3 {
        let peer = net.peer(number, &client(1)).expect("a peer");
        assert_eq!(peer.mapped, moved, "relay {number}");
    }
}

/// A peer that nobody hears any more may be elsewhere.
#[test]
fn f15_a_mapping_that_is_not_heard_gives_way() {
    let mut net = Net::new(3);
    net.introduce(0, mapping(1), &client(1));
    net.run(100);
    let moved = endpoint(ELSEWHERE);
    net.introduce(2, moved, &client(1));
    for _ in 0..40 {
        net.client_sends(2, moved, &client(1));
        net.run(1_000);
    }
    for number in 0..3 {
        assert_eq!(
            net.peer(number, &client(1)).expect("a peer").mapped,
            moved,
            "{number}"
        );
    }
}

/// A relay that says that it hears a peer takes nothing from what another one says of it.
#[test]
fn f12_a_member_that_lies_silences_nobody() {
    for is_fast in [false, true] {
        let mut net = Net::new(3);
        net.introduce(0, mapping(1), &client(1));
        net.run(15_000);
        for step in 0..1_200_u32 {
            let truth = report(&net, 2, 1, &mapping(1).to_string());
            claim(&mut net, 2, 0, truth);
            net.run(48);
            if step % 20 != 0 {
                continue;
            }
            if is_fast {
                // As the fast path tells: in seconds, some time later.
                let now = net.clocks(0).now;
                let heard = Instant::from_nanos(now.as_nanos() >> 30 << 30);
                let relay = &mut net.nodes[0].relay;
                relay.record_stamps(&client(1), heard, heard);
            } else {
                net.client_sends(0, mapping(1), &client(1));
            }
            if step > 200 {
                let silence = silence(&net, 1, 1);
                assert!(silence < Duration::from_secs(10), "{silence:?}, {is_fast}");
            }
        }
    }
}

/// The cookie that a relay waits for has come back to another one, of which a third one said so before.
#[test]
fn f11_news_is_told_whatever_others_say() {
    let mut net = Net::new(3);
    net.cut.extend([(0, 1), (1, 0)]);
    net.introduce(0, mapping(1), &client(1));
    net.run(20_000);
    net.cut.clear();
    net.answer(0, mapping(1), &client(1));
    for _ in 0..10 {
        net.run(1_000);
        let truth = report(&net, 2, 1, &mapping(1).to_string());
        claim(&mut net, 2, 0, truth);
        let now = net.clocks(0).now;
        let mut answer = bubble(&client(1), &net.cookies[&client(1)]);
        let relay = &mut net.nodes[0].relay;
        relay.handle_datagram(now, mapping(1), 0, &mut answer);
        assert_eq!(relay.poll_news(), Some(client(1)));
    }
}

/// Two relays that do not hear each other hear the same peer, and a third one hears both.
#[test]
fn f12_what_one_relay_tells_does_not_keep_another_from_telling() {
    let mut net = Net::new(3);
    net.cut.extend([(1, 2), (2, 1)]);
    net.run(5_000);
    net.introduce(1, mapping(1), &client(1));
    net.run(5);
    for second in 0..90 {
        // Packets come to the first and to the second relay.
        for relay in 0..2 {
            net.client_sends(relay, mapping(1), &client(1));
        }
        net.run(1_000);
        if second > 10 {
            assert!(net.is_usable(2, &client(1)), "after {second} s");
            assert!(silence(&net, 2, 1) < Duration::from_secs(8));
        }
    }
}

/// What a member keeps alive counts for it.
#[test]
fn f16_a_member_has_a_place_for_each_peer_that_it_keeps() {
    let mut net = Net::starting(2, |config| config.max_peers = 1_000);
    net.run(3_000);
    for number in 0..800 {
        net.introduce(0, mapping(number), &client(number));
    }
    net.run(100);
    assert_eq!(net.usable(0).len(), 800);
    for _ in 0..40 {
        for number in 0..800 {
            let truth = report(&net, 1, number, &mapping(number).to_string());
            claim(&mut net, 1, 0, truth);
        }
    }
    assert_eq!(net.usable(0).len(), 750);
}

/// Two members that make up peers leave room for those that prove something to the relay itself.
#[test]
fn f16_members_leave_places_for_proofs() {
    let mut net = Net::starting(3, |config| config.max_peers = 1_600);
    net.run(3_000);
    for number in 1_000_u16..3_000 {
        let [high, low] = number.to_be_bytes();
        let lie = report(
            &net,
            1 + usize::from(number % 2),
            number,
            &format!("9.{high}.{low}.1:4096"),
        );
        claim(&mut net, 1 + usize::from(number % 2), 0, lie);
    }
    assert_eq!(net.nodes[0].relay.trusted_peers(), 1_300);
    for number in 0..100 {
        net.introduce(0, mapping(number), &client(number));
    }
    for number in 0..100 {
        assert!(net.is_usable(0, &client(number)), "{number}");
    }
    assert_eq!(net.nodes[0].relay.trusted_peers(), 1_400);
}

/// What somebody does in a random history: the last relay lies, the others hear clients.
#[derive(Clone, Debug)]
enum Step {
    /// A relay hears a client.
    Hear {
        relay: usize,
        peer: u16,
    },
    /// A lie, or the truth, for one of the others.
    Claim {
        victim: usize,
        peer: u16,
        is_true: bool,
        age: u64,
        is_proof: bool,
    },
    Wait {
        milliseconds: u64,
    },
    Restart {
        relay: usize,
    },
    Partition {
        relays: u16,
    },
}

const PEERS: u16 = 6;

fn step() -> impl Strategy<Value = Step> {
    let (relay, peer) = (0_usize..4, 0..PEERS);
    prop_oneof![
        2 => (relay.clone(), peer.clone()).prop_map(|(relay, peer)| Step::Hear { relay, peer }),
        8 => (relay.clone(), peer, any::<bool>(), 0_u64..20_000, any::<bool>()).prop_map(
            |(victim, peer, is_true, age, is_proof)| Step::Claim { victim, peer, is_true, age, is_proof }
        ),
        4 => (0_u64..2_000).prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => relay.prop_map(|relay| Step::Restart { relay }),
        1 => any::<u16>().prop_map(|relays| Step::Partition { relays }),
    ]
}

/// Runs a history of honest relays, which hear each client every twenty seconds at least, and one that lies. At none of
/// the honest ones is a client moved.
fn run(count: usize, steps: Vec<Step>) {
    let mut net = Net::new(count + 1);
    let liar = count;
    let mut heard = vec![Duration::ZERO; PEERS.into()];
    for peer in 0..PEERS {
        net.introduce(usize::from(peer) % count, mapping(peer), &client(peer));
        heard[usize::from(peer)] = net.now;
    }
    net.run(100);
    for step in steps {
        match step {
            Step::Hear { relay, peer } => {
                let is_known = net.client_sends(relay % count, mapping(peer), &client(peer));
                // In a partition, only one side knows.
                if is_known && net.cut.is_empty() {
                    heard[usize::from(peer)] = net.now;
                }
            }
            Step::Claim {
                victim,
                peer,
                is_true,
                age,
                is_proof,
            } => {
                let now = net.clocks(liar).now;
                let place = if is_true {
                    mapping(peer)
                } else {
                    endpoint(ELSEWHERE)
                };
                let lie = Report {
                    address: client(peer),
                    mapped: place,
                    last_received: now - Duration::from_millis(age),
                    last_sent: now,
                    proved: if is_proof { now } else { Instant::ZERO },
                };
                claim(&mut net, liar, victim % count, lie);
            }
            Step::Wait { milliseconds } => net.run(milliseconds),
            Step::Restart { relay } if net.cut.is_empty() && count > 1 => {
                let relay = relay % count;
                // What nobody else hears is not known for sure any more.
                for peer in 0..PEERS {
                    let mut others = (0..count).filter(|&other| other != relay);
                    let heard_by = others.next_back().expect("another relay");
                    assert!(net.client_sends(heard_by, mapping(peer), &client(peer)));
                    heard[usize::from(peer)] = net.now;
                }
                net.restart(relay);
                net.run(1_500);
            }
            Step::Restart { .. } => {}
            Step::Partition { relays } => {
                // Reports get through to somebody in time, and to the others before they forget.
                net.cut.clear();
                net.run(6_000);
                let side = |relay: usize| relays & 1 << relay != 0;
                for one in 0..count {
                    for other in (0..count).filter(|&other| side(one) != side(other)) {
                        net.cut.insert((one, other));
                    }
                }
            }
        }
        for peer in 0..PEERS {
            if net.now - heard[usize::from(peer)] > Duration::from_secs(12) {
                let knows = |&relay: &usize| net.is_usable(relay, &client(peer));
                let known: Vec<_> = (0..count).filter(knows).collect();
                // One on each side of a partition, of which nobody knows the sides here.
                let sides = if net.cut.is_empty() { 1 } else { count };
                for &relay in known.iter().take(sides) {
                    net.client_sends(relay, mapping(peer), &client(peer));
                }
                assert!(!known.is_empty(), "client {peer}");
                heard[usize::from(peer)] = net.now;
            }
        }
        for relay in 0..count {
            for peer in net.nodes[relay].relay.peers().filter(|peer| peer.trusted) {
                assert_ne!(peer.mapped, endpoint(ELSEWHERE), "relay {relay}: {peer:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn f15_a_member_that_lies_moves_no_peer_that_another_one_hears(
        count in 1_usize..=4,
        steps in prop::collection::vec(step(), 0..120)
    ) {
        run(count, steps);
    }
}
