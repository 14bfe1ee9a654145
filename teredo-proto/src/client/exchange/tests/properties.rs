//! In every history: no panic, no datagram to a forbidden endpoint, no more bubbles than are
//! allowed, and no more memory than is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_mapping},
    scope::Ipv4Scope,
    time::Instant,
    wire::ICMPV6,
};

use super::harness::*;
use crate::{
    client::{Config, Identity, Nat},
    shared::peers::{GAP, MAX_UNANSWERED, WINDOW},
    wire::{
        bubble as bubbles, encapsulation,
        ipv6::Header,
        trailer::{Trailer, write_alternate_addresses},
    },
};

const ENDPOINTS: [&str; 12] = [
    SERVER,
    PEER,
    PEER_SERVER,
    RELAY,
    MAPPED,
    "9.0.0.1:4097",
    "8.0.0.1:7777",
    "192.168.1.3:40001",
    "192.168.1.2:40000",
    "10.0.0.1:80",
    "224.0.0.253:3544",
    "127.0.0.1:80",
];

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Pass(u16),
    /// Another process goes on.
    Restart,
    /// The host sends to one of the addresses.
    Host(usize, u8),
    /// A packet arrives.
    Packet {
        from: usize,
        source: usize,
        origin: Option<usize>,
        port: u8,
    },
    /// A bubble arrives, with trailers.
    Bubble {
        from: usize,
        source: usize,
        origin: Option<usize>,
        port: u8,
        trailers: Trailing,
    },
    /// The last connectivity test is answered.
    Answer {
        from: usize,
    },
    /// The last nonce comes back.
    Echo {
        from: usize,
        port: u8,
    },
    Discovery {
        from: usize,
        source: usize,
    },
    Identity(Option<(bool, bool, bool)>),
    Junk {
        from: usize,
        payload: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
struct Trailing {
    nonce: Option<[u8; 4]>,
    random_port: Option<u16>,
    alternates: Vec<usize>,
    solicitation: bool,
    junk: Vec<u8>,
}

impl Trailing {
    fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        if let Some(nonce) = self.nonce {
            Trailer::Nonce(nonce).write(&mut octets);
        }
        if let Some(port) = self.random_port {
            Trailer::RandomPort(port).write(&mut octets);
        }
        if self.solicitation {
            Trailer::NeighborSolicitation.write(&mut octets);
        }
        let alternates: Vec<_> = self
            .alternates
            .iter()
            .map(|&number| endpoint(ENDPOINTS[number]))
            .collect();
        write_alternate_addresses(&alternates, &mut octets);
        octets.extend(&self.junk);
        octets
    }
}

/// Addresses that packets come from and go to.
fn addresses() -> Vec<[u8; 16]> {
    let mut all: Vec<_> = ENDPOINTS
        .iter()
        .map(|mapped| teredo(mapped, PEER_SERVER))
        .collect();
    all.push(teredo(PEER, "192.168.1.2:3544"));
    all.push(teredo(PEER, "10.0.0.1:3544"));
    all.extend([HOST, "2000::c", "fe80::1", "ff02::1", "::1"].map(address));
    all.push(own());
    all
}

const ADDRESSES: usize = ENDPOINTS.len() + 8;

fn step() -> impl Strategy<Value = Step> {
    let from = 0..ENDPOINTS.len();
    let source = 0..ADDRESSES;
    let origin = prop::option::of(0..ENDPOINTS.len());
    let trailing = (
        prop::option::of(any::<[u8; 4]>()),
        prop::option::of(any::<u16>()),
        prop::collection::vec(0..ENDPOINTS.len(), 0..5),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..4),
    );
    let trailing =
        trailing.prop_map(
            |(nonce, random_port, alternates, solicitation, junk)| Trailing {
                nonce,
                random_port,
                alternates,
                solicitation,
                junk,
            },
        );
    let kinds = prop::option::weighted(0.9, (any::<bool>(), any::<bool>(), any::<bool>()));
    prop_oneof![
        6 => (0_u16..9000).prop_map(Step::Pass),
        1 => (9000_u16..60_000).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        6 => (source.clone(), any::<u8>()).prop_map(|(to, mark)| Step::Host(to, mark)),
        4 => (from.clone(), source.clone(), origin.clone(), any::<u8>()).prop_map(
            |(from, source, origin, port)| Step::Packet { from, source, origin, port }
        ),
        8 => (from.clone(), source.clone(), origin, any::<u8>(), trailing).prop_map(
            |(from, source, origin, port, trailers)| {
                Step::Bubble { from, source, origin, port, trailers }
            }
        ),
        3 => from.clone().prop_map(|from| Step::Answer { from }),
        4 => (from.clone(), any::<u8>()).prop_map(|(from, port)| Step::Echo { from, port }),
        2 => (from.clone(), source).prop_map(|(from, source)| Step::Discovery { from, source }),
        1 => kinds.prop_map(Step::Identity),
        1 => (from, prop::collection::vec(any::<u8>(), 40..120))
            .prop_map(|(from, payload)| Step::Junk { from, payload }),
    ]
}

