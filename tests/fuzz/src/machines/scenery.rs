//! Endpoints, addresses and packets of histories.

use std::{net::Ipv4Addr, time::Duration};

use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress, embedded_mapping},
    peers,
    wire::{ALL_ROUTERS, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMPV6, ROUTING, TCP, UDP},
};
use teredo_proto::{
    Instant,
    testing::{ipv6, transport},
    wire::{
        authentication::{Algorithm, Key},
        bubble, encapsulation,
        trailer::{Trailer, write_alternate_addresses},
    },
};

use crate::bytes::Bytes;

/// Addresses of the server.
pub const PRIMARY: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
/// The other one.
pub const SECONDARY: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 5);
/// The relay.
pub const RELAY: Endpoint = at(5, 6, 7, 8, 3545);
/// The address of a host that has it besides others.
pub const OWN_IPV4: Ipv4Addr = Ipv4Addr::new(7, 7, 7, 7);
/// A native address of the host that the relay runs on.
pub const OWN_IPV6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The first half of the addresses of a client of the tunnel service.
pub const TUNNEL: [u8; 8] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 2];

const fn at(a: u8, b: u8, c: u8, d: u8, port: u16) -> Endpoint {
    Endpoint::new(Ipv4Addr::new(a, b, c, d), port)
}

/// Where datagrams come from and clients are.
const ENDPOINTS: [Endpoint; 20] = [
    at(9, 0, 0, 1, 4096),
    at(9, 0, 0, 1, 4097),
    at(9, 0, 0, 1, 40_000),
    at(9, 0, 0, 2, 4096),
    at(9, 0, 1, 1, 7777),
    at(8, 0, 0, 1, 1024),
    at(9, 10, 11, 12, 3544),
    at(1, 2, 3, 4, 3544),
    at(1, 2, 3, 5, 3544),
    RELAY,
    at(7, 7, 7, 7, 3545),
    at(6, 6, 6, 6, 3545),
    at(192, 168, 1, 2, 40_000),
    at(192, 168, 1, 3, 4000),
    at(10, 0, 0, 1, 9),
    at(9, 0, 0, 1, 0),
    at(224, 0, 0, 253, 3544),
    at(255, 255, 255, 255, 1),
    at(127, 0, 0, 1, 3544),
    at(203, 0, 113, 1, 1),
];

