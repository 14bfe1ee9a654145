//! Many clients of one server that begin at once, through one relay, with the limits and paces that
//! are the defaults (L-18, S-23).

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant as Stopwatch},
};

use teredo_common::{
    address::{Endpoint, TeredoAddress},
    time::Instant,
    wire::UDP,
};
use teredo_proto::{
    Relay, Server, ServerAddress,
    relay::{self, Bubble, DropReason},
    server::{self, Buckets},
    wire::{bubble, encapsulation, ipv6::Header},
};
use teredo_simulation::{NodeId, Realm, Weather, World, for_seeds, packet, packet::Message};

/// Bubbles a second that a relay sends through a server of which it knows nothing.
const PACE: u64 = 9;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

struct Crowd {
    world: World,
    relay: NodeId,
    host: NodeId,
    clients: Vec<NodeId>,
}

fn crowd(seed: u64, count: usize) -> Crowd {
    let mut world = World::new(seed);
    let server = world.add_server();
    let relay = world.add_relay(Realm::INTERNET);
    let host = world.add_host();
    let clients: Vec<_> = (0..count)
        .map(|_| world.add_client(Realm::INTERNET, server))
        .collect();
    for &client in &clients {
        world.start(client);
    }
    world.run(seconds(5));
    let mut all = clients.iter();
    assert!(all.all(|&client| world.client(client).is_qualified()));
    Crowd {
        world,
        relay,
        host,
        clients,
    }
}

/// A native host sends one packet to each of 300 clients, and never again: each is answered within
/// the time that the server's limits explain.
#[test]
fn l18_three_hundred_clients_at_once() {
    for_seeds(2, |seed| {
        let mut crowd = crowd(seed, 300);
        let (world, host) = (&mut crowd.world, crowd.host);
        let requests: Vec<_> = (crowd.clients.iter())
            .map(|&client| world.request(host, client))
            .collect();
        let start = world.now;
        world.run(seconds(300 / PACE + 5));
        for &request in &requests {
            let answered = world.stack(host).arrived(Message::Reply(request));
            assert!(answered.is_some(), "request {request}");
        }
        let first = world.stack(host).arrived(Message::Reply(requests[0]));
        let first = first.unwrap().saturating_since(start);
        assert!(first < seconds(1), "the first waits for nobody: {first:?}");
        let statistics = world.relay(crowd.relay).relay.statistics();
        assert!(statistics.trusted >= 300);
        for reason in [DropReason::EncapNoAnswer, DropReason::EncapBubbleLimit] {
            assert_eq!(statistics.dropped[reason], 0, "{reason:?}");
        }
    });
}

/// The clients send first, in bad weather, and repeat themselves as applications do.
#[test]
fn l18_three_hundred_clients_that_send_first() {
    let mut crowd = crowd(1, 300);
    crowd.world.weather = Weather {
        loss: 0.05,
        jitter: Duration::from_millis(100),
        ..Weather::FAIR
    };
    let (world, host) = (&mut crowd.world, crowd.host);
    let mut waiting: Vec<_> = (crowd.clients.iter())
        .map(|&client| (client, Vec::new()))
        .collect();
    let start = world.now;
    while !waiting.is_empty() {
        for (client, requests) in &mut waiting {
            requests.push(world.request(*client, host));
        }
        world.run(seconds(3));
        waiting.retain(|(client, requests)| {
            let stack = world.stack(*client);
            let is_answered = |&request: &u64| stack.count(Message::Reply(request)) > 0;
            !requests.iter().any(is_answered)
        });
        let took = world.now.saturating_since(start);
        assert!(took < seconds(120), "{} of 300 wait", waiting.len());
    }
}

/// A relay, a server and clients without NATs, each 25 ms from the others.
struct Line {
    relay: Relay,
    server: Server,
    now: Instant,
    to_server: VecDeque<(Instant, Vec<u8>)>,
    to_relay: VecDeque<(Instant, Endpoint, Vec<u8>)>,
    /// Packets that reached their client.
    arrived: usize,
}

const DELAY: Duration = Duration::from_millis(25);
const SERVER: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0xb);
const RELAY: Endpoint = Endpoint::new(Ipv4Addr::new(5, 6, 7, 8), 3545);

