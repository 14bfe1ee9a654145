//! Fleets of relays behind one address, with routers that spread packets as they like (F-10 to F-23).

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use proptest::prelude::*;
use teredo_common::address::{Endpoint, TeredoAddress};
use teredo_proto::relay::Bubble;
use teredo_simulation::{
    Hashing, NodeId, ROUND_TRIP, Realm, Weather, World, for_seeds, nat::Kind, packet::Message,
};

const ALL: [Hashing; 3] = [Hashing::Destination, Hashing::Flow, Hashing::Packet];
/// Clients behind every kind of NAT that matters to a relay.
const KINDS: [Kind; 4] = [
    Kind::Public,
    Kind::Cone,
    Kind::PortRestricted,
    Kind::PortSymmetric,
];

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A fleet that has joined, qualified clients and a native host.
struct Scene {
    world: World,
    relays: Vec<NodeId>,
    clients: Vec<NodeId>,
    host: NodeId,
}

impl Scene {
    fn new(seed: u64, count: u8, hashing: Hashing, is_fast: bool) -> Self {
        let mut world = World::new(seed);
        world.fast_relays = is_fast;
        let server = world.add_server();
        let host = world.add_host();
        let relays = world.add_fleet(count, hashing);
        let clients = KINDS.map(|kind| {
            let realm = world.add_nat(Realm::INTERNET, kind);
            let client = world.add_client(realm, server);
            world.start(client);
            client
        });
        world.run(seconds(15));
        for &client in &clients {
            assert!(world.client(client).is_qualified());
        }
        assert!(relays.iter().all(|&id| world.relay(id).is_ready()));
        Self {
            world,
            relays,
            clients: clients.into(),
            host,
        }
    }

    /// Has every client talk to the host, until it is trusted.
    fn talk(&mut self) {
        for _ in 0..6 {
            for &client in &self.clients {
                self.world.request(client, self.host);
                self.world.request(self.host, client);
            }
            self.world.run(seconds(1));
        }
    }

    /// Sends one packet each way between all clients and the host.
    fn send(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for &client in &self.clients {
            let (host, world) = (self.host, &mut self.world);
            sent.push(Sent {
                from: host,
                number: world.request(host, client),
            });
            sent.push(Sent {
                from: client,
                number: world.request(client, host),
            });
        }
        sent
    }

    /// The requests that got lost, or whose replies did.
    fn lost(&self, sent: &[Sent]) -> Vec<Sent> {
        let is_lost = |sent: &&Sent| {
            let stack = self.world.stack(sent.from);
            stack.count(Message::Reply(sent.number)) == 0
        };
        sent.iter().filter(is_lost).copied().collect()
    }

    /// Whether all relays that are on know a client until a packet of now is there, and may leave it to the
    /// fast path.
    fn agree_on(&self, client: NodeId) -> bool {
        let Some(address) = self.world.address(client) else {
            return false;
        };
        let mut on = self.ready();
        on.all(|id| {
            let relay = &self.world.relay(id).relay;
            let later = self.world.now + ROUND_TRIP * 2;
            relay.has_proved(&address.octets()) && relay.is_usable(later, &address.octets())
        })
    }

    fn ready(&self) -> impl Iterator<Item = NodeId> {
        let relays = self.relays.iter().copied();
        relays.filter(|&id| self.world.is_up(id) && self.world.relay(id).is_ready())
    }

