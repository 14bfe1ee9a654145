//! Relays whose clocks are wrong, and what was recorded of them (F-05).

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::{
    harness::{Net, Recorded, client, mapping, member},
    saying::{claim, dropped, learned, record, report, say},
};
use crate::{
    fleet::{
        DropReason,
        wire::{Heartbeat, Message, Reports, build_reports},
    },
    relay::Learned,
};

/// A report of a relay about a peer, as a datagram to another one.
fn recorded_report(net: &mut Net, from: usize, to: usize) -> Vec<u8> {
    let octets = build_reports(
        net.clocks(from).now,
        &[report(net, from, 1, "9.0.1.1:4096")],
    );
    record(net, from, to, &Message::Reports(Reports::of(&octets)))
}

fn is_reached(net: &Net, number: usize, other: usize) -> bool {
    let mut others = net.nodes[number].fleet.others(net.clocks(number).now);
    others.any(|info| info.address == member(other) && info.is_live && info.hears_us)
}

/// Waits until all relays are in step with each other.
fn assert_in_step_within(net: &mut Net, milliseconds: u64) {
    let count = net.nodes.len();
    let is_in_step = |net: &Net| {
        let mut nodes = net.nodes.iter();
        let reached = |number: usize| {
            (0..count).all(|other| other == number || is_reached(net, number, other))
        };
        (0..count).all(reached)
            && nodes.all(|node| node.fleet.has_joined() && node.fleet.is_in_step())
    };
    let end = net.now + Duration::from_millis(milliseconds);
    while !is_in_step(net) {
        assert!(net.now < end, "not in step");
        net.run(50);
    }
}

#[test]
fn f05_clocks_may_differ_by_five_seconds() {
    let mut net = Net::new(3);
    (net.nodes[1].ahead, net.nodes[2].ahead) = (2_400, -2_400);
    net.run(1_000);
    // In the last moments of an epoch of the cookies, too.
    for number in 0..70 {
        let (asks, hears) = (usize::from(number % 3), usize::from(number / 3 % 3));
        net.send(asks, &client(number));
        net.run(1_000);
        net.answer(hears, mapping(number), &client(number));
        net.run(5);
        assert!(
            (0..3).all(|relay| net.is_usable(relay, &client(number))),
            "{number}"
        );
    }
    net.nodes[1].ahead = 8_000;
    net.run(4_000);
    assert!(dropped(&net, 0, DropReason::Clock) > 0);
    let now = net.clocks(0).now;
    let other = net.nodes[0].fleet.others(now).next().expect("a member");
    assert!(!other.is_live && (7_000..9_000).contains(&other.clock_ahead));
    assert!(net.nodes[0].fleet.is_in_step(), "with those that it hears");
}

/// A host starts with a wrong clock, its relay with it, and then the clock is set.
#[test]
fn f05_a_relay_is_heard_when_its_clock_was_set() {
    for ahead in [-3_600_000, -60_000, -8_000, 8_000, 60_000, 3_600_000] {
        for is_second_start in [false, true] {
            let mut net = Net::new(3);
            net.run(4_000);
            net.nodes[1].ahead = ahead;
            if is_second_start {
                net.restart(1);
                net.run(5_000);
            }
            net.restart(1);
            net.run(20_000);
            assert!(!net.nodes[1].fleet.has_joined(), "{ahead}");
            net.introduce(0, mapping(1), &client(1));
            net.nodes[1].ahead = 0;
            assert_in_step_within(&mut net, 5_000);
            assert!(net.is_usable(1, &client(1)), "{ahead}");
        }
    }
}

/// All clocks are wrong together, and set one after the other.
#[test]
fn f05_relays_are_heard_when_all_their_clocks_were_set() {
    for ahead in [-60_000, 60_000] {
        let mut net = Net::new(3);
        for number in 0..3 {
            net.nodes[number].ahead = ahead;
        }
        for number in 0..3 {
            net.restart(number);
        }
        net.run(5_000);
        assert!(net.nodes.iter().all(|node| node.fleet.is_in_step()));
        for number in 0..3 {
            net.nodes[number].ahead = 0;
            net.run(7_000);
        }
        assert_in_step_within(&mut net, 1_000);
        net.introduce(0, mapping(1), &client(1));
        net.run(10);
        assert!((0..3).all(|number| net.is_usable(number, &client(1))));
    }
}