const NATIVE: [[u8; 16]; 7] = [
    [0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb],
    [0x20, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc],
    OWN_IPV6,
    [0x24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    // 6to4 of the relay; ISATAP of the same.
    [0x20, 2, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0x5e, 0xfe, 5, 6, 7, 8],
    [0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 0xaa, 0xaa, 0, 0, 0, 0, 0, 1],
];

const LOCAL: [[u8; 16]; 6] = [
    [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ],
    [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x80, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ],
    // That of the server.
    [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xf2, 0x27, 0xfe, 0xfd, 0xfc, 0xfb,
    ],
    ALL_ROUTERS,
    bubble::ALL_NODES,
    [0; 16],
];

/// The key of a client of the server.
pub fn key() -> Key {
    Key::new(Algorithm::HmacSha1, &[1; 16]).expect("a long secret")
}

/// Returns the addresses of many clients of one server, each at an endpoint of its own.
pub fn crowd(server: Ipv4Addr, number: u8) -> impl Iterator<Item = [u8; 16]> {
    (0..number).map(move |one| {
        let mapped = at(9, 1, one & 1, one, 1000);
        TeredoAddress::new(server, mapped).encode().octets()
    })
}

impl Bytes<'_> {
    /// Returns a known endpoint, seldom any.
    pub fn endpoint(&mut self) -> Endpoint {
        let number = self.below(24);
        match ENDPOINTS.get(number) {
            Some(&endpoint) => endpoint,
            None => Endpoint {
                address: self.array(),
                port: self.array(),
            },
        }
    }

    /// Returns the Teredo address of a client.
    pub fn teredo(&mut self) -> [u8; 16] {
        let mapped = self.endpoint();
        let [kind, flags] = self.array();
        let servers = [
            PRIMARY,
            Ipv4Addr::new(9, 10, 11, 12),
            Ipv4Addr::new(10, 9, 9, 9),
            OWN_IPV4,
        ];
        let fields = TeredoAddress {
            prefix: match kind >> 4 {
                0xf => ServicePrefix::DRAFT,
                _ => ServicePrefix::STANDARD,
            },
            server: match kind & 7 {
                0..=3 => servers[0],
                4 => servers[2],
                5 => servers[3],
                _ => servers[1],
            },
            flags: u16::from(flags) << 8,
            mapped,
        };
        fields.encode().octets()
    }

    /// Returns an address of each sort.
    pub fn address(&mut self) -> [u8; 16] {
        match self.below(8) {
            0..=3 => self.teredo(),
            4 | 5 => self.pick(&NATIVE),
            6 => self.pick(&LOCAL),
            _ => self.array(),
        }
    }

    /// Returns a native address, mostly.
    pub fn native(&mut self) -> [u8; 16] {
        match self.below(8) {
            0..=6 => self.pick(&NATIVE),
            _ => self.address(),
        }
    }

    /// Returns a packet between two addresses: well-formed, mostly.
    pub fn packet(&mut self, source: &[u8; 16], destination: &[u8; 16]) -> Vec<u8> {
        let [kind, hop_limit] = self.array();
        let icmpv6 = |kind: u8, rest: &[u8]| {
            let message = [&[kind, 0, 0, 0][..], rest].concat();
            transport(ICMPV6, hop_limit, source, destination, &message)
        };
        match kind % 16 {
            0..=3 => bubble::build(source, destination).to_vec(),
            4..=6 => {
                let message = [&[0; 8][..], self.string()].concat();
                transport(UDP, hop_limit, source, destination, &message)
            }
            7 => transport(TCP, hop_limit, source, destination, &[kind; 20]),
            8 => icmpv6(128, &self.array::<16>()),
            9 => icmpv6(129, &self.array::<16>()),
            10 => transport(
                ICMPV6,
                255,
                source,
                &ALL_ROUTERS,
                &[133, 0, 0, 0, 0, 0, 0, 0],
            ),
            11 => {
                let kind = self.octet();
                icmpv6(kind, self.string())
            }
            12 => {
                let header = self.pick(&[HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS, 51]);
                ipv6(header, hop_limit, source, destination, self.string())
            }
            13 => {
                let next_header = self.octet();
                ipv6(next_header, hop_limit, source, destination, self.string())
            }
            // As long as the tunnel allows, and longer.
            14 => ipv6(UDP, hop_limit, source, destination, &[kind; 1240]),
            _ => ipv6(UDP, hop_limit, source, destination, &[kind; 1440]),
        }
    }

    /// Appends trailers.
    pub fn trailers(&mut self, output: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            match self.below(6) {
                0 => Trailer::Nonce(self.array()).write(output),
                1 => {
                    let list: Vec<_> = (0..self.below(6)).map(|_| self.endpoint()).collect();
                    write_alternate_addresses(&list, output);
                }
                2 => Trailer::NeighborSolicitation.write(output),
                3 => Trailer::NeighborAdvertisement.write(output),
                4 => Trailer::RandomPort(self.short()).write(output),
                _ => output.extend(self.string()),
            }
        }
    }

    /// Returns the payload of a datagram around a packet: elements before it, trailers after it.
    pub fn wrap(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut trailers = Vec::new();
        let kind = self.octet();
        if kind & 0x40 != 0 {
            self.trailers(&mut trailers);
        }
        let mut covered = Vec::new();
        if kind & 4 != 0 {
            covered.extend(self.endpoint().origin_indication());
        }
        covered.extend(packet);
        let nonce = [self.octet(); 8];
        match kind & 3 {
            2 => drop(encapsulation::write_authentication(
                &[],
                0,
                nonce,
                0,
                &mut payload,
            )),
            3 => {
                let id: &[u8] = if kind & 8 == 0 { b"alice" } else { b"bob" };
                let key = key();
                let length = key.algorithm().value_length();
                let value = encapsulation::write_authentication(id, length, nonce, 0, &mut payload);
                if kind & 0x10 == 0 {
                    key.sign(nonce, 0, &covered, &mut payload[value]);
                }
            }
            _ => {}
        }
        payload.extend(covered);
        payload.extend(trailers);
        self.mutate(kind, &mut payload);
        payload
    }

    /// Changes an octet or cuts the end off, if the kind says so.
    fn mutate(&mut self, kind: u8, payload: &mut Vec<u8>) {
        if kind & 0xa0 == 0xa0 {
            let at = usize::from(self.short()) % payload.len();
            payload[at] ^= self.octet();
        } else if kind & 0xa0 == 0x80 && self.octet() > 0xc0 {
            payload.truncate(self.octet().into());
        }
    }

    /// Returns a datagram's payload: a packet between addresses of each sort, or any octets.
    pub fn payload(&mut self) -> Vec<u8> {
        if self.below(8) == 7 {
            return self.string().to_vec();
        }
        let (source, destination) = (self.address(), self.address());
        let packet = self.packet(&source, &destination);
        self.wrap(&packet)
    }
}

/// Reads a list of addresses of the host.
pub fn own_addresses(bytes: &mut Bytes<'_>) -> Vec<Ipv4Addr> {
    let number = bytes.below(4);
    let mut own: Vec<_> = (0..number).map(|_| bytes.endpoint().ip()).collect();
    // The server's are its own business.
    own.retain(|address| ![PRIMARY, SECONDARY].contains(address));
    own
}

/// Reads an entry of the map of the fast path.
pub fn entry(bytes: &mut Bytes<'_>, now: Instant) -> ([u8; 16], peers::Peer) {
    let address = bytes.teredo();
    let [flags, age] = bytes.array();
    let mapped = match flags & 4 {
        0 => embedded_mapping(&address),
        _ => bytes.endpoint(),
    };
    let stamp = |age: u8| now - Duration::from_secs(u64::from(age) / 4);
    let peer = peers::Peer {
        mapped,
        last_received: stamp(age),
        last_sent: stamp(age / 2),
    };
    (address, peer)
}
