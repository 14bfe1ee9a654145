//! Random histories: the rules hold after every step, and once all faults have ended, every
//! connection works again.

mod attack;
mod step;

use std::time::Duration;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use teredo_proto::client::{Client, Nat};
use teredo_simulation::{
    NodeId, Realm, Weather, World,
    matrix::{Means, attempt, qualify},
    nat::Kind,
    stack::Pings,
};

use step::Step;

/// The longest wait of an off-line client, and a qualification.
const LONGEST_WAIT: Duration = Duration::from_secs(930);
/// Time after which earlier bubbles do not count any more (P-09).
const FORGOTTEN: Duration = Duration::from_secs(301);

/// The set-up of a history.
#[derive(Clone, Debug)]
struct Topology {
    seed: u64,
    /// The clients' NATs and extensions. `None` puts a client behind the NAT of the previous one.
    clients: Vec<(Option<Kind>, Means)>,
    relay: Kind,
    /// Whether the relay has a fast path.
    is_fast: bool,
    /// Lifetime of the NATs' mappings.
    lifetime: Duration,
    inbound_refresh: bool,
    hairpinning: bool,
}

fn topology(clients: usize) -> impl Strategy<Value = Topology> {
    let kind = prop::sample::select(&Kind::ALL[..]);
    let means = prop::sample::select(&Means::ALL[..]);
    let relay = prop::sample::select(&[Kind::Public, Kind::Cone, Kind::Firewall][..]);
    let clients = prop::collection::vec((prop::option::weighted(0.8, kind), means), clients);
    let lifetime = prop::sample::select(&[35_u64, 60, 120, 600][..]);
    (
        any::<u64>(),
        clients,
        relay,
        any::<bool>(),
        lifetime,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(seed, clients, relay, is_fast, lifetime, inbound_refresh, hairpinning)| Topology {
                seed,
                clients,
                relay,
                is_fast,
                lifetime: Duration::from_secs(lifetime),
                inbound_refresh,
                hairpinning,
            },
        )
}

/// The world and its machines.
struct Scene {
    world: World,
    server: NodeId,
    host: NodeId,
    relay: Kind,
    relay_node: NodeId,
    clients: Vec<NodeId>,
}

impl Scene {
    fn new(topology: &Topology) -> Self {
        let mut world = World::new(topology.seed);
        world.fast_relays = topology.is_fast;
        let server = world.add_server();
        let host = world.add_host();
        let realm = world.add_nat(Realm::INTERNET, topology.relay);
        let relay_node = world.add_relay_behind(realm, topology.relay);
        let mut clients: Vec<NodeId> = Vec::new();
        for &(kind, means) in &topology.clients {
            let realm = match (kind, clients.last()) {
                (None, Some(&neighbour)) => world.realm(neighbour),
                (kind, _) => world.add_nat(Realm::INTERNET, kind.unwrap_or(Kind::Cone)),
            };
            let client = world.add_client_with(realm, server, |config| {
                config.extensions = means.extensions();
                // Few enough to be exceeded. (With few peers, evicted ones take the memory of their
                // bubbles with them.)
                config.queue_per_peer = 3;
            });
            if means.has_upnp() && kind.is_some_and(Kind::has_upnp) {
                world.map_port(client);
            }
            world.start(client);
            if let Some(gateway) = world.gateway(client) {
                let behaviour = &mut world.nat(gateway).behaviour;
                behaviour.lifetime = topology.lifetime;
                behaviour.inbound_refresh = topology.inbound_refresh;
                behaviour.hairpinning = topology.hairpinning;
            }
            clients.push(client);
        }
        let mut scene = Self {
            world,
            server,
            host,
            relay: topology.relay,
            relay_node,
            clients,
        };
        qualify(&mut scene.world, &scene.clients);
        scene
    }

    fn client(&self, number: usize) -> NodeId {
        self.clients[number % self.clients.len()]
    }

