//! A relay holds what the operator was told, however it is attacked (requirement P-06).

use std::{net::Ipv4Addr, time::Duration};

use allocation_counter::measure;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    peers::Peer,
    time::Instant,
};
use teredo_proto::relay::{Config, PEER_OCTETS, Relay};

const START: Instant = Instant::from_nanos(1_000_000_000_000);
const RELAY: Endpoint = Endpoint {
    address: [20, 0, 0, 1],
    port: [0x0d, 0xd9],
};
/// The most peers, whose tables and lists are full at this number and no larger.
const PEERS: usize = 65_536;
/// Packets of native hosts, 100,000 a second.
const PACKETS: u32 = 300_000;
const GAP: Duration = Duration::from_micros(10);
/// Octets of an IPv6 packet with a UDP datagram.
const PACKET: usize = 104;

fn relay(peers: usize) -> Relay {
    let mut config = Config::new(RELAY);
    config.max_peers = peers;
    Relay::new(config, [7; 32])
}

/// Returns an address whose server is one of so many.
fn teredo(random: &mut StdRng, servers: u32) -> TeredoAddress {
    let server = Ipv4Addr::from_bits(0x2d00_0000 + random.random_range(0..servers));
    let [_, b, c, d, e, f] = random.random();
    TeredoAddress::new(
        server,
        Endpoint {
            address: [80, b, c, d],
            port: [e | 4, f],
        },
    )
}

/// Fills the list of trusted peers.
fn fill(relay: &mut Relay, random: &mut StdRng) {
    loop {
        let address = teredo(random, 1000);
        let peer = Peer {
            mapped: address.mapped,
            last_received: START,
            last_sent: START,
        };
        let is_full = relay.statistics().trusted_peers >= PEERS - PEERS / 8;
        if is_full {
            break;
        }
        relay.adopt_peer(START, address.encode(), &peer);
        while relay.poll_event().is_some() {}
    }
}

/// Sends packets of native hosts to clients of so many servers, each to another: from everywhere, or two for each server
/// from networks that differ little.
fn flood(relay: &mut Relay, random: &mut StdRng, servers: u32, are_close: bool) {
    let mut now = START;
    for number in 0..PACKETS {
        now += GAP;
        let mut packet = [0; PACKET];
        packet[0] = 0x60;
        packet[4..8].copy_from_slice(&[0, (PACKET - 40) as u8, 17, 60]);
        let [pair, which] = [number / 2, number % 2];
        let mut source: [u8; 8] = random.random();
        let mut destination = teredo(random, servers);
        if are_close {
            source[1..5].copy_from_slice(&pair.wrapping_mul(0x9e37_79b1).to_be_bytes());
            source[5..].copy_from_slice(&[0, 0, which as u8]);
            destination.server = Ipv4Addr::from_bits(0x2d00_0000 + pair);
        }
        packet[8..16].copy_from_slice(&source);
        packet[8] = 0x26;
        let destination = destination.encode();
        packet[24..40].copy_from_slice(&destination.octets());
        relay.handle_ipv6(now, &mut packet);
        if relay.poll_timeout().is_some_and(|deadline| deadline <= now) {
            relay.handle_timeout(now);
        }
        while relay.poll_transmit().is_some() {}
        while relay.poll_event().is_some() {}
    }
}

#[test]
fn p06_l18_a_flood_takes_no_more_memory_than_the_peers_may() {
    let empty = measure(|| drop(relay(PEERS))).bytes_max;
    for (servers, are_close) in [(1, false), (1000, false), (1 << 24, false), (1 << 24, true)] {
        let mut random = StdRng::from_seed([servers as u8; 32]);
        let mut queues = 0;
        let held = measure(|| {
            let mut relay = relay(PEERS);
            fill(&mut relay, &mut random);
            flood(&mut relay, &mut random, servers, are_close);
            let statistics = relay.statistics();
            assert_eq!(statistics.untrusted_peers, PEERS / 8, "{servers} servers");
            assert!(statistics.waiting_bubbles > 0, "{servers} servers");
            queues = statistics.queue_octets;
        });
        let bound = (PEERS * PEER_OCTETS + queues) as u64;
        let most = held.bytes_max - empty;
        assert!(most <= bound, "{servers} servers: {most} of {bound} octets");
    }
}