/// Bubbles to one endpoint that count once.
struct Burst {
    start: Instant,
    /// Something came from there since the first bubble.
    is_answered: bool,
}

/// The rules that hold in every history.
#[derive(Default)]
struct Watch {
    /// Bursts by endpoint that bubbles went to; those to relays apart.
    bursts: BTreeMap<(Endpoint, bool), Vec<Burst>>,
    /// Endpoints on private networks that announced themselves.
    near: BTreeSet<Endpoint>,
    /// Sources of packets that one bubble may answer, now or when their peer is known.
    arrivals: BTreeSet<Endpoint>,
}

impl Watch {
    fn sent(&mut self, sent: &Sent) {
        let to = sent.to;
        assert_ne!(to.port(), 0);
        assert_ne!(to, endpoint(MAPPED), "L-02");
        assert_ne!(to.ip().to_string(), INSIDE, "L-02");
        assert!(Ipv4Scope::Lab.accepts(to.address), "{to}: L-05");
        let is_global = Ipv4Scope::Strict.accepts(to.address);
        assert!(is_global || self.near.contains(&to), "{to}: L-05, X-53");
        let header = Header::parse(&sent.payload);
        if let Ok(header) = header
            && header.is_bubble()
        {
            let is_for_relay = !ServicePrefix::STANDARD.contains(&header.destination());
            self.bubble(sent.at, to, is_for_relay);
        }
    }

    /// P-09: bursts are two seconds apart, four in three hundred seconds, and ten to a relay, if
    /// nothing came from there.
    fn bubble(&mut self, at: Instant, to: Endpoint, is_for_relay: bool) {
        let is_server = to == endpoint(PEER_SERVER);
        let most = if is_for_relay { 10 } else { MAX_UNANSWERED };
        let bursts = self.bursts.entry((to, is_for_relay)).or_default();
        let is_new = bursts
            .last()
            .is_none_or(|last| at.saturating_since(last.start) >= GAP);
        if is_new {
            bursts.push(Burst {
                start: at,
                is_answered: self.arrivals.remove(&to),
            });
        }
        let recent = bursts
            .iter()
            .filter(|burst| !burst.is_answered && at.saturating_since(burst.start) < WINDOW);
        // Several addresses have this server.
        assert!(is_server || recent.count() <= most, "{to}: P-09");
    }

    /// The last burst may still end with a bubble that answers this.
    fn arrived(&mut self, from: Endpoint) {
        self.arrivals.insert(from);
        for is_for_relay in [false, true] {
            for burst in self.bursts.entry((from, is_for_relay)).or_default() {
                burst.is_answered = true;
            }
        }
    }
}

fn small(config: &mut Config) {
    config.max_peers = 12;
    config.queue_per_peer = 3;
    config.queue_total_bytes = 1500;
}

