//! Histories of a relay.

use std::time::Duration;

use teredo_common::address::embedded_mapping;
use teredo_proto::{
    Instant,
    testing::packet,
    wire::{bubble, icmpv6, ipv6::Header},
};
#[cfg(feature = "daemon")]
use teredo_proto::{Relay, relay::Config};

use super::{
    START, STEPS, duration, next_step,
    scenery::{crowd, entry, own_addresses},
    world::World,
};
use crate::bytes::Bytes;

/// Runs a history.
pub fn run(octets: &[u8]) {
    let mut bytes = Bytes::new(octets);
    let mut world = World::new(&mut bytes, START, None);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        step(&mut world, &mut bytes);
        world.check();
    }
    world.end();
}

/// Runs a history of some steps, and returns the relay with its configuration and the time.
#[cfg(feature = "daemon")]
pub fn after(bytes: &mut Bytes<'_>, steps: usize) -> (Relay, Config, Instant) {
    let mut world = World::new(bytes, START, None);
    (0..steps).for_each(|_| step(&mut world, bytes));
    let own_ipv4 = world.own_ipv4.into_iter().collect();
    let config = Config {
        own_ipv4,
        ..world.config
    };
    (world.relay, config, world.now)
}

/// Takes a step that needs the relay alone.
pub fn step(world: &mut World, bytes: &mut Bytes<'_>) {
    let (number, is_restarted) = next_step(bytes, 16);
    if is_restarted {
        world.restart();
    }
    match number {
        0..=3 => {
            let (source, destination) = (bytes.native(), bytes.teredo());
            let packet = bytes.packet(&source, &destination);
            world.native_sends(&packet);
        }
        4 => {
            let packet = bytes.payload();
            world.native_sends(&packet);
        }
        // A client, from where its address says or not.
        5 | 6 => {
            let (source, destination) = (bytes.teredo(), bytes.native());
            let from = match bytes.below(4) {
                0 => bytes.endpoint(),
                _ => embedded_mapping(&source),
            };
            let packet = bytes.packet(&source, &destination);
            let ecn = bytes.octet() & 3;
            world.arrives(from, ecn, &packet);
        }
        7 => {
            let (from, ecn) = (bytes.endpoint(), bytes.octet() & 3);
            let payload = bytes.payload();
            world.arrives(from, ecn, &payload);
        }
        8 => answer(world, bytes),
        9 => prove(world, bytes),
        10 | 11 => {
            let time = duration(bytes);
            world.pass(time);
        }
        12 => stamps(world, bytes),
        13 => {
            let (address, peer) = entry(bytes, world.now);
            world.adopt(address, &peer);
        }
        14 => {
            let own = own_addresses(bytes);
            world.set_own(&own);
        }
        _ => match bytes.below(8) {
            0 => world.relay.drain(),
            1 => {
                let time = duration(bytes);
                world.suspend(time);
            }
            2 | 3 => {
                let (source, server) = (bytes.native(), bytes.endpoint().ip());
                for destination in crowd(server, bytes.octet() / 4) {
                    world.native_sends(&packet(&source, &destination, 1));
                }
            }
            _ => {
                let address = bytes.teredo();
                world.relay.prefetch(&address);
                world.relay.is_usable(world.now, &address);
            }
        },
    }
}

/// A client answers an indirect bubble.
fn answer(world: &mut World, bytes: &mut Bytes<'_>) {
    let number = bytes.octet().into();
    let peer = world.cookies.iter().cycle().nth(number);
    let Some((&source, &destination)) = peer else {
        return;
    };
    let from = match bytes.below(4) {
        0 => bytes.endpoint(),
        _ => embedded_mapping(&source),
    };
    let packet = bytes.packet(&source, &destination);
    let payload = bytes.wrap(&packet);
    world.arrives(from, 0, &payload);
}

/// A client answers one of the last questions, from where it went to or not.
fn prove(world: &mut World, bytes: &mut Bytes<'_>) {
    let [number, kind] = bytes.array();
    let question = world.questions.iter().rev().nth((number & 7).into());
    let Some((to, question)) = question.cloned() else {
        return;
    };
    let from = if kind & 7 == 7 { bytes.endpoint() } else { to };
    let Ok(header) = Header::parse(&question) else {
        return;
    };
    let (source, destination) = (header.destination(), header.source());
    let mut payload = Vec::new();
    if !icmpv6::echo_reply(&source, &question, &mut payload) {
        payload.extend(bubble::build(&source, &destination));
    }
    if kind & 0xf0 == 0xf0 {
        let length = payload.len();
        payload[usize::from(bytes.octet()) % length] ^= bytes.octet();
    }
    world.arrives(from, 0, &payload);
}

/// The fast path has seen a peer that it knows, or has one that it should not know.
fn stamps(world: &mut World, bytes: &mut Bytes<'_>) {
    let [number, received, sent] = bytes.array();
    let known = world.fast.keys().cycle().nth(number.into()).copied();
    let address = known.unwrap_or_else(|| bytes.teredo());
    let stamp = |age: u8| match age {
        0xff => Instant::ZERO,
        age => world.now - Duration::from_millis(u64::from(age) * 100),
    };
    let (received, sent) = (stamp(received), stamp(sent));
    world.stamps(&address, received, sent);
}