    /// The peers of each relay that is on.
    fn peers(&self) -> Vec<BTreeSet<Ipv6Addr>> {
        let peers = |id| {
            let peers = self.world.relay(id).relay.peers();
            let trusted = peers.filter(|peer| peer.trusted);
            trusted.map(|peer| peer.address).collect()
        };
        self.ready().map(peers).collect()
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: NodeId,
    number: u64,
}

#[test]
fn f10_any_relay_serves_every_client() {
    for hashing in ALL {
        for_seeds(2, |seed| {
            let mut scene = Scene::new(seed, 3, hashing, seed % 2 == 0);
            scene.talk();
            for _ in 0..20 {
                let sent = scene.send();
                scene.world.run(ROUND_TRIP * 2);
                assert!(
                    scene.lost(&sent).is_empty(),
                    "{hashing:?}: {:?}",
                    scene.lost(&sent)
                );
            }
        });
    }
}

/// Every relay in turn ends without notice and comes back with an empty table: no packet is lost.
#[test]
fn f10_no_packet_is_lost_when_a_relay_goes_or_comes() {
    for (count, hashing) in [2, 3, 5, 16].into_iter().zip(ALL.into_iter().cycle()) {
        for_seeds(2, |seed| {
            let mut scene = Scene::new(seed, count, hashing, seed % 2 == 0);
            scene.talk();
            for relay in scene.relays.clone().into_iter().take(5) {
                let mut sent = scene.send();
                // Some are under way.
                scene.world.run(ROUND_TRIP / 3);
                scene.world.kill(relay);
                for _ in 0..10 {
                    sent.extend(scene.send());
                    scene.world.run(Duration::from_millis(100));
                }
                scene.world.revive(relay);
                for _ in 0..40 {
                    sent.extend(scene.send());
                    scene.world.run(Duration::from_millis(100));
                }
                assert!(scene.world.relay(relay).is_ready());
                let lost = scene.lost(&sent);
                assert!(lost.is_empty(), "{count} {hashing:?}: {lost:?}");
            }
        });
    }
}

/// A relay that has nothing draws no packets.
#[test]
fn f19_a_relay_draws_packets_when_it_has_everything() {
    let mut scene = Scene::new(1, 3, Hashing::Packet, true);
    scene.talk();
    let relay = scene.relays[1];
    scene.world.kill(relay);
    scene.world.run(seconds(5));
    scene.world.revive(relay);
    let is_ready = scene
        .world
        .run_until(seconds(5), |world| world.relay(relay).is_ready());
    assert!(is_ready);
    let peers = scene.peers();
    assert_eq!(peers.len(), 3);
    assert!(
        peers
            .iter()
            .all(|one| *one == peers[0] && one.len() == KINDS.len()),
        "{peers:?}"
    );
}

/// Many clients of one server that do not exist are asked for through all relays: together they send
/// no more bubbles than one relay may.
#[test]
fn f23_the_limits_hold_for_the_fleet_as_a_whole() {
    for count in [2, 4, 9, 16] {
        let mut scene = Scene::new(1, count, Hashing::Packet, false);
        scene.world.run(seconds(5));
        let bubbles = |scene: &Scene| {
            let sent = scene.relays.iter().map(|&id| {
                let statistics = scene.world.relay(id).relay.statistics();
                statistics.bubbles[Bubble::SentIndirect]
            });
            sent.sum::<u64>()
        };
        let before = bubbles(&scene);
        let server = Ipv4Addr::new(99, 1, 2, 3);
        for number in 0..600_u32 {
            let mapped = Ipv4Addr::from(0x0909_0000 + number);
            let address = TeredoAddress::new(server, Endpoint::new(mapped, 4096)).encode();
            scene.world.send_to(scene.host, address);
        }
        scene.world.run(seconds(10));
        let sent = bubbles(&scene) - before;
        // Nine a second, and as many as in two seconds at once.
        assert!((40..=9 * 12 + 9).contains(&sent), "{count}: {sent}");
    }
}

/// An event. Relays and clients are numbered; numbers wrap.
#[derive(Clone, Debug)]
enum Step {
    Send {
        client: usize,
        is_outward: bool,
    },
    Wait {
        milliseconds: u64,
    },
    Kill {
        relay: usize,
    },
    Revive {
        relay: usize,
    },
    Partition {
        relays: u16,
    },
    Heal,
    FleetWeather {
        loss: f64,
        duplication: f64,
        jitter: u64,
    },
    Clock {
        relay: usize,
        ahead: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let relay = 0_usize..16;
    prop_oneof![
        8 => (0_usize..4, any::<bool>())
            .prop_map(|(client, is_outward)| Step::Send { client, is_outward }),
        6 => prop_oneof![0_u64..200, 0_u64..3_000, 0_u64..20_000]
            .prop_map(|milliseconds| Step::Wait { milliseconds }),
        2 => relay.clone().prop_map(|relay| Step::Kill { relay }),
        2 => relay.clone().prop_map(|relay| Step::Revive { relay }),
        1 => any::<u16>().prop_map(|relays| Step::Partition { relays }),
        1 => Just(Step::Heal),
        1 => (0.0..0.3, 0.0..0.2, 0_u64..30).prop_map(|(loss, duplication, jitter)| {
            Step::FleetWeather { loss, duplication, jitter }
        }),
        1 => (relay, -2_400_i64..2_400).prop_map(|(relay, ahead)| Step::Clock { relay, ahead }),
    ]
}

impl Step {
    /// Takes the step. Returns a request that must not be lost, since all relays know the client and
    /// the internet is fair.
    fn take(self, scene: &mut Scene) -> Option<Sent> {
        match self {
            Self::Send { client, is_outward } => {
                let client = scene.clients[client % scene.clients.len()];
                let (from, to) = match is_outward {
                    true => (client, scene.host),
                    false => (scene.host, client),
                };
                let is_known = scene.agree_on(client) && scene.ready().next().is_some();
                let number = scene.world.request(from, to);
                return is_known.then_some(Sent { from, number });
            }
            Self::Wait { milliseconds } => scene.world.run(Duration::from_millis(milliseconds)),
            Self::Kill { relay } => {
                let relay = scene.relays[relay % scene.relays.len()];
                // One is left: a fleet that is gone loses everything.
                if scene.ready().any(|other| other != relay) {
                    scene.world.kill(relay);
                }
            }
            Self::Revive { relay } => {
                let relay = scene.relays[relay % scene.relays.len()];
                if !scene.world.is_up(relay) {
                    scene.world.revive(relay);
                }
            }
            Self::Partition { relays } => {
                let side = |place: usize| relays & 1 << place != 0;
                for (one, &from) in scene.relays.iter().enumerate() {
                    for (other, &to) in scene.relays.iter().enumerate() {
                        if side(one) != side(other) {
                            scene.world.cut.insert((from, to));
                        }
                    }
                }
            }
            Self::Heal => scene.world.cut.clear(),
            Self::FleetWeather {
                loss,
                duplication,
                jitter,
            } => {
                let weather = &mut scene.world.fleet_weather;
                (weather.loss, weather.duplication) = (loss, duplication);
                weather.jitter = Duration::from_millis(jitter);
            }
            Self::Clock { relay, ahead } => {
                let relay = scene.relays[relay % scene.relays.len()];
                scene.world.set_ahead(relay, ahead);
            }
        }
        None
    }
}

fn run(seed: u64, count: u8, hashing: Hashing, is_fast: bool, steps: Vec<Step>) {
    let mut scene = Scene::new(seed, count, hashing, is_fast);
    scene.talk();
    for step in steps {
        // What is lost is found at once; nothing else happens meanwhile.
        if let Some(sent) = step.take(&mut scene) {
            scene.world.run(ROUND_TRIP * 2);
            let lost = scene.lost(&[sent]);
            assert!(lost.is_empty(), "{lost:?}\n{}", scene.world.recent());
        }
    }
    scene.world.cut.clear();
    scene.world.fleet_weather = Weather {
        delay: Duration::from_millis(1),
        ..Weather::FAIR
    };
    for relay in scene.relays.clone() {
        if !scene.world.is_up(relay) {
            scene.world.revive(relay);
        }
    }
    scene.world.run(seconds(8));
    scene.talk();
    scene.world.run(seconds(40));
    scene.talk();
    let sent = scene.send();
    scene.world.run(ROUND_TRIP * 2);
    assert!(
        scene.lost(&sent).is_empty(),
        "{:?}\n{}",
        scene.lost(&sent),
        scene.world.recent()
    );
    let peers = scene.peers();
    assert_eq!(peers.len(), usize::from(count));
    assert!(peers.iter().all(|one| *one == peers[0]), "{peers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn f10_no_packet_of_a_trusted_client_is_lost(
        seed: u64,
        count in 2_u8..=16,
        hashing in prop::sample::select(&ALL[..]),
        is_fast: bool,
        steps in prop::collection::vec(step(), 0..40)
    ) {
        run(seed, count, hashing, is_fast, steps);
    }
}