fn run(steps: &[Step]) {
    let mut world = World::with(small);
    let mut watch = Watch::default();
    let all = addresses();
    let (mut tests, mut nonces) = (Vec::<Vec<u8>>::new(), Vec::new());
    for step in steps {
        let port = |number: u8, world: &World| match world.ports.get(usize::from(number % 4)) {
            Some(&port) => port,
            None => PORT,
        };
        let wrap = |origin: Option<usize>, payload: Vec<u8>| match origin {
            Some(origin) => with_origin(ENDPOINTS[origin], &payload),
            None => payload,
        };
        match step.clone() {
            Step::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds.into())),
            Step::Host(to, mark) => drop(world.host_sends(&packet(&own(), &all[to], mark))),
            Step::Packet {
                from,
                source,
                origin,
                port: number,
            } => {
                let payload = wrap(origin, packet(&all[source], &own(), 1));
                let port = port(number, &world);
                arrive(&mut world, &mut watch, port, from, &payload);
            }
            Step::Bubble {
                from,
                source,
                origin,
                port: number,
                trailers,
            } => {
                if is_near(&all[source]) {
                    let list = trailers.alternates.iter();
                    watch
                        .near
                        .extend(list.map(|&number| endpoint(ENDPOINTS[number])));
                }
                let payload = wrap(origin, bubble(&all[source], &own(), &trailers.octets()));
                let port = port(number, &world);
                arrive(&mut world, &mut watch, port, from, &payload);
            }
            Step::Answer { from } => {
                if let Some(test) = tests.last() {
                    arrive(&mut world, &mut watch, PORT, from, &reply_to(test));
                }
            }
            Step::Echo { from, port: number } => {
                if let Some((peer, nonce)) = nonces.last() {
                    if is_near(peer) {
                        // it knows the nonce, and is behind the same NAT.
                        watch.near.insert(endpoint(ENDPOINTS[from]));
                    }
                    let mut trailers = Vec::new();
                    Trailer::Nonce(*nonce).write(&mut trailers);
                    let payload = bubble(peer, &own(), &trailers);
                    let port = port(number, &world);
                    arrive(&mut world, &mut watch, port, from, &payload);
                }
            }
            Step::Discovery { from, source } => {
                watch.near.insert(endpoint(ENDPOINTS[from]));
                let payload = bubbles::build_discovery(&all[source]);
                let _ = world.arrives_on_link(ENDPOINTS[from], &payload);
            }
            Step::Identity(kinds) => world.set_identity(kinds.map(|(symmetric, ports, upnp)| {
                let nat = if symmetric {
                    Nat::Symmetric
                } else {
                    Nat::Restricted
                };
                Identity {
                    port_preserving: ports,
                    upnp,
                    ..World::identity(nat)
                }
            })),
            Step::Restart => world.restart(),
            Step::Junk { from, payload } => {
                if encapsulation::parse(&payload).is_ok() {
                    arrive(&mut world, &mut watch, PORT, from, &payload);
                }
            }
        }
        for sent in world.take_sent() {
            watch.sent(&sent);
            let header = Header::parse(&sent.payload);
            if header.is_ok_and(|header| header.next_header() == ICMPV6) {
                tests.push(sent.payload.clone());
            }
            if let Ok(header) = Header::parse(&sent.payload)
                && header.is_bubble()
                && sent.to == endpoint(PEER_SERVER)
                && let Some(nonce) = trailers(&sent.payload).nonce
            {
                nonces.push((header.destination(), nonce));
            }
        }
        check(&world);
    }
    world.pass_seconds(1000);
    assert_eq!(
        world.statistics().queue_packets,
        0,
        "nothing waits for ever"
    );
    world.set_identity(None);
    assert!(world.ports.is_empty());
    assert_eq!(world.exchange.peers().count(), 0);
    assert_eq!(world.statistics().queue_octets, 0);
}

/// Whether a peer seems to be behind the same NAT.
fn is_near(address: &[u8; 16]) -> bool {
    embedded_mapping(address).address == endpoint(MAPPED).address
}

fn arrive(world: &mut World, watch: &mut Watch, port: u16, from: usize, payload: &[u8]) {
    let from = endpoint(ENDPOINTS[from]);
    let before = world.delivered.len();
    let result = world.arrives_at(port, from, payload);
    if result.is_ok() {
        watch.arrived(from);
    }
    for packet in &world.delivered[before..] {
        let header = Header::parse(packet).unwrap();
        assert_eq!(header.destination(), own(), "L-08");
    }
    world.delivered.clear();
}

fn check(world: &World) {
    let statistics = world.statistics();
    assert!(statistics.queue_octets <= 1500, "P-07");
    assert!(world.exchange.peers().count() <= 12, "P-06");
    assert!(world.exchange.peers().all(|peer| peer.queued <= 3), "P-07");
    assert!(world.ports.len() <= 12);
    let unique: BTreeSet<_> = world.ports.iter().collect();
    assert_eq!(unique.len(), world.ports.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn l02_l05_p07_and_p09_hold_in_every_history(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        run(&steps);
    }
}