/// What was said in a time that has not come yet is refused when it comes.
#[test]
fn f05_what_was_recorded_of_a_clock_that_was_ahead_is_refused_later() {
    for is_receiver_ahead in [true, false] {
        for restarts in [vec![], vec![0], vec![1], vec![0, 1]] {
            let mut net = Net::new(2);
            net.nodes[1].ahead = 60_000;
            net.nodes[0].ahead = if is_receiver_ahead { 60_000 } else { 0 };
            net.restart(1);
            net.tape = Some(Vec::new());
            net.run(2_000);
            let report = recorded_report(&mut net, 1, 0);
            let at = net.now;
            net.run(4_000);
            let mut tape = net.tape.take().expect("a tape");
            tape.retain(|datagram| datagram.from == 1);
            assert!(tape.len() > 4);
            let place = tape.partition_point(|datagram| datagram.at < at);
            tape.insert(
                place,
                Recorded {
                    at,
                    from: 1,
                    to: 0,
                    payload: report,
                },
            );
            for number in 0..2 {
                net.nodes[number].ahead = 0;
            }
            assert_in_step_within(&mut net, 5_000);
            for &number in &restarts {
                net.restart(number);
            }
            for datagram in tape {
                let at = datagram.at + Duration::from_secs(60);
                let pause = at.saturating_sub(net.now);
                net.run(pause.as_millis() as u64);
                net.receive(1, 0, &datagram.payload);
            }
            assert_eq!(learned(&net, 0, Learned::Peer), 0, "{restarts:?}");
            assert_in_step_within(&mut net, 2_000);
        }
    }
}

/// Nor does anything count again, since its sender was no member for a while.
#[test]
fn f08_a_member_that_comes_back_begins_anew() {
    let mut net = Net::new(2);
    net.run(60_000);
    let report = recorded_report(&mut net, 1, 0);
    net.receive(1, 0, &report);
    assert_eq!(learned(&net, 0, Learned::Peer), 1);
    net.set_members(0, &[]);
    net.run(10);
    net.set_members(0, &[member(1)]);
    assert_in_step_within(&mut net, 1_500);
    net.receive(1, 0, &report);
    let counted = net.nodes[0].fleet.statistics().learned;
    let counted: u64 = counted.iter().map(|(_, count)| count).sum();
    assert_eq!(counted, 1);
    assert_eq!(dropped(&net, 0, DropReason::Replay), 1);
}

/// The next process of a relay whose clock went back begins before its last run did.
#[test]
fn f05_a_relay_whose_clock_went_back_is_heard_after_a_restart() {
    let mut net = Net::starting(2, |_| ());
    net.run(2_500);
    net.introduce(0, mapping(1), &client(1));
    net.nodes[1].ahead = -4_000;
    net.restart(1);
    net.run(1_500);
    assert!(net.is_usable(1, &client(1)));
    let now = net.clocks(1).now;
    let mut others = net.nodes[1].fleet.others(now);
    assert!(others.all(|other| other.hears_us && other.is_known));
}

#[test]
fn f05_a_member_cannot_move_the_run_of_another() {
    let mut net = Net::new(2);
    net.restart(0);
    for heard_run in [u64::MAX, u64::MAX / 2, 1] {
        let heartbeat = Heartbeat {
            is_in_step: true,
            wants_answer: false,
            service: None,
            heard_run,
            peers: 0,
        };
        say(&mut net, 1, 0, &Message::Heartbeat(heartbeat));
    }
    net.run(2_500);
    assert!(net.nodes[0].fleet.has_joined());
    net.introduce(0, mapping(1), &client(1));
    net.run(500);
    assert!(net.is_usable(1, &client(1)));
}

/// It spoils only what it says itself.
#[test]
fn f05_a_member_that_moves_its_run_disturbs_nobody_else() {
    let mut net = Net::new(3);
    for _ in 0..100 {
        let heartbeat = Heartbeat {
            is_in_step: true,
            wants_answer: true,
            service: None,
            heard_run: net.nodes[0].fleet.others[0].own_run + 1,
            peers: 0,
        };
        say(&mut net, 1, 0, &Message::Heartbeat(heartbeat));
        net.run(50);
        assert!(is_reached(&net, 0, 2) && is_reached(&net, 2, 0));
    }
    let mapped = mapping(1);
    net.introduce(0, mapped, &client(1));
    net.run(5);
    assert!(net.is_usable(2, &client(1)));
    let news = report(&net, 2, 2, "9.0.2.1:4096");
    claim(&mut net, 2, 0, news);
    assert!(net.is_usable(0, &client(2)));
    assert_in_step_within(&mut net, 1_500);
}

