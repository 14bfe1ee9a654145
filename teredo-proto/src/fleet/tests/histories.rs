//! Random histories: no relay trusts a peer without proof, and seconds after all faults have ended,
//! all have the same peers.

use std::time::Duration;

use proptest::prelude::*;

use super::harness::{Net, Node, client, keys, mapping};
use crate::testing::endpoint;

/// An event. Relays are numbered; numbers wrap.
#[derive(Clone, Debug)]
enum Step {
    Send {
        relay: usize,
        peer: u16,
    },
    Introduce {
        relay: usize,
        hears: usize,
        peer: u16,
    },
    Client {
        relay: usize,
        peer: u16,
    },
    Wait {
        milliseconds: u64,
    },
    Weather {
        loss: f64,
        duplication: f64,
        jitter: u64,
    },
    Partition {
        relays: u16,
    },
    Crash {
        relay: usize,
    },
    Restart {
        relay: usize,
    },
    HandOver {
        relay: usize,
    },
    Clock {
        relay: usize,
        ahead: i64,
    },
    /// As `Clock`, but the others notice.
    Jump {
        relay: usize,
        ahead: i64,
    },
    WrongKey {
        relay: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (relay, peer) = (0_usize..16, 0_u16..24);
    prop_oneof![
        4 => (relay.clone(), peer.clone()).prop_map(|(relay, peer)| Step::Send { relay, peer }),
        4 => (relay.clone(), relay.clone(), peer.clone())
            .prop_map(|(relay, hears, peer)| Step::Introduce { relay, hears, peer }),
        4 => (relay.clone(), peer).prop_map(|(relay, peer)| Step::Client { relay, peer }),
        6 => prop_oneof![0_u64..50, 0_u64..3_000, 0_u64..30_000]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => (0.0..0.6, 0.0..0.3, 0_u64..50).prop_map(|(loss, duplication, jitter)| {
            Step::Weather { loss, duplication, jitter }
        }),
        1 => any::<u16>().prop_map(|relays| Step::Partition { relays }),
        1 => relay.clone().prop_map(|relay| Step::Crash { relay }),
        2 => relay.clone().prop_map(|relay| Step::Restart { relay }),
        1 => relay.clone().prop_map(|relay| Step::HandOver { relay }),
        1 => (relay.clone(), -2_400_i64..2_400)
            .prop_map(|(relay, ahead)| Step::Clock { relay, ahead }),
        1 => (relay.clone(), -120_000_i64..120_000)
            .prop_map(|(relay, ahead)| Step::Jump { relay, ahead }),
        1 => relay.prop_map(|relay| Step::WrongKey { relay }),
    ]
}

/// The mapping of each client is one of two, for ever: the second one of symmetric NATs.
fn place(peer: u16) -> crate::Endpoint {
    match peer % 2 {
        0 => mapping(peer),
        _ => endpoint(&format!("9.99.{peer}.9:999")),
    }
}

impl Step {
    fn take(self, net: &mut Net) {
        let count = net.nodes.len();
        match self {
            Self::Send { relay, peer } if net.nodes[relay % count].is_up => {
                net.send(relay % count, &client(peer));
            }
            Self::Introduce { relay, hears, peer } => {
                let (relay, hears) = (relay % count, hears % count);
                if net.nodes[relay].is_up && net.nodes[hears].is_up {
                    net.send(relay, &client(peer));
                    net.answer(hears, place(peer), &client(peer));
                    net.run(1);
                    net.prove(relay, place(peer), &client(peer));
                }
            }
            Self::Client { relay, peer } if net.nodes[relay % count].is_up => {
                net.client_sends(relay % count, place(peer), &client(peer));
            }
            Self::Send { .. } | Self::Client { .. } => {}
            Self::Wait { milliseconds } => net.run(milliseconds),
            Self::Weather {
                loss,
                duplication,
                jitter,
            } => {
                (net.loss, net.duplication) = (loss, duplication);
                net.jitter = Duration::from_millis(jitter);
            }
            Self::Partition { relays } => {
                let side = |relay: usize| relays & 1 << relay != 0;
                let pairs = (0..count).flat_map(|one| (0..count).map(move |other| (one, other)));
                net.cut = pairs
                    .filter(|&(one, other)| side(one) != side(other))
                    .collect();
            }
            Self::Crash { relay } => net.nodes[relay % count].is_up = false,
            Self::Restart { relay } => net.restart(relay % count),
            Self::HandOver { relay } if net.nodes[relay % count].is_up => {
                net.hand_over(relay % count);
            }
            Self::HandOver { .. } => {}
            Self::WrongKey { relay } => set_key(net, relay % count, 2),
            Self::Clock { relay, ahead } | Self::Jump { relay, ahead } => {
                net.nodes[relay % count].ahead = ahead
            }
        }
    }
}

fn set_key(net: &mut Net, relay: usize, key: u8) {
    let Node { fleet, relay, .. } = &mut net.nodes[relay];
    fleet.set_keys(keys(key), relay);
}

fn run(count: usize, steps: Vec<Step>) {
    let mut net = Net::starting(count, |_| ());
    net.run(500);
    // If all copies of a report are lost, and the relay that sent it hears the peer no more, or does not exist any more,
    // only the end of its lifetime ends the difference.
    let has = |is: fn(&Step) -> bool| steps.iter().any(is);
    let is_lossy = has(|step| matches!(step, Step::Weather { .. }))
        || has(|step| {
            matches!(
                step,
                Step::Partition { .. } | Step::Jump { .. } | Step::WrongKey { .. }
            )
        }) && has(|step| matches!(step, Step::Crash { .. } | Step::Restart { .. }));
    for step in steps {
        step.take(&mut net);
        net.assert_proved();
    }
    (net.loss, net.duplication, net.jitter) = (0.0, 0.0, Duration::ZERO);
    net.cut.clear();
    for relay in 0..count {
        set_key(&mut net, relay, 1);
        if net.nodes[relay].ahead.abs() > 2_400 {
            net.nodes[relay].ahead = 0;
        }
        if !net.nodes[relay].is_up {
            net.restart(relay);
        }
    }
    // Clients that are alive, so that the time since they were heard does not differ.
    let rounds = if is_lossy { 45 } else { 13 };
    for _ in 0..rounds {
        for peer in 0..24 {
            let relay = usize::from(peer) % count;
            net.client_sends(relay, place(peer), &client(peer));
        }
        net.run(1_000);
        net.assert_proved();
    }
    let expected = net.usable(0);
    for relay in 0..count {
        let node = &net.nodes[relay];
        assert!(
            node.fleet.has_joined() && node.fleet.is_in_step(),
            "relay {relay}"
        );
        assert_eq!(net.usable(relay), expected, "relay {relay}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn f18_all_agree_seconds_after_faults_have_ended(
        count in 2_usize..=16,
        steps in prop::collection::vec(step(), 0..40)
    ) {
        run(count, steps);
    }
}
