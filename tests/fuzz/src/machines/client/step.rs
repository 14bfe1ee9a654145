//! The steps of a client's history.

use std::{net::Ipv4Addr, time::Duration};

use teredo_common::{
    address::{Endpoint, TeredoAddress, embedded_mapping},
    wire::SERVER_PORT,
};
use teredo_proto::{
    client::{Attached, ServerEndpoints},
    testing::packet,
    wire::{bubble, icmpv6, ipv6::Header, trailer::Trailer},
};

use super::{INSIDE, PORT, SILENT, World};
use crate::{
    bytes::Bytes,
    machines::{
        duration, next_step,
        scenery::{PRIMARY, SECONDARY, crowd},
    },
};

/// The mapped endpoint of the client, mostly.
const MAPPED: Endpoint = Endpoint::new(Ipv4Addr::new(9, 0, 0, 1), 4096);

/// Takes a step.
pub fn take(world: &mut World, bytes: &mut Bytes<'_>) {
    let (number, is_restarted) = next_step(bytes, 20);
    if is_restarted {
        world.restart();
    }
    match number {
        0 => {
            let time = duration(bytes);
            world.pass(time);
        }
        1 => world.pass(Duration::from_millis(4200)),
        2..=4 => answer(world, bytes),
        5 | 6 => {
            let (source, destination) = (own(world, bytes), bytes.address());
            let packet = bytes.packet(&source, &destination);
            world.host_sends(&packet);
        }
        7..=9 => from_peer(world, bytes),
        10 => with_nonce(world, bytes),
        11 => reply(world, bytes),
        12 => discovery(world, bytes),
        13 => {
            let port = world.observer.port(bytes.octet().into());
            let (from, ecn) = (bytes.endpoint(), bytes.octet() & 3);
            let payload = bytes.payload();
            world.arrives(port, from, ecn, &payload);
        }
        14 => network(world, bytes),
        15 => command(world, bytes),
        16 => {
            // Everything that it takes to qualify.
            for _ in 0..2 {
                world.server_answers(0, MAPPED, |_| {});
            }
        }
        17 => {
            let packet = bytes.payload();
            world.host_sends(&packet);
        }
        _ => world.pass(Duration::from_millis(u64::from(bytes.octet()) * 10)),
    }
}

/// The server answers: it sees the usual endpoint or another one, and the answer may be changed.
fn answer(world: &mut World, bytes: &mut Bytes<'_>) {
    let [number, kind] = bytes.array();
    let number = usize::from(number & 3);
    let mapped = match kind & 7 {
        0..=3 => MAPPED,
        4 => Endpoint::new(MAPPED.ip(), PORT),
        5 => Endpoint::new(MAPPED.ip(), 4096 + u16::from(kind >> 3)),
        _ => bytes.endpoint(),
    };
    let (place, change) = match kind & 0x80 {
        0 => (0, 0),
        _ => (bytes.octet().into(), bytes.octet()),
    };
    world.server_answers(number, mapped, |payload: &mut Vec<u8>| {
        if let Some(octet) = payload.get_mut::<usize>(place) {
            *octet ^= change;
        }
    });
}

/// An address of the host: its own, mostly.
fn own(world: &World, bytes: &mut Bytes<'_>) -> [u8; 16] {
    match (bytes.below(8), world.client.identity()) {
        (0, _) | (_, None) => bytes.address(),
        (_, Some(identity)) => identity.address.octets(),
    }
}

/// A peer sends: from where its address says, or through the server or a relay.
fn from_peer(world: &mut World, bytes: &mut Bytes<'_>) {
    let (source, kind) = (bytes.address(), bytes.octet());
    let destination = own(world, bytes);
    let packet = bytes.packet(&source, &destination);
    let from = match kind & 3 {
        0 | 1 => embedded_mapping(&source),
        2 => Endpoint::new(PRIMARY, SERVER_PORT),
        _ => bytes.endpoint(),
    };
    let mut payload = Vec::new();
    if kind & 4 != 0 {
        let origin = match kind & 8 {
            0 => embedded_mapping(&source),
            _ => bytes.endpoint(),
        };
        payload.extend(origin.origin_indication());
    }
    payload.extend(packet);
    if kind & 0x10 != 0 {
        bytes.trailers(&mut payload);
    }
    let port = world.observer.port((kind >> 5).into());
    world.arrives(port, from, kind >> 6, &payload);
}