/// An event of a history of two relays, with somebody in between.
#[derive(Clone, Debug)]
enum Step {
    Wait {
        milliseconds: u64,
    },
    /// A relay tells the other one something.
    Tell {
        from: usize,
    },
    /// Something that was sent comes, as it did before or not.
    Replay {
        chosen: usize,
    },
    Clock {
        relay: usize,
        ahead: i64,
    },
    Restart {
        relay: usize,
    },
    HandOver {
        relay: usize,
    },
    Readmit {
        relay: usize,
    },
    Cut {
        is_cut: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let relay = 0_usize..2;
    prop_oneof![
        4 => prop_oneof![0_u64..50, 0_u64..2_000, 0_u64..8_000]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
        4 => relay.clone().prop_map(|from| Step::Tell { from }),
        6 => any::<usize>().prop_map(|chosen| Step::Replay { chosen }),
        2 => (relay.clone(), prop_oneof![Just(0), -30_000_i64..30_000, -6_000_i64..6_000])
            .prop_map(|(relay, ahead)| Step::Clock { relay, ahead }),
        1 => relay.clone().prop_map(|relay| Step::Restart { relay }),
        1 => relay.clone().prop_map(|relay| Step::HandOver { relay }),
        1 => relay.prop_map(|relay| Step::Readmit { relay }),
        1 => any::<bool>().prop_map(|is_cut| Step::Cut { is_cut }),
    ]
}

/// Runs a history. A report counts once, and not long after it was sent, whatever clocks do.
fn run(steps: Vec<Step>) {
    let mut net = Net::new(2);
    net.tape = Some(Vec::new());
    let mut counted = BTreeSet::new();
    for step in steps {
        match step {
            Step::Wait { milliseconds } => net.run(milliseconds),
            Step::Tell { from } => {
                let report = report(&net, from, 1, "9.0.1.1:4096");
                let octets = build_reports(net.clocks(from).now, &[report]);
                let message = Message::Reports(Reports::of(&octets));
                let payload = record(&mut net, from, 1 - from, &message);
                let (at, to) = (net.now, 1 - from);
                let tape = net.tape.as_mut().expect("a tape");
                tape.push(Recorded {
                    at,
                    from,
                    to,
                    payload,
                });
            }
            Step::Replay { chosen } => {
                let tape = net.tape.as_ref().expect("a tape");
                // Something that was told, for the most part.
                let reports = tape.iter().filter(|sent| sent.payload[3] == 2);
                let choice: Vec<_> = match chosen % 4 {
                    0 => tape.iter().collect(),
                    _ => reports.collect(),
                };
                if choice.is_empty() {
                    continue;
                }
                let sent = choice[chosen / 4 % choice.len()].clone();
                let before = received(&net, sent.to);
                net.receive(sent.from, sent.to, &sent.payload);
                if received(&net, sent.to) > before && sent.payload[3] == 2 {
                    assert!(
                        net.now - sent.at < Duration::from_millis(10_500),
                        "{sent:?}"
                    );
                    assert!(counted.insert(sent.payload.clone()), "{sent:?}");
                }
            }
            Step::Clock { relay, ahead } => net.nodes[relay].ahead = ahead,
            Step::Restart { relay } => net.restart(relay),
            Step::HandOver { relay } => net.hand_over(relay),
            Step::Readmit { relay } => {
                net.set_members(relay, &[]);
                net.set_members(relay, &[member(1 - relay)]);
            }
            Step::Cut { is_cut } => {
                net.cut.clear();
                if is_cut {
                    net.cut.extend([(0, 1), (1, 0)]);
                }
            }
        }
    }
    net.cut.clear();
    for number in 0..2 {
        net.nodes[number].ahead = 0;
    }
    net.run(10_000);
    assert_in_step_within(&mut net, 1_000);
}

fn received(net: &Net, number: usize) -> u64 {
    net.nodes[number].fleet.statistics().received.packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn f05_a_report_counts_once_and_soon_whatever_clocks_do(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        run(steps);
    }
}
