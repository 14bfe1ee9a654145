//! Measures what a fleet with many peers costs: memory, datagrams and octets, and time.
//!
//! `cargo run --release -p teredo-proto --example fleet_size [PEERS] [RELAYS]`. One relay is heard by
//! all of its share of the peers; another one gets everything that it tells. The others are forged.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant as Stopwatch},
};

use teredo_proto::{
    Endpoint, Fleet, Instant, Relay, TeredoAddress,
    fleet::{Clocks, Config, Keys},
    relay::{self, Member, Report},
};

/// Octets of the headers of UDP and IPv4.
const HEADERS: u64 = 28;
/// Rounds of the measurement.
const ROUNDS: u64 = 3;

struct Node {
    relay: Relay,
    fleet: Fleet,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (peers, relays) = (number(1_000_000_u32), number(3_u32));
    let share = peers / relays;
    let members: Vec<SocketAddr> = (0..relays)
        .map(|number| SocketAddr::from(([10, 0, 0, number as u8 + 1], 3546)))
        .collect();
    let mut now = Instant::from_nanos(1_000_000_000_000);
    let mut nodes = [0, 1].map(|number| node(number, &members, peers, now));
    let empty = resident();

    let other = Member::other(0).expect("a number");
    let [one, two] = &mut nodes;
    for number in 0..peers {
        one.relay.learn(now, other, &report(number, now));
        while one.relay.poll_event().is_some() {}
    }
    let full = resident();
    println!(
        "memory: {} octets a peer",
        (full - empty) / u64::from(peers)
    );

    // The second relay joins.
    let (began, start) = (Stopwatch::now(), now);
    let mut traffic = Traffic::default();
    while !two.fleet.has_joined() {
        now += Duration::from_millis(1);
        traffic.exchange(one, two, &members, now);
    }
    println!(
        "joining: {} peers, {} datagrams, {} octets, {} s of the network, {:.1} s of both CPUs",
        two.relay.trusted_peers(),
        traffic.datagrams,
        traffic.octets,
        now.saturating_since(start).as_secs_f64(),
        began.elapsed().as_secs_f64()
    );

    // The first relay hears its share of the peers all the time.
    let mut traffic = Traffic::default();
    let (mut telling, mut steps) = (Duration::ZERO, 0);
    let start = now;
    while steps < ROUNDS * 50 {
        if steps.is_multiple_of(10) {
            for number in 0..share {
                let address = report(number, now).address;
                one.relay.record_stamps(&address, now, now);
            }
        }
        now += Duration::from_millis(100);
        let began = Stopwatch::now();
        traffic.exchange(one, two, &members, now);
        telling += began.elapsed();
        steps += 1;
    }
    let seconds = now.saturating_since(start).as_secs_f64();
    let to_each = (
        traffic.told_datagrams as f64 / seconds,
        traffic.told_octets as f64 / seconds,
    );
    println!(
        "telling: {:.0} datagrams and {:.1} Mbit a second to each of {} others, {:.1} Mbit to all; {:.1} % of a CPU",
        to_each.0,
        to_each.1 * 8.0 / 1e6,
        relays - 1,
        to_each.1 * 8.0 / 1e6 * f64::from(relays - 1),
        telling.as_secs_f64() / seconds * 100.0
    );
    println!("learning: {:?}", two.fleet.statistics().learned);
}

fn node(number: usize, members: &[SocketAddr], peers: u32, now: Instant) -> Node {
    let endpoint = Endpoint::new([5, 6, 7, 8].into(), 3545);
    let mut config = relay::Config::new(endpoint);
    config.max_peers = peers as usize * 2;
    let mut relay = Relay::new(config, [number as u8; 32]);
    let keys = Keys::new(&[[1; 32]]).expect("a key");
    let config = Config::new(members[number], members[..2].to_vec());
    let fleet = Fleet::new(config, keys, [number as u8; 32], clocks(now));
    fleet.enlist(clocks(now), &mut relay);
    Node { relay, fleet }
}

fn clocks(now: Instant) -> Clocks {
    let wall = Duration::from_secs(1_800_000_000) + Duration::from_nanos(now.as_nanos());
    Clocks { now, wall }
}

fn report(number: u32, now: Instant) -> Report {
    let mapped = Endpoint::new((0x0900_0000 + number).into(), 4096);
    let address = TeredoAddress::new([1, 2, 3, 4].into(), mapped).encode();
    Report {
        address: address.octets(),
        mapped,
        last_received: now,
        last_sent: now,
        proved: now,
    }
}

#[derive(Default)]
struct Traffic {
    datagrams: u64,
    octets: u64,
    told_datagrams: u64,
    told_octets: u64,
}

impl Traffic {
    /// Has both do what is due, until nothing is on the way.
    fn exchange(&mut self, one: &mut Node, two: &mut Node, members: &[SocketAddr], now: Instant) {
        for node in [&mut *one, &mut *two] {
            node.fleet.handle_timeout(clocks(now), &mut node.relay);
        }
        loop {
            let is_idle = [
                self.carry(one, two, members[0], now),
                self.carry(two, one, members[1], now),
            ];
            if is_idle == [true; 2] {
                return;
            }
        }
    }

    fn carry(&mut self, from: &mut Node, to: &mut Node, address: SocketAddr, now: Instant) -> bool {
        let mut is_idle = true;
        while let Some(transmit) = from.fleet.poll_transmit() {
            is_idle = false;
            let octets = transmit.payload.len() as u64 + HEADERS;
            (self.datagrams, self.octets) = (self.datagrams + 1, self.octets + octets);
            // Reports.
            if transmit.payload[3] == 2 {
                self.told_datagrams += 1;
                self.told_octets += octets;
            }
            to.fleet
                .handle_datagram(clocks(now), address, &transmit.payload, &mut to.relay);
            while to.relay.poll_event().is_some() {}
        }
        is_idle
    }
}

/// Returns the octets of memory that the process uses.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