/// A peer repeats the nonce of a bubble.
fn with_nonce(world: &mut World, bytes: &mut Bytes<'_>) {
    let [number, kind] = bytes.array();
    let known = world.observer.nonces.iter().cycle().nth(number.into());
    let Some((&peer, &nonce)) = known else { return };
    let destination = own(world, bytes);
    let mut payload = bubble::build(&peer, &destination).to_vec();
    Trailer::Nonce(nonce).write(&mut payload);
    if kind & 4 != 0 {
        bytes.trailers(&mut payload);
    }
    let from = match kind & 3 {
        0 | 1 => embedded_mapping(&peer),
        _ => bytes.endpoint(),
    };
    let port = world.observer.port((kind >> 5).into());
    world.arrives(port, from, 0, &payload);
}

/// A host answers the last connectivity test, by its relay.
fn reply(world: &mut World, bytes: &mut Bytes<'_>) {
    let Some(test) = world.observer.test.clone() else {
        return;
    };
    let from = bytes.endpoint();
    let Ok(header) = Header::parse(&test) else {
        return;
    };
    let mut reply = Vec::new();
    if bytes.below(4) == 0 {
        reply = icmpv6::address_unreachable(&header.destination(), &test).unwrap_or_default();
    } else {
        icmpv6::echo_reply(&header.destination(), &test, &mut reply);
    }
    world.arrives(PORT, from, 0, &reply);
}

/// A neighbour announces itself, or pretends to be one.
fn discovery(world: &mut World, bytes: &mut Bytes<'_>) {
    let kind = bytes.octet();
    let from = bytes.endpoint();
    let mapped = Endpoint::new(MAPPED.ip(), 5000 + u16::from(kind & 7));
    let source = match kind & 0x18 {
        0 => bytes.address(),
        _ => TeredoAddress::new(PRIMARY, mapped).encode().octets(),
    };
    let from = match kind & 0x20 {
        0 => from,
        _ => Endpoint::new(Ipv4Addr::new(192, 168, 1, 3 + (kind & 7)), PORT),
    };
    let interface = if kind & 0xc0 == 0xc0 {
        Ipv4Addr::new(10, 0, 0, 9)
    } else {
        INSIDE
    };
    let payload = match kind & 0xc0 {
        0x40 => bytes.payload(),
        _ => bubble::build_discovery(&source).to_vec(),
    };
    world.arrives_at_group(interface, from, &payload);
}

/// The network of the host changes.
fn network(world: &mut World, bytes: &mut Bytes<'_>) {
    let kind = bytes.octet();
    let network = &mut world.network;
    match kind & 7 {
        0 => network.source = None,
        1 => network.source = Some(INSIDE),
        2 => network.source = Some(Ipv4Addr::new(192, 168, 1, kind)),
        3 => network.native_ipv6 = kind & 8 != 0,
        4 => network.port_mapping = (kind & 8 != 0).then(|| bytes.endpoint()),
        5 => network.port_mapping = Some(Endpoint::new(MAPPED.ip(), 4096)),
        _ => {
            network.attached = vec![Attached {
                address: INSIDE,
                prefix_length: 24,
            }];
            if kind & 8 != 0 {
                let prefix_length = bytes.octet() % 33;
                network.attached.push(Attached {
                    address: bytes.endpoint().ip(),
                    prefix_length,
                });
            }
        }
    }
    let network = network.clone();
    world.client.set_network(world.now, network);
    world.drain();
}

/// The daemon calls something else.
fn command(world: &mut World, bytes: &mut Bytes<'_>) {
    let now = world.now;
    match bytes.below(8) {
        0 => world.client.start(now),
        1 => world.client.stop(now),
        2 => world.client.hasten(now),
        3 => world.client.recheck_mapping(now),
        4 => {
            let time = duration(bytes);
            world.client.handle_suspension(now, time);
        }
        5 => {
            world.has_ports = bytes.bit();
        }
        6 => {
            let servers = [PRIMARY, SILENT, SECONDARY].map(ServerEndpoints::new);
            let number = 1 + bytes.below(2);
            world.client.set_servers(servers[..number].to_vec());
        }
        _ => {
            let (source, server) = (own(world, bytes), bytes.endpoint().ip());
            for destination in crowd(server, bytes.octet() / 8) {
                world.host_sends(&packet(&source, &destination, 1));
            }
        }
    }
    world.drain();
}
