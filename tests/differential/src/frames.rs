//! Random frames, most of them nearly right.

use std::{net::Ipv6Addr, time::Duration};

use rand::{Rng as _, RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use teredo_common::{
    address::{Endpoint, TeredoAddress},
    wire::{
        AUTHENTICATION_HEADER, DCCP, DESTINATION_OPTIONS, ESP, ETHERNET_HEADER, ETHERTYPE_IPV4,
        ETHERTYPE_IPV6, EXPERIMENT_1, EXPERIMENT_2, FRAGMENT, HOP_BY_HOP, HOST_IDENTITY, ICMPV6,
        MOBILITY, NO_NEXT_HEADER, ROUTING, SCTP, SHIM6, TCP, UDP, UDP_LITE,
    },
};

use crate::{
    packet::{
        address, datagram, echo, endpoint, ethernet, fix_header_checksum, fix_udp_checksum, ipv6,
        octets, tcp, udp,
    },
    site::{HOST, LAN, Port, ROUTER, WAN, relay},
};

/// An entry of the map of peers.
#[derive(Clone, Debug)]
pub struct Known {
    /// The Teredo address.
    pub address: Ipv6Addr,
    /// The mapped endpoint.
    pub mapped: Endpoint,
    /// Duration of the peer's silence.
    pub age: Duration,
}

impl Known {
    /// Whether both paths know the peer.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.age < Duration::from_secs(30)
    }
}

fn teredo(mapped: &str, server: &str, flags: u16) -> Ipv6Addr {
    let fields = TeredoAddress::new(endpoint(server).ip(), endpoint(mapped));
    TeredoAddress { flags, ..fields }.encode()
}

/// Entries that the comparison starts with.
#[must_use]
pub fn known() -> Vec<Known> {
    let entry = |embedded: &str, mapped: &str, seconds: u64| Known {
        address: teredo(embedded, "1.2.3.4:3544", 0x1027),
        mapped: endpoint(mapped),
        age: Duration::from_secs(seconds),
    };
    vec![
        entry("9.0.0.1:4096", "9.0.0.1:4096", 0),
        entry("9.0.0.2:1", "9.0.0.2:1", 0),
        entry("9.0.0.3:65535", "9.0.0.3:65535", 0),
        entry("9.9.0.1:3545", "9.9.0.1:3545", 0),
        entry("9.8.0.1:4096", "9.8.0.1:4096", 0),
        entry("9.0.0.4:4096", "9.0.0.4:7777", 0),
        entry("9.0.0.5:4096", "9.1.0.5:4096", 0),
        entry("9.0.0.6:4096", "9.0.0.6:4096", 31),
        entry("9.0.0.7:4096", "9.1.0.7:4096", 31),
    ]
}

/// Native addresses; the first ones are the destinations of most packets.
const NATIVE: &[&str] = &[
    "2000::b",
    "2000:3::b",
    "2001:db8::5",
    "2000:1000::5",
    "2000:99::b",
    "2000:8::5",
    "2400::1",
    "2000::1",
    "2002:506:708::1",
    "2002:506:709::1",
    "2002:506:70a::1",
    "2000::5efe:506:708",
    "2000::200:5efe:506:709",
    "64:ff9b::102:304",
    "fe80::1",
    "fec0::1",
    "fd00::1",
    "ff02::1",
    "ff0e::1",
    "::",
    "::1",
    "::ffff:1.2.3.4",
    "2001:0:102:304:0:efff:f6ff:fffe",
    "3ffe:831f:102:304:0:efff:f6ff:fffe",
];

/// Endpoints of other hosts.
const STRANGERS: &[&str] = &[
    "9.0.0.1:4097",
    "9.0.0.9:4096",
    "9.0.0.4:4096",
    "10.0.0.1:4096",
    "5.6.7.8:3545",
    "5.6.7.9:3545",
    "192.0.2.1:4096",
    "9.0.0.1:0",
];

