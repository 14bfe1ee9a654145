//! Random datagrams to a server, most of them nearly right.

use std::net::Ipv6Addr;

use rand::{Rng, RngExt as _, seq::IndexedRandom as _};
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress, server_link_local},
    wire::{ALL_ROUTERS, ETHERTYPE_IPV4, ICMPV6, NO_NEXT_HEADER, UDP},
};
use teredo_proto::{ServerAddress, testing::transport};

use super::{PORT, PRIMARY, SECONDARY};
use crate::{
    packet::{datagram, endpoint, ethernet, fix_header_checksum, ipv6},
    site::{ROUTER, WAN},
};

/// The source of a datagram: mostly one that is served.
pub fn source(random: &mut impl Rng) -> Endpoint {
    const SERVED: &[&str] = &["9.0.0.1:4096", "8.0.0.1:1024", "7.7.7.7:3545", "9.9.1.1:1"];
    const OTHERS: &[&str] = &[
        "10.0.0.1:4096",
        "100.64.0.1:4096",
        "192.0.2.1:4096",
        "127.0.0.1:4096",
        "224.0.0.253:4096",
        "255.255.255.255:4096",
        "0.0.0.0:4096",
        "1.2.3.4:3544",
        "1.2.3.5:9",
        "5.6.7.8:3545",
        "5.6.7.9:1",
        "9.0.0.1:0",
    ];
    if random.random_ratio(1, 12) {
        return Endpoint::new(random.random::<u32>().into(), random.random());
    }
    let among = if random.random_ratio(1, 6) {
        OTHERS
    } else {
        SERVED
    };
    endpoint(among.choose(random).expect("there are some"))
}

/// Returns an address of the server: mostly the primary one.
pub fn destination(random: &mut impl Rng) -> ServerAddress {
    match random.random_ratio(1, 4) {
        true => ServerAddress::Secondary,
        false => ServerAddress::Primary,
    }
}

/// Returns the frame of a datagram to the server: with or without checksum and padding.
pub fn frame(random: &mut impl Rng, from: Endpoint, to: ServerAddress, payload: &[u8]) -> Vec<u8> {
    let address = match to {
        ServerAddress::Primary => PRIMARY,
        ServerAddress::Secondary => SECONDARY,
    };
    let server = Endpoint::new(address.into(), PORT);
    let mut packet = datagram(from, server, random.random(), payload);
    if random.random_ratio(1, 10) {
        // No checksum.
        packet[26..28].fill(0);
    }
    if random.random_ratio(1, 10) {
        packet[8] = 1;
        fix_header_checksum(&mut packet);
    }
    let mut frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet);
    if random.random_ratio(1, 4) {
        frame.extend([0xee; 9]);
    }
    frame
}

/// A UDP payload: mostly a plausible one of a client or relay, now and then spoiled.
pub fn payload(random: &mut impl Rng, from: Endpoint) -> Vec<u8> {
    if random.random_ratio(1, 50) {
        return (0..random.random_range(0..120))
            .map(|_| random.random())
            .collect();
    }
    let mut payload = elements(random);
    payload.extend(packet(random, from));
    if random.random_ratio(1, 10) {
        let trailers: &[&[u8]] = &[&[1, 4, 1, 2, 3, 4], &[0x41, 0], &[5], &[0; 129]];
        payload.extend(*trailers.choose(random).expect("there are some"));
    }
    if random.random_ratio(1, 12) {
        payload.truncate(random.random_range(0..=payload.len()));
    }
    if random.random_ratio(1, 8) && !payload.is_empty() {
        let at = random.random_range(0..payload.len());
        payload[at] ^= 1 << random.random_range(0..8);
    }
    payload
}

/// The headers before the IPv6 packet.
fn elements(random: &mut impl Rng) -> Vec<u8> {
    let mut nonce = vec![0, 1, 0, 0];
    nonce.extend(random.random::<[u8; 8]>());
    nonce.push(if random.random_ratio(1, 8) {
        random.random()
    } else {
        0
    });
    let origin = vec![0, 0, 1, 2, 3, 4, 5, 6];
    match random.random_range(0..20) {
        0 => [nonce, origin].concat(),
        1 => origin,
        2 => {
            let mut known = vec![0, 1, 5, 16];
            known.extend(b"alice");
            known.extend([7; 16 + 9]);
            known
        }
        3 => [&[0, 1, 1, 0, b'x'][..], &[9; 9]].concat(),
        4..=10 => nonce,
        _ => Vec::new(),
    }
}