impl Line {
    fn new(change: impl FnOnce(&mut server::Config)) -> Self {
        let mut config = server::Config::new(SERVER, Ipv4Addr::new(1, 2, 3, 5));
        change(&mut config);
        Self {
            relay: Relay::new(relay::Config::new(RELAY), [7; 32]),
            server: Server::new(config, Buckets::new()),
            now: Instant::from_nanos(1_000_000_000_000),
            to_server: VecDeque::new(),
            to_relay: VecDeque::new(),
            arrived: 0,
        }
    }

    fn native_sends(&mut self, client: u16) {
        let mapped = Endpoint::new(Ipv4Addr::new(9, 0, (client >> 8) as u8, client as u8), 4096);
        let address = TeredoAddress::new(SERVER, mapped).encode();
        let mut packet = packet::numbered(HOST, address, false, client.into());
        let sent = self.relay.handle_ipv6(self.now, &mut packet);
        self.arrived += usize::from(sent.is_some());
        self.drain();
    }

    fn drain(&mut self) {
        let at = self.now + DELAY;
        while let Some(transmit) = self.relay.poll_transmit() {
            let relay::Transmit::Datagram { to, payload } = transmit else {
                continue;
            };
            match to.ip() == SERVER {
                true => self.to_server.push_back((at, payload)),
                // Not the question for the proof of the mapping.
                false => self.arrived += usize::from(payload[6] == UDP),
            }
        }
        while self.relay.poll_event().is_some() {}
    }

    /// The server forwards a bubble, and the client answers it.
    fn serve(&mut self, bubble: &[u8]) {
        let sent = self
            .server
            .handle_datagram(self.now, ServerAddress::Primary, RELAY, bubble);
        let Some(server::Transmit::Datagram { to, payload, .. }) = sent else {
            return;
        };
        let Ok(parts) = encapsulation::parse(payload) else {
            panic!("the server sends {payload:?}");
        };
        let Ok(header) = Header::parse(parts.packet) else {
            panic!("the server forwards {:?}", parts.packet);
        };
        let answer = bubble::build(&header.destination(), &header.source()).to_vec();
        self.to_relay.push_back((self.now + 2 * DELAY, to, answer));
    }

    /// Lets the next thing happen. Returns `false` if there is none.
    fn step(&mut self) -> bool {
        let times = [
            self.to_server.front().map(|&(at, _)| at),
            self.to_relay.front().map(|&(at, ..)| at),
            self.relay.poll_timeout(),
        ];
        let Some(next) = times.into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if times[0] == Some(next) {
            if let Some((_, bubble)) = self.to_server.pop_front() {
                self.serve(&bubble);
            }
        } else if times[1] == Some(next) {
            if let Some((_, from, mut answer)) = self.to_relay.pop_front() {
                self.relay.handle_datagram(self.now, from, 0, &mut answer);
            }
        } else {
            self.relay.handle_timeout(self.now);
        }
        self.drain();
        true
    }

    /// Sends a packet to each of `count` clients, and returns the time until all have arrived.
    fn reach(&mut self, count: u16) -> Duration {
        let start = self.now;
        for client in 0..count {
            self.native_sends(client);
        }
        while self.arrived < usize::from(count) {
            assert!(self.step(), "only {} packets arrive", self.arrived);
            assert!(self.now.saturating_since(start) < seconds(7200));
        }
        self.now.saturating_since(start)
    }
}

/// All of 10,000 clients are reached in the time that the server's default limit explains, and no
/// packet is lost.
#[test]
fn l18_ten_thousand_clients_of_one_server() {
    const CLIENTS: u16 = 10_000;
    let stopwatch = Stopwatch::now();
    let mut line = Line::new(|_| ());
    let took = line.reach(CLIENTS);
    let refused = line.server.statistics().dropped[server::DropReason::SourceRate];
    let sent = line.relay.statistics().bubbles[Bubble::SentIndirect];
    println!(
        "{took:?}, {sent} bubbles, {refused} refused, in {:?}",
        stopwatch.elapsed()
    );
    assert!(took < seconds(u64::from(CLIENTS) / PACE + 30), "{took:?}");
    assert!(took > seconds(900), "faster than the limit: {took:?}");
    assert_eq!(sent, u64::from(CLIENTS) + refused);
    assert!(refused < 400, "{refused} in four trials");
}

/// A server without limits is found to be one.
#[test]
fn l18_ten_thousand_clients_of_a_server_without_limits() {
    let mut line = Line::new(|config| {
        let unlimited = teredo_proto::Rate::new(1_000_000, 1_000_000);
        config.limits.source = unlimited;
        config.limits.network = unlimited;
    });
    let took = line.reach(10_000);
    assert!(took < seconds(45), "{took:?}");
}