const NEXT_HEADERS: &[u8] = &[
    HOP_BY_HOP,
    ROUTING,
    FRAGMENT,
    DESTINATION_OPTIONS,
    NO_NEXT_HEADER,
    TCP,
    UDP,
    ICMPV6,
    DCCP,
    ESP,
    SCTP,
    UDP_LITE,
    AUTHENTICATION_HEADER,
    MOBILITY,
    HOST_IDENTITY,
    SHIM6,
    EXPERIMENT_1,
    EXPERIMENT_2,
    4,
    41,
    200,
];

/// A generator of frames.
#[derive(Debug)]
pub struct Frames {
    random: StdRng,
    known: Vec<Known>,
}

impl Frames {
    /// Returns a generator whose peers are mostly the first of `known`.
    #[must_use]
    pub fn new(random: StdRng, known: Vec<Known>) -> Self {
        Self { random, known }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn octets(&mut self, most: usize) -> Vec<u8> {
        let mut octets = vec![0; self.random.random_range(0..=most)];
        self.random.fill_bytes(&mut octets);
        octets
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from.choose(&mut self.random).expect("not empty")
    }

    fn native(&mut self) -> Ipv6Addr {
        let most = if self.chance(70) { 3 } else { NATIVE.len() };
        address(self.pick(&NATIVE[..most]))
    }

    fn peer(&mut self) -> Known {
        let usable = if self.chance(80) { 3 } else { self.known.len() };
        let mut peer = self.known[self.random.random_range(0..usable)].clone();
        if self.chance(3) {
            peer.address = address("2001:0:102:304:0:efff:f6ff:fff0");
        }
        peer
    }

    /// The data of a transport: often short, sometimes around the limits of the tunnel and the
    /// route.
    fn data(&mut self) -> Vec<u8> {
        let length = match self.random.random_range(0..10) {
            0 => self.random.random_range(900..970),
            1 => self.random.random_range(1215..1250),
            2 => self.random.random_range(1330..1420),
            3 => 0,
            _ => self.random.random_range(0..64),
        };
        let mut data = vec![0; length];
        self.random.fill_bytes(&mut data);
        data
    }

    /// Makes an IPv6 packet between two addresses.
    fn packet(&mut self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let data = self.data();
        let mut packet = match self.random.random_range(0..13) {
            0..=3 => udp(source, destination, &data),
            4..=6 => tcp(source, destination, &data),
            7..=8 => echo(source, destination, &data),
            9 => {
                let mut packet = udp(source, destination, &data);
                packet[46..48].fill(0);
                packet
            }
            10 => {
                // Options after the datagram: the packet is longer than the checksum covers.
                let mut packet = udp(source, destination, &data);
                let options = self.octets(8);
                packet.extend(options);
                let length = (packet.len() - 40) as u16;
                packet[4..6].copy_from_slice(&length.to_be_bytes());
                packet
            }
            11 => ipv6(source, destination, NO_NEXT_HEADER, &[]),
            _ => self.extended(source, destination, &data),
        };
        if self.chance(10) {
            packet[7] = self.pick(&[&[0], &[1], &[2], &[255]])[0];
        }
        if self.chance(10) {
            packet[1] = self.random.random();
        }
        packet
    }

    /// Makes a packet with a rare next header or with extension headers.
    fn extended(&mut self, source: Ipv6Addr, destination: Ipv6Addr, data: &[u8]) -> Vec<u8> {
        if self.chance(50) {
            return self.chained(source, destination, data);
        }
        let mut next_header = *NEXT_HEADERS.choose(&mut self.random).expect("not empty");
        let mut after = *NEXT_HEADERS.choose(&mut self.random).expect("not empty");
        let mut payload = Vec::new();
        if self.chance(20) {
            (next_header, after) = (FRAGMENT, ROUTING);
        }
        if self.chance(70) {
            let kind = self.random.random_range(0..5) * self.random.random_range(0..2);
            payload.extend([after, 0, kind, 0, 0, 0, 0, 0]);
        }
        if self.chance(50) {
            let kind = self.random.random_range(0..5);
            payload.extend([UDP, 0, kind, 0, 0, 0, 0, 0]);
        }
        if self.chance(80) {
            payload.extend(data);
        }
        ipv6(source, destination, next_header, &payload)
    }

    /// Makes a packet with a chain of well-formed headers, of which one may be a routing header.
    fn chained(&mut self, source: Ipv6Addr, destination: Ipv6Addr, data: &[u8]) -> Vec<u8> {
        let mut payload = data.to_vec();
        let mut next_header = *[TCP, UDP, ESP].choose(&mut self.random).expect("not empty");
        for _ in 0..self.random.random_range(1..5) {
            let units: u8 = self.random.random_range(0..3);
            let number = *NEXT_HEADERS.choose(&mut self.random).expect("not empty");
            let mut header = vec![next_header, units, 0, 0];
            let length = match number {
                AUTHENTICATION_HEADER => 8 + 4 * usize::from(units),
                FRAGMENT => 8,
                _ => 8 + 8 * usize::from(units),
            };
            if number == ROUTING && self.chance(50) {
                header[2] = 2;
            }
            if number == FRAGMENT {
                header[3] = self.pick(&[&[0], &[1], &[8]])[0];
            }
            header.resize(length, 0);
            payload = [header, payload].concat();
            next_header = number;
        }
        ipv6(source, destination, next_header, &payload)
    }

    /// Changes a few octets.
    fn mutate(&mut self, frame: &mut [u8]) {
        for _ in 0..self.random.random_range(1..4) {
            // Most decisions depend on headers.
            let most = if self.chance(80) {
                frame.len().min(100)
            } else {
                frame.len()
            };
            let at = self.random.random_range(0..most);
            frame[at] = if self.chance(50) {
                frame[at] ^ 1 << self.random.random_range(0..8)
            } else {
                self.random.random()
            };
        }
    }

    /// Cuts off or adds octets at the end.
    fn resize(&mut self, frame: &mut Vec<u8>) {
        if self.chance(10) {
            let padding = self.octets(20);
            frame.extend(padding);
        } else if self.chance(4) {
            let length = self.random.random_range(ETHERNET_HEADER..=frame.len());
            frame.truncate(length);
        }
    }

    /// Makes a frame from the IPv4 internet.
    pub fn client_sends(&mut self) -> Vec<u8> {
        let peer = self.peer();
        let native = self.native();
        let source = if self.chance(3) {
            self.native()
        } else {
            peer.address
        };
        let mut payload = self.packet(source, native);
        if self.chance(4) {
            payload.extend(octets(self.pick(&["0104deadbeef", "4100", "00"])));
        }
        if self.chance(4) {
            let element =
                octets(self.pick(&["0000effff6fffffe", "00010000cd5669400b22df8800", "0002"]));
            payload = [element, payload].concat();
        }
        let from = match self.random.random_range(0..30) {
            0 => endpoint(self.pick(STRANGERS)),
            1 => Endpoint::new(peer.mapped.ip(), peer.mapped.port() ^ 1),
            _ => peer.mapped,
        };
        let identification = self.random.random();
        let mut packet = datagram(from, relay(), identification, &payload);
        if self.chance(5) {
            packet[1] = self.random.random();
        }
        if self.chance(3) {
            packet[6] ^= self.pick(&[&[0x40], &[0x20], &[0x80], &[0x01]])[0];
        }
        if self.chance(15) {
            packet[26..28].fill(0);
        }
        if self.chance(5) {
            packet[8] = self.random.random_range(0..3);
        }
        if self.chance(15) {
            self.mutate(&mut packet);
            if self.chance(50) {
                fix_udp_checksum(&mut packet);
            }
        }
        if self.chance(97) {
            fix_header_checksum(&mut packet);
        }
        let mut frame = ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet);
        self.resize(&mut frame);
        frame
    }

    /// A frame from a native host, and its ingress interface.
    pub fn native_sends(&mut self) -> (Port, Vec<u8>) {
        let peer = self.peer();
        let native = self.native();
        let destination = if self.chance(3) {
            self.native()
        } else {
            peer.address
        };
        let mut packet = self.packet(native, destination);
        if self.chance(15) {
            self.mutate(&mut packet);
        }
        let one_armed = self.chance(20);
        let (port, station) = if one_armed {
            (Port::Wan, WAN)
        } else {
            (Port::Lan, LAN)
        };
        let mut frame = ethernet(station, HOST, ETHERTYPE_IPV6, &packet);
        self.resize(&mut frame);
        (port, frame)
    }
}
