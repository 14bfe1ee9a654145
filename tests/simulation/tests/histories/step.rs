//! The possible events of a history.

use std::time::Duration;

use proptest::prelude::*;
use teredo_proto::client::Client;
use teredo_simulation::{Weather, packet, stack::Pings};

use super::{
    Scene,
    attack::{self, Attack},
};

/// An event. Machines are numbered; numbers wrap.
#[derive(Clone, Debug)]
pub enum Step {
    Send {
        from: usize,
        to: usize,
    },
    Ping {
        from: usize,
        to: usize,
    },
    Wait {
        milliseconds: u64,
    },
    Weather {
        loss: f64,
        duplication: f64,
        jitter: u64,
    },
    Fair,
    Reboot {
        client: usize,
    },
    Renumber {
        client: usize,
    },
    Server {
        is_up: bool,
    },
    Cable {
        client: usize,
        is_connected: bool,
    },
    Native {
        client: usize,
        is_there: bool,
    },
    Suspend {
        client: usize,
        seconds: u64,
    },
    SuspendRelay {
        seconds: u64,
    },
    RestartRelay,
    Restart {
        client: usize,
    },
    Doubt {
        client: usize,
    },
    Stop {
        client: usize,
    },
    Start {
        client: usize,
    },
    Pings {
        number: u8,
    },
    Attack(Attack),
}

/// Mostly sends and waits.
pub fn any_step() -> impl Strategy<Value = Step> {
    let client = 0_usize..3;
    prop_oneof![
        8 => send_or_wait(),
        1 => (0.0..0.5, 0.0..0.3, 0_u64..100).prop_map(|(loss, duplication, jitter)| {
            Step::Weather { loss, duplication, jitter }
        }),
        1 => Just(Step::Fair),
        1 => client.clone().prop_map(|client| Step::Reboot { client }),
        1 => client.clone().prop_map(|client| Step::Renumber { client }),
        1 => any::<bool>().prop_map(|is_up| Step::Server { is_up }),
        1 => (client.clone(), any::<bool>())
            .prop_map(|(client, is_connected)| Step::Cable { client, is_connected }),
        1 => (client.clone(), any::<bool>())
            .prop_map(|(client, is_there)| Step::Native { client, is_there }),
        1 => (client.clone(), 1_u64..400)
            .prop_map(|(client, seconds)| Step::Suspend { client, seconds }),
        1 => (5_u64..400).prop_map(|seconds| Step::SuspendRelay { seconds }),
        1 => Just(Step::RestartRelay),
        1 => client.clone().prop_map(|client| Step::Restart { client }),
        1 => client.clone().prop_map(|client| Step::Doubt { client }),
        1 => client.clone().prop_map(|client| Step::Stop { client }),
        1 => client.prop_map(|client| Step::Start { client }),
        1 => (0_u8..3).prop_map(|number| Step::Pings { number }),
        3 => attack::any_attack().prop_map(Step::Attack),
    ]
}

pub fn attack_or_send() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => send_or_wait(),
        2 => attack::any_attack().prop_map(Step::Attack),
    ]
}

fn send_or_wait() -> impl Strategy<Value = Step> {
    let machine = 0_usize..4;
    prop_oneof![
        6 => (machine.clone(), machine.clone()).prop_map(|(from, to)| Step::Send { from, to }),
        1 => (machine.clone(), machine).prop_map(|(from, to)| Step::Ping { from, to }),
        4 => prop_oneof![0_u64..300, 0_u64..5_000, 0_u64..60_000]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
    ]
}

impl Step {
    pub fn take(self, scene: &mut Scene) {
        match self {
            Self::Send { from, to } => {
                let (from, to) = (scene.machine(from), scene.machine(to));
                if let Some(to) = scene.world.address(to) {
                    // Sometimes more than the queue holds.
                    for _ in 0..if from == scene.host { 1 } else { 5 } {
                        scene.world.send_to(from, to);
                    }
                }
            }
            Self::Ping { from, to } => {
                let (from, to) = (scene.machine(from), scene.machine(to));
                let addresses = scene.world.address(from).zip(scene.world.address(to));
                if let Some((source, destination)) = addresses {
                    let ping = packet::ping(source, destination, 1);
                    scene.world.send_packet(from, ping);
                }
            }
            Self::Wait { milliseconds } => scene.world.run(Duration::from_millis(milliseconds)),
            Self::Weather {
                loss,
                duplication,
                jitter,
            } => {
                scene.world.weather = Weather {
                    loss,
                    duplication,
                    jitter: Duration::from_millis(jitter),
                    ..Weather::FAIR
                };
            }
            Self::Fair => scene.world.weather = Weather::FAIR,
            Self::Reboot { client } => {
                if let Some(gateway) = scene.world.gateway(scene.client(client)) {
                    scene.world.nat(gateway).reboot();
                }
            }
            Self::Renumber { client } => {
                if let Some(gateway) = scene.world.gateway(scene.client(client)) {
                    scene.world.renumber(gateway);
                }
            }
            Self::Server { is_up } => scene.world.set_up(scene.server, is_up),
            Self::Cable {
                client,
                is_connected,
            } => {
                scene
                    .world
                    .set_connected(scene.client(client), is_connected);
            }
            Self::Native { client, is_there } => {
                let client = scene.client(client);
                scene
                    .world
                    .tell_network(client, |network| network.native_ipv6 = is_there);
            }
            Self::Suspend { client, seconds } => {
                scene
                    .world
                    .suspend(scene.client(client), Duration::from_secs(seconds));
            }
            Self::SuspendRelay { seconds } => {
                let relay = scene.relay_node;
                scene.world.suspend(relay, Duration::from_secs(seconds));
            }
            Self::RestartRelay => scene.world.restart(scene.relay_node),
            Self::Restart { client } => scene.world.restart(scene.client(client)),
            Self::Doubt { client } => scene
                .world
                .with_client(scene.client(client), Client::recheck_mapping),
            Self::Stop { client } => scene.world.with_client(scene.client(client), Client::stop),
            Self::Start { client } => scene.world.with_client(scene.client(client), Client::start),
            Self::Pings { number } => {
                let pings = [Pings::Answered, Pings::Refused, Pings::Ignored];
                scene
                    .world
                    .set_pings(scene.host, pings[usize::from(number) % 3]);
            }
            Self::Attack(attack) => attack.strike(scene),
        }
    }
}
