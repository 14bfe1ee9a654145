//! Histories of two relays of a fleet, with somebody in between, and of what comes from anywhere.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use teredo_common::address::embedded_mapping;
use teredo_proto::{
    Fleet, Instant, Rate, Relay,
    fleet::{Clocks, Config, Keys},
    relay::{self, Transmit},
    testing::{bubble, packet},
    wire::ipv6::Header,
};

use super::{START, STEPS, duration, scenery::RELAY};
use crate::bytes::Bytes;

/// Datagrams on the way that are remembered.
const MEMORY: usize = 64;
/// The size of the relays' tables.
const PEERS: usize = 64;

struct Node {
    relay: Relay,
    fleet: Fleet,
    /// The source of the last bubble.
    cookie: Option<([u8; 16], [u8; 16])>,
}

struct World {
    nodes: [Node; 2],
    now: Instant,
    /// Milliseconds by which the second clock is ahead.
    ahead: u16,
    /// Datagrams on their way, each with its receiver.
    under_way: VecDeque<(usize, Vec<u8>)>,
}

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let keys = Keys::new(&[[1; 32], [2; 32]]).expect("keys");
    let clocks = clocks(START, 0);
    let nodes = [0, 1].map(|number| {
        let mut config = relay::Config::new(RELAY);
        config.max_peers = PEERS;
        let mut relay = Relay::new(config, [number; 32]);
        let members = vec![address(0), address(1)];
        let mut config = Config::new(address(number.into()), members);
        config.receive_rate = Rate::new(1_000, 1_000);
        let fleet = Fleet::new(config, keys.clone(), [number; 32], clocks);
        fleet.enlist(clocks, &mut relay);
        Node {
            relay,
            fleet,
            cookie: None,
        }
    });
    let mut world = World {
        nodes,
        now: START,
        ahead: 0,
        under_way: VecDeque::new(),
    };
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        world.step(&mut bytes);
        world.check();
    }
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 3546))
}

fn clocks(now: Instant, ahead: u16) -> Clocks {
    let wall = Duration::from_secs(1_800_000_000) + Duration::from_nanos(now.as_nanos());
    Clocks {
        now,
        wall: wall + Duration::from_millis(ahead.into()),
    }
}

impl World {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let number = usize::from(bytes.bit());
        match bytes.below(10) {
            0 | 1 => self.pass(duration(bytes)),
            2 | 3 => {
                let (source, destination) = (bytes.native(), bytes.teredo());
                let mut packet = packet(&source, &destination, 1);
                self.nodes[number].relay.handle_ipv6(self.now, &mut packet);
            }
            // The answer to a bubble of one comes to another.
            4 | 5 => {
                let cookie = self.nodes[usize::from(bytes.bit())].cookie;
                if let Some((peer, cookie)) = cookie {
                    let from = match bytes.below(4) {
                        0 => bytes.endpoint(),
                        _ => embedded_mapping(&peer),
                    };
                    let relay = &mut self.nodes[number].relay;
                    relay.handle_datagram(self.now, from, 0, &mut bubble(&peer, &cookie));
                }
            }
            6 => {
                let source = bytes.teredo();
                let mut packet = packet(&source, &bytes.native(), 1);
                let from = embedded_mapping(&source);
                let relay = &mut self.nodes[number].relay;
                relay.handle_datagram(self.now, from, 0, &mut packet);
            }
            // Somebody in between delays, repeats, changes and diverts.
            7 => {
                let (place, change, at) = (bytes.octet(), bytes.octet(), bytes.octet());
                let known = self.under_way.get(usize::from(place) % MEMORY).cloned();
                if let Some((to, mut payload)) = known {
                    let length = payload.len();
                    payload[usize::from(at) % length] ^= change;
                    let before = self.nodes[to].fleet.statistics().received;
                    self.arrive(to, address(1 - to), &payload);
                    let after = self.nodes[to].fleet.statistics().received;
                    assert!(change == 0 || before == after, "F-03");
                }
            }
            8 => {
                let payload = bytes.string().to_vec();
                self.arrive(number, address(1 - number), &payload);
            }
            _ => match bytes.below(4) {
                0 => self.ahead = bytes.short() % 8_000,
                1 => self.under_way.clear(),
                2 => {
                    let Node { relay, fleet, .. } = &mut self.nodes[number];
                    let octet = 1 + u8::from(bytes.bit());
                    let keys = Keys::new(&[[octet; 32], [3 - octet; 32]]).expect("keys");
                    fleet.set_keys(keys, relay);
                }
                _ => {
                    let Node { relay, fleet, .. } = &mut self.nodes[number];
                    let clocks = clocks(self.now, 0);
                    let config = Config::new(address(number), vec![address(0), address(1)]);
                    let keys = Keys::new(&[[1; 32], [2; 32]]).expect("keys");
                    *fleet = Fleet::restore(config, keys, [7; 32], clocks, fleet.state(self.now));
                    fleet.enlist(clocks, relay);
                }
            },
        }
        self.drain();
    }

    fn clocks(&self, number: usize) -> Clocks {
        clocks(self.now, if number == 1 { self.ahead } else { 0 })
    }

    /// Lets time pass. What is on its way arrives.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration.min(Duration::from_secs(20));
        for _ in 0..400 {
            let arriving: Vec<_> = self.under_way.iter().cloned().collect();
            self.under_way.clear();
            for (to, payload) in arriving {
                self.arrive(to, address(1 - to), &payload);
            }
            let due = self
                .nodes
                .iter()
                .map(|node| node.fleet.poll_timeout())
                .min();
            let Some(due) = due.filter(|&due| due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            for number in 0..2 {
                let clocks = self.clocks(number);
                let Node { relay, fleet, .. } = &mut self.nodes[number];
                relay.handle_timeout(clocks.now);
                fleet.handle_timeout(clocks, relay);
            }
            self.drain();
        }
        self.now = end;
    }

    fn arrive(&mut self, to: usize, from: SocketAddr, payload: &[u8]) {
        let clocks = self.clocks(to);
        let Node { relay, fleet, .. } = &mut self.nodes[to];
        fleet.handle_datagram(clocks, from, payload, relay);
        self.drain();
    }

    fn drain(&mut self) {
        for number in 0..2 {
            let clocks = self.clocks(number);
            let Node {
                relay,
                fleet,
                cookie,
            } = &mut self.nodes[number];
            fleet.flush(clocks, relay);
            while let Some(transmit) = relay.poll_transmit() {
                if let Transmit::Datagram { payload, .. } = transmit
                    && let Ok(header) = Header::parse(&payload)
                    && header.is_bubble()
                {
                    *cookie = Some((header.destination(), header.source()));
                }
            }
            while relay.poll_event().is_some() {}
            while let Some(transmit) = fleet.poll_transmit() {
                assert_eq!(transmit.to, address(1 - number));
                assert!(transmit.payload.len() <= teredo_proto::fleet::wire::DATAGRAM);
                if self.under_way.len() == MEMORY {
                    self.under_way.pop_front();
                }
                self.under_way.push_back((1 - number, transmit.payload));
            }
        }
    }

    fn check(&self) {
        for node in &self.nodes {
            assert!(node.relay.peers().count() <= PEERS, "F-16");
            assert!(node.fleet.poll_timeout() > Instant::ZERO);
            let statistics = node.relay.statistics();
            assert!(statistics.proved_peers <= statistics.trusted_peers);
            let proved = node.relay.peers().filter(|peer| peer.proved).count();
            assert_eq!(proved, statistics.proved_peers);
        }
    }
}