/// An IPv6 packet.
fn packet(random: &mut impl Rng, from: Endpoint) -> Vec<u8> {
    let source = inner_source(random, from);
    let destination = match random.random_ratio(1, 15) {
        true => source,
        false => inner_destination(random),
    };
    let mut packet = match random.random_range(0..12) {
        0..=4 => {
            let source = if random.random_ratio(1, 10) {
                source
            } else {
                link_local(random)
            };
            let all_routers = Ipv6Addr::from(ALL_ROUTERS);
            let to = if random.random_ratio(1, 10) {
                destination
            } else {
                all_routers
            };
            return solicitation(random, source, to);
        }
        5..=8 => ipv6(source, destination, NO_NEXT_HEADER, &[]),
        9 => icmpv6(source, destination, &[random.random(), 0, 0, 0, 0, 1, 0, 1]),
        10 => ipv6(source, destination, NO_NEXT_HEADER, &[0; 8]),
        _ => ipv6(source, destination, UDP, &[0; 20]),
    };
    packet[7] = random.random();
    packet
}

fn solicitation(random: &mut impl Rng, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let options: &[&[u8]] = &[
        &[],
        &[],
        &[],
        &[
            1, 2, 0, 0, 0, 0, 0, 0, 0x80, 0, 0xf1, 0x2a, 0xb9, 0xc8, 0x28, 0x15,
        ],
        &[1, 1, 0, 0, 0, 0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0],
        &[1, 1, 0, 0, 0, 0, 0, 0],
        &[1, 3, 0, 0, 0, 0, 0, 0, 14, 1, 0, 0, 0, 0, 0, 0],
        &[1, 2, 0, 0],
        &[0; 96],
    ];
    let mut message = vec![133, 0, 0, 0, 0, 0, 0, 0];
    if random.random_ratio(1, 20) {
        message[1] = random.random();
    }
    if random.random_ratio(1, 10) {
        message[4..8].fill(random.random());
    }
    message.extend(*options.choose(random).expect("there are some"));
    let mut packet = icmpv6(source, destination, &message);
    packet[7] = if random.random_ratio(1, 20) {
        random.random()
    } else {
        255
    };
    packet
}

/// Returns an IPv6 packet with an ICMPv6 message.
#[must_use]
pub fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    transport(ICMPV6, 64, &source.octets(), &destination.octets(), message)
}

/// Returns a source of a solicitation.
pub fn link_local(random: &mut impl Rng) -> Ipv6Addr {
    const ADDRESSES: &[&str] = &[
        "fe80::ffff:ffff:ffff",
        "fe80::8000:ffff:ffff:fffd",
        "fe80::5445:5245:444f",
        "fe80::8000:5445:5245:444f",
        "febf::1",
    ];
    let address = ADDRESSES.choose(random).expect("there are some");
    address.parse().expect("an IPv6 address")
}

/// The address of a client of one server or another.
fn teredo(random: &mut impl Rng, mapped: Endpoint) -> Ipv6Addr {
    let prefix = match random.random_range(0..8) {
        0 => ServicePrefix::DRAFT,
        1 => ServicePrefix([0x20, 1, 0x0d, 0xb8]),
        _ => ServicePrefix::STANDARD,
    };
    let server = match random.random_range(0..6) {
        0 => SECONDARY,
        1 => [8, 8, 8, 8],
        _ => PRIMARY,
    };
    let fields = TeredoAddress {
        prefix,
        server: server.into(),
        flags: random.random(),
        mapped,
    };
    fields.encode()
}

fn inner_source(random: &mut impl Rng, from: Endpoint) -> Ipv6Addr {
    match random.random_range(0..10) {
        0..=4 => teredo(random, from),
        5 => {
            let other = source(random);
            teredo(random, other)
        }
        6 | 7 => link_local(random),
        _ => anywhere(random),
    }
}

fn inner_destination(random: &mut impl Rng) -> Ipv6Addr {
    match random.random_range(0..10) {
        0..=6 => {
            let mapped = source(random);
            teredo(random, mapped)
        }
        7 => server_link_local(PRIMARY.into(), PORT),
        _ => anywhere(random),
    }
}

fn anywhere(random: &mut impl Rng) -> Ipv6Addr {
    const ADDRESSES: &[&str] = &[
        "2000::b",
        "2001:db8:7::1",
        "::",
        "::1",
        "::ffff:9.0.0.1",
        "64:ff9b::900:1",
        "fc00::1",
        "fec0::1",
        "fe80::1",
        "ff02::1",
        "ff02::2",
        "ff0e::1",
        "2002:506:708::1",
        "2002:102:304::1",
        "2002:900:1::1",
        "2000::5efe:506:708",
        "2000::200:5efe:102:304",
    ];
    let address = ADDRESSES.choose(random).expect("there are some");
    address.parse().expect("an IPv6 address")
}