    /// A client, or the native host.
    fn machine(&self, number: usize) -> NodeId {
        let clients = self.clients.get(number % (self.clients.len() + 1));
        clients.copied().unwrap_or(self.host)
    }

    /// Ends all faults and checks that every connection works.
    fn mend(&mut self) {
        self.world.weather = Weather::FAIR;
        self.world.set_up(self.server, true);
        self.world.set_pings(self.host, Pings::Answered);
        for &client in &self.clients {
            self.world.set_connected(client, true);
            self.world
                .tell_network(client, |network| network.native_ipv6 = false);
            self.world.with_client(client, Client::start);
        }
        self.world.run(FORGOTTEN);
        let clients = &self.clients;
        self.world.run_until(LONGEST_WAIT, |world| {
            clients
                .iter()
                .all(|&client| world.client(client).is_qualified())
        });
        for client in self.clients.clone() {
            if self.world.address(client).is_none() {
                let extensions = self.world.client(client).config.extensions;
                assert!(!extensions.symmetric, "not qualified again");
                continue;
            }
            let identity = self.world.client(client).client.identity();
            let is_symmetric = identity.is_some_and(|own| own.nat == Nat::Symmetric);
            let gateway = self.world.gateway(client);
            let moves_ports =
                gateway.is_some_and(|gateway| self.world.nat(gateway).behaviour.tracks_unsolicited);
            if (is_symmetric || moves_ports) && self.relay == Kind::Firewall {
                // One of the pairs that never connect (docs/protocol/traversal.md).
                continue;
            }
            for (from, to) in [(client, self.host), (self.host, client)] {
                let outcome = attempt(&mut self.world, from, to);
                assert!(outcome.is_answered(), "{outcome:?}");
            }
        }
    }
}

fn run(topology: &Topology, steps: Vec<Step>) {
    let mut scene = Scene::new(topology);
    for step in steps {
        step.take(&mut scene);
    }
    scene.mend();
}

/// Replays earlier failures first, from a file beside this one.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        max_shrink_iters: 2_000,
        ..ProptestConfig::with_cases(cases)
    }
}

/// Ten thousand histories, in tests that run at the same time.
mod random {
    use super::*;

    proptest! {
        #![proptest_config(config(2_500))]

        #[test]
        fn histories_of_one_client(
            topology in topology(1),
            steps in prop::collection::vec(step::any_step(), 1..20),
        ) {
            run(&topology, steps);
        }

        #[test]
        fn histories_of_two_clients(
            topology in topology(2),
            steps in prop::collection::vec(step::any_step(), 1..20),
        ) {
            run(&topology, steps);
        }

        #[test]
        fn histories_of_attacks(
            topology in topology(2),
            steps in prop::collection::vec(step::attack_or_send(), 1..25),
        ) {
            run(&topology, steps);
        }

        #[test]
        fn histories_of_three_clients(
            topology in topology(3),
            steps in prop::collection::vec(step::any_step(), 1..15),
        ) {
            run(&topology, steps);
        }
    }
}

/// The peer answers at the port that is tested, and the server does not. The client closed
/// the port that it then sent from.
#[test]
fn x41_an_answer_ends_the_echo_test() {
    let topology = Topology {
        seed: 10_951_129_482_982_408_967,
        clients: vec![
            (None, Means::Symmetric),
            (Some(Kind::SequentialSymmetric), Means::Sequential),
        ],
        relay: Kind::Firewall,
        is_fast: false,
        lifetime: Duration::from_secs(60),
        inbound_refresh: false,
        hairpinning: false,
    };
    let steps = vec![
        Step::Suspend {
            client: 0,
            seconds: 80,
        },
        Step::Send { from: 0, to: 1 },
        Step::Send { from: 1, to: 3 },
        Step::Weather {
            loss: 0.391_093_435_445_319_3,
            duplication: 0.257_209_385_191_595_1,
            jitter: 0,
        },
        Step::Wait { milliseconds: 1000 },
    ];
    run(&topology, steps);
}
