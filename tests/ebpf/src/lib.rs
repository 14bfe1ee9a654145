//! The forged traffic of the benchmarks, as their XDP programs and the loader share it.
#![no_std]

pub mod bubble;
pub mod flood;
pub mod latency;
pub mod numbers;
pub mod scatter;
pub mod sift;
pub mod spray;

use bytemuck::{Pod, Zeroable};
use core::net::{Ipv4Addr, Ipv6Addr};
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    checksum::Sum,
    wire::ETHERTYPE_VLAN,
};

/// Octets of the measured inner packets. The sink counts and drops frames that hold a datagram of
/// a multiple of [`UNIT`] octets, plain or encapsulated, and passes all others.
pub const SIZES: [u16; 6] = [64, 128, 256, 512, 1024, 1280];
/// All sizes are multiples of this number of octets, a power of two.
pub const UNIT: u16 = 64;
/// Octets of a VLAN tag.
pub const TAG: usize = 4;

/// 20.64.0.1, the mapped address of the first forged client; the others follow.
pub const FIRST_CLIENT: u32 = 0x1440_0001;
/// 20.32.0.1, the first of the forged clients' servers.
const FIRST_SERVER: u32 = 0x1420_0001;
/// Number of servers: enough that limits per server have no effect; a power of two.
const SERVERS: u32 = 1024;
/// The lowest mapped port.
const FIRST_PORT: u16 = 40_000;
/// Number of ports; a power of two.
const PORTS: u32 = 4096;
/// The mapped ports of all forged clients.
pub const FORGED_PORTS: core::ops::Range<u16> = FIRST_PORT..FIRST_PORT + PORTS as u16;
/// The flags of all addresses (RFC 5991 section 3.1).
const FLAGS: u16 = 0x1027;

/// Forged client `index`.
pub const fn client(index: u32) -> TeredoAddress {
    TeredoAddress {
        prefix: ServicePrefix::STANDARD,
        server: Ipv4Addr::from_bits(server(index)),
        flags: FLAGS,
        mapped: Endpoint::new(Ipv4Addr::from_bits(FIRST_CLIENT + index), port(index)),
    }
}

/// The index of the forged client with this mapped address, if it is one of the first `count`.
pub fn index(mapped: Endpoint, count: u32) -> Option<u32> {
    let index = mapped.ip().to_bits().checked_sub(FIRST_CLIENT)?;
    (index < count && mapped.port() == port(index)).then_some(index)
}

const fn server(index: u32) -> u32 {
    FIRST_SERVER + (index & (SERVERS - 1))
}

const fn port(index: u32) -> u16 {
    FIRST_PORT + (index & (PORTS - 1)) as u16
}

/// Octets of the longest headers: Ethernet, IPv4, UDP, IPv6, UDP.
pub const HEADERS: usize = 90;
/// Octets that a program may change which is run on one frame again and again.
pub const AGAIN: usize = 104;
/// Octets of the headers in the direction of [`Flow::ENCAP`]: Ethernet, IPv6, UDP.
pub const NATIVE_HEADERS: usize = 62;

/// A generator's parameters: the same UDP datagram from or to one forged client after another.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// Index of the egress interface.
    pub interface: u32,
    /// [`Flow::ENCAP`], [`Flow::DECAP`] or [`Flow::FIXED`].
    pub direction: u32,
    /// Number of clients.
    pub clients: u32,
    /// Step from one client to the next, modulo `clients`.
    pub stride: u32,
    /// Index of the first client.
    pub first: u32,
    /// Number of native hosts that the clients send to in turn; 1 if it is the frame's.
    pub hosts: u32,
    /// Step from one native host to the next, modulo `hosts`.
    pub hosts_stride: u32,
    /// Whether each native host is in a network of its own: 1 or 0.
    scattered: u32,
    /// Number of frames of a client before it is the next one's turn.
    pub train: u32,
    /// Number of clients in the list of turns, a power of two; 0 if clients take turns by `stride`.
    pub listed: u32,
    /// Whether frames have a VLAN tag: 1 or 0.
    pub tagged: u32,
    /// What frames carry behind their headers: [`Flow::TIMES`], [`Flow::NUMBERS`], or 0 for nothing.
    pub stamped: u32,
    /// The words before those of the template, in frames with a tag.
    front: [u16; 2],
    /// The part of client 0's frame that depends on the client's number, as words in network byte
    /// order.
    template: [u16; 48],
    /// The part of the inner UDP checksum that all clients have in common: a sum in network byte
    /// order.
    inner: [u8; 2],
    /// The same for the outer UDP checksum.
    outer: [u8; 2],
    /// The same for the checksum of the IPv4 header.
    ipv4: [u8; 2],
    reserved: [u8; 2],
}

/// The difference between the frames of two clients, as octets in network byte order.
#[derive(Clone, Copy)]
struct Words {
    /// The lower half of the server's address.
    server: [u8; 2],
    port: [u8; 2],
    /// The upper and lower half of the client's address.
    address: [[u8; 2]; 2],
}

impl Words {
    #[inline(always)]
    const fn of(index: u32) -> Self {
        let address = FIRST_CLIENT + index;
        Self {
            server: (server(index) as u16).to_be_bytes(),
            port: port(index).to_be_bytes(),
            address: [
                ((address >> 16) as u16).to_be_bytes(),
                (address as u16).to_be_bytes(),
            ],
        }
    }

    /// The part that the inner checksum covers: in the Teredo address, with obfuscation.
    #[inline(always)]
    const fn inner(self, sum: Sum) -> Sum {
        sum.add_2(self.server)
            .add_2(not(self.port))
            .add_2(not(self.address[0]))
            .add_2(not(self.address[1]))
    }

    /// The part that the IPv4 header's checksum covers.
    #[inline(always)]
    const fn ipv4(self, sum: Sum) -> Sum {
        sum.add_2(self.address[0]).add_2(self.address[1])
    }

    /// The part that the outer checksum covers; the inner packet's part cancels out.
    #[inline(always)]
    const fn outer(self, sum: Sum) -> Sum {
        self.ipv4(sum).add_2(self.port)
    }
}

#[inline(always)]
const fn not([a, b]: [u8; 2]) -> [u8; 2] {
    [!a, !b]
}

#[inline(always)]
const fn word(octets: [u8; 2]) -> u16 {
    u16::from_ne_bytes(octets)
}

// Offsets in 16-bit words from the Ethernet header on.
const ETHERNET_WORDS: usize = 7;
const IPV4_CHECKSUM: usize = 12;
const IPV4_SOURCE: usize = 13;
/// From here to the end of the outer UDP header a relay writes its Ethernet header.
const OVERWRITTEN: usize = 14;
const OUTER_PORT: usize = 17;
const OUTER_CHECKSUM: usize = 20;
const ENCAPSULATED: usize = 21;
/// Next header and hop limit, from the IPv6 header on.
const HOP_LIMIT: usize = 3;
const SOURCE: usize = 4;
const DESTINATION: usize = 12;
const INNER_CHECKSUM: usize = 23;
/// The lower half of the server, from the Teredo address on; flags, port and address follow.
const SERVER: usize = 3;
const PORT: usize = 5;
const ADDRESS: usize = 6;
/// The interface identifier in an IPv6 address.
const IDENTIFIER: usize = 4;

impl Flow {
    /// From a native host to the clients: plain IPv6 frames.
    pub const ENCAP: u32 = 0;
    /// From the clients to a native host: IPv6 in UDP in IPv4 frames.
    pub const DECAP: u32 = 1;
    /// The same frame over and over.
    pub const FIXED: u32 = 2;
    /// The time at which each frame was sent.
    pub const TIMES: u32 = 1;
    /// The number of each frame, from 0.
    pub const NUMBERS: u32 = 2;

    /// Makes a flow that consists of this frame alone.
    pub fn fixed(interface: u32, frame: &[u8]) -> Option<Self> {
        let flow = Self::new(Self::ENCAP, 1, interface, frame)?;
        Some(Self {
            direction: Self::FIXED,
            ..flow
        })
    }

    /// Makes the flow in which client 0 sends or receives this frame, whose checksums are right.
    pub fn new(direction: u32, clients: u32, interface: u32, frame: &[u8]) -> Option<Self> {
        let mut template = [0; 48];
        let is_tagged = frame.get(12..14)? == ETHERTYPE_VLAN.to_be_bytes();
        let (front, frame) = frame.split_at(if is_tagged { TAG } else { 0 });
        let (words, _) = frame.get(..HEADERS.min(frame.len()))?.as_chunks::<2>();
        for (to, from) in template.iter_mut().zip(words) {
            *to = word(*from);
        }
        if frame.len() < NATIVE_HEADERS || direction == Self::DECAP && frame.len() < HEADERS {
            return None;
        }
        // A checksum is the complement of the sum; the rest without the words of client 0 is common
        // to all.
        let ipv6 = Self::ipv6(direction);
        let first = Words::of(0);
        let rest = |checksum: usize, part: Sum| {
            Sum::ZERO
                .add_2(not(template[checksum].to_ne_bytes()))
                .add_2(not(part.fold()))
                .fold()
        };
        Some(Self {
            interface,
            direction,
            clients,
            stride: stride(clients),
            first: 0,
            hosts: 1,
            hosts_stride: 0,
            scattered: 0,
            train: 1,
            listed: 0,
            tagged: is_tagged.into(),
            stamped: 0,
            front: match *front {
                [a, b, c, d] => [word([a, b]), word([c, d])],
                _ => [0; 2],
            },
            inner: rest(ipv6 + INNER_CHECKSUM, first.inner(Sum::ZERO)),
            outer: rest(OUTER_CHECKSUM, first.outer(Sum::ZERO)),
            ipv4: rest(IPV4_CHECKSUM, first.ipv4(Sum::ZERO)),
            reserved: [0; 2],
            template,
        })
    }

    /// Makes the clients send to this many native hosts in turn, from [`host`] 0 of the frame's prefix on. The
    /// flow is one of [`Self::DECAP`], and the last word of the frame's destination is [`LAST`] after zeros. Each
    /// host is in a network of its own if they are `scattered`; otherwise all are in one.
    #[must_use]
    pub fn with_hosts(self, hosts: u32, scattered: bool) -> Self {
        Self {
            hosts,
            hosts_stride: stride(hosts),
            scattered: scattered.into(),
            ..self
        }
    }

    /// Takes the clients from this one on instead of from the first one on.
    #[must_use]
    pub fn from(self, first: u32) -> Self {
        Self { first, ..self }
    }

    /// Gives each client this number of frames in a row.
    #[must_use]
    pub fn with_trains(self, train: u32) -> Self {
        Self { train, ..self }
    }

    /// Takes the turns from a list of this number of entries, a power of two.
    #[must_use]
    pub fn with_list(self, listed: u32) -> Self {
        Self { listed, ..self }
    }

    /// Makes each frame carry the time at which it was sent, as [`latency`] says. The first octets of the
    /// frame's payload are [`latency::ROOM`].
    #[must_use]
    pub fn with_stamps(self) -> Self {
        Self {
            stamped: Self::TIMES,
            ..self
        }
    }

    /// Makes each frame carry its number in the place of [`Self::with_stamps`]. The frames have to be paced.
    #[must_use]
    pub fn with_numbers(self) -> Self {
        Self {
            stamped: Self::NUMBERS,
            ..self
        }
    }

    /// Returns the client after `index`. The two are far apart, so that neighbours in a relay's
    /// table are not neighbours in time.
    #[inline(always)]
    pub const fn next(&self, index: u32) -> u32 {
        following(index, self.stride, self.clients)
    }

    /// Returns the native host after `index`, which is far from it, too.
    #[inline(always)]
    pub const fn next_host(&self, index: u32) -> u32 {
        following(index, self.hosts_stride, self.hosts)
    }

    /// Replaces the native host in a frame of [`Self::DECAP`].
    ///
    /// # Safety
    ///
    /// `frame` is aligned to 2 and valid for writing [`HEADERS`] octets.
    #[inline(always)]
    pub unsafe fn write_host(&self, index: u32, frame: *mut u16) {
        // Two ways with places that the verifier knows.
        match self.scattered {
            0 => {
                // SAFETY: as the caller has promised.
                unsafe { write_parts(host_parts(IN_ONE, index), frame) }
            }
            _ => {
                // SAFETY: as the caller has promised.
                unsafe { write_parts(host_parts(SCATTERED, index), frame) }
            }
        }
    }

    /// Writes the part of a frame with a tag that is in front of the frame without.
    ///
    /// # Safety
    ///
    /// `frame` is aligned to 2 and valid for writing [`TAG`] octets.
    #[inline(always)]
    pub unsafe fn write_front(&self, frame: *mut u16) {
        // SAFETY: both words lie in the first octets.
        unsafe {
            *frame = self.front[0];
            *frame.add(1) = self.front[1];
        }
    }

    /// Turns a frame of any client, as a relay or the kernel has left it, into the frame of client
    /// `index` as no relay has seen it. `DIRECTION` is that of the flow.
    ///
    /// # Safety
    ///
    /// `frame` is aligned to 2 and valid for writing [`HEADERS`] octets, or [`NATIVE_HEADERS`] in
    /// the direction of [`Self::ENCAP`].
    #[inline(always)]
    pub unsafe fn write<const DIRECTION: u32>(&self, index: u32, frame: *mut u16) {
        let words = Words::of(index);
        let put = |at: usize, value: u16| {
            // SAFETY: every offset below lies in the headers of its direction.
            unsafe { *frame.add(at) = value };
        };
        let ipv6 = Self::ipv6(DIRECTION);
        let teredo = if DIRECTION == Self::DECAP {
            put(
                IPV4_CHECKSUM,
                word(words.ipv4(self.sum(self.ipv4)).checksum()),
            );
            for at in OVERWRITTEN..ENCAPSULATED {
                put(at, self.template[at]);
            }
            put(IPV4_SOURCE, word(words.address[0]));
            put(IPV4_SOURCE + 1, word(words.address[1]));
            put(OUTER_PORT, word(words.port));
            put(
                OUTER_CHECKSUM,
                word(words.outer(self.sum(self.outer)).udp_checksum()),
            );
            ipv6 + SOURCE
        } else {
            for at in 0..ETHERNET_WORDS {
                put(at, self.template[at]);
            }
            ipv6 + DESTINATION
        };
        put(ipv6 + HOP_LIMIT, self.template[ipv6 + HOP_LIMIT]);
        put(teredo + SERVER, word(words.server));
        put(teredo + PORT, word(not(words.port)));
        put(teredo + ADDRESS, word(not(words.address[0])));
        put(teredo + ADDRESS + 1, word(not(words.address[1])));
        put(
            ipv6 + INNER_CHECKSUM,
            word(words.inner(self.sum(self.inner)).udp_checksum()),
        );
    }

    /// Restores the frame of [`Self::FIXED`] after a host has changed it.
    ///
    /// # Safety
    ///
    /// `frame` is aligned to 2 and valid for writing [`NATIVE_HEADERS`] octets.
    #[inline(always)]
    pub unsafe fn restore(&self, frame: *mut u16) {
        for at in 0..NATIVE_HEADERS / 2 {
            // SAFETY: it lies in the headers.
            unsafe { *frame.add(at) = self.template[at] };
        }
    }

    #[inline(always)]
    const fn sum(&self, octets: [u8; 2]) -> Sum {
        Sum::ZERO.add_2(octets)
    }

    /// Offset of the IPv6 header.
    #[inline(always)]
    const fn ipv6(direction: u32) -> usize {
        if direction == Self::DECAP {
            ENCAPSULATED
        } else {
            ETHERNET_WORDS
        }
    }
}

/// The last 16 bits of the first native host's address.
pub const LAST: u16 = 0x10;

/// Returns native host `index` of the flow whose frame goes to `first`, an address as
/// [`Flow::with_hosts`] needs it.
pub fn host(first: Ipv6Addr, index: u32, scattered: bool) -> Ipv6Addr {
    let mut segments = first.segments();
    let places = if scattered { SCATTERED } else { IN_ONE };
    for (at, word) in host_parts(places, index) {
        segments[at] = u16::from_be(word);
    }
    segments.into()
}

/// The words of an address that tell hosts in one network apart: of the interface identifier.
const IN_ONE: [usize; 2] = [4, 6];
/// The words of an address that tell networks of 48 bits apart.
const SCATTERED: [usize; 2] = [1, 2];

/// Writes these words of the destination.
///
/// # Safety
///
/// The same as for [`Flow::write_host`].
#[inline(always)]
unsafe fn write_parts(parts: [(usize, u16); 4], frame: *mut u16) {
    for (at, word) in parts {
        // SAFETY: all words of the destination lie in the IPv6 header.
        unsafe { *frame.add(ENCAPSULATED + DESTINATION + at) = word };
    }
}

/// The words of an address that differ between native hosts, and their places. Their sum is the same for all,
/// so that no checksum changes.
#[inline(always)]
const fn host_parts([first, second]: [usize; 2], index: u32) -> [(usize, u16); 4] {
    let (low, high) = (index as u16, (index >> 16) as u16);
    [
        (first, low.to_be()),
        (IDENTIFIER + 1, !low.to_be()),
        (second, high.to_be()),
        (IDENTIFIER + 3, (LAST - (high & (LAST - 1))).to_be()),
    ]
}

#[inline(always)]
const fn following(index: u32, stride: u32, count: u32) -> u32 {
    let next = index + stride;
    if next >= count { next - count } else { next }
}

/// About three fifths of `clients` and coprime to it, so that every client has its turn.
fn stride(clients: u32) -> u32 {
    let prime = |stride: &u32| {
        let (mut a, mut b) = (*stride, clients);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    (clients * 3 / 5..clients).find(prime).unwrap_or(0)
}

/// The counters of a sink on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Count {
    /// Number of frames.
    pub packets: u64,
    /// Time of the first frame, in nanoseconds of `CLOCK_MONOTONIC`.
    pub first: u64,
    /// Time of frame number [`Self::stamped`], the last one for which the clock was read.
    pub last: u64,
    /// The first frame has number 0.
    pub stamped: u64,
}

impl Count {
    /// Number of frames for which the clock is read once; a power of two.
    pub const INTERVAL: u64 = 256;
}

#[cfg(test)]
mod tests {
    use super::*;
    use teredo_common::{checksum, wire};

    extern crate std;
    use std::vec::Vec;

    const NATIVE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
    const RELAY: Endpoint = Endpoint::new(Ipv4Addr::new(20, 0, 0, 1), 3545);

    /// The plain frame, field by field.
    fn frame(direction: u32, index: u32, payload: usize) -> Vec<u8> {
        frame_of(NATIVE, direction, index, payload)
    }

    fn frame_of(native: [u8; 16], direction: u32, index: u32, payload: usize) -> Vec<u8> {
        let client = client(index);
        let teredo = client.encode().octets();
        let (source, destination) = match direction {
            Flow::DECAP => (teredo, native),
            _ => (native, teredo),
        };
        let length = (wire::UDP_HEADER + payload) as u16;
        let mut udp = Vec::new();
        udp.extend(5001_u16.to_be_bytes());
        udp.extend(5002_u16.to_be_bytes());
        udp.extend(length.to_be_bytes());
        udp.extend([0; 2]);
        udp.resize(wire::UDP_HEADER + payload, 0xa5);
        let sum = checksum::ipv6_pseudo_header(&source, &destination, length.into(), wire::UDP);
        let checksum = sum.add_octets(&udp).udp_checksum();
        udp[6..8].copy_from_slice(&checksum);
        let mut packet = std::vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([wire::UDP, 64]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(udp);
        let mut frame = std::vec![2; 12];
        if direction == Flow::ENCAP {
            frame.extend(wire::ETHERTYPE_IPV6.to_be_bytes());
            frame.extend(packet);
            return frame;
        }
        frame.extend(wire::ETHERTYPE_IPV4.to_be_bytes());
        let total = (wire::ENCAPSULATION + packet.len()) as u16;
        let mut ipv4 = std::vec![0x45, 0];
        ipv4.extend(total.to_be_bytes());
        ipv4.extend([0, 0, 0, 0, 64, wire::UDP, 0, 0]);
        ipv4.extend(client.mapped.address);
        ipv4.extend(RELAY.address);
        let header = Sum::ZERO.add_octets(&ipv4).checksum();
        ipv4[10..12].copy_from_slice(&header);
        frame.extend(ipv4);
        frame.extend(client.mapped.port);
        frame.extend(RELAY.port);
        frame.extend((total - 20).to_be_bytes());
        frame.extend(checksum::ipv4_udp(client.mapped, RELAY, &packet));
        frame.extend(packet);
        frame
    }

    #[test]
    fn a_used_frame_becomes_the_next_clients() {
        for direction in [Flow::ENCAP, Flow::DECAP] {
            for payload in [16, 17, 1232] {
                let flow = Flow::new(direction, 10_000, 7, &frame(direction, 0, payload)).unwrap();
                // Every other frame is as a relay has left it.
                for index in [0, 1, 1023, 1024, 4095, 4096, 9999] {
                    let mut used: Vec<u16> = frame(direction, 5, payload)
                        .chunks(2)
                        .map(|pair| u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
                        .collect();
                    match direction {
                        Flow::DECAP => used[OVERWRITTEN..ENCAPSULATED].fill(0xffff),
                        _ => used[..ETHERNET_WORDS].fill(0xffff),
                    }
                    used[Flow::ipv6(direction) + HOP_LIMIT] = 0;
                    let frame_start = used.as_mut_ptr();
                    // SAFETY: the frame is longer than the headers.
                    unsafe {
                        match direction {
                            Flow::DECAP => flow.write::<{ Flow::DECAP }>(index, frame_start),
                            _ => flow.write::<{ Flow::ENCAP }>(index, frame_start),
                        }
                    }
                    let octets: Vec<u8> = used.into_iter().flat_map(u16::to_ne_bytes).collect();
                    let expected = frame(direction, index, payload);
                    assert_eq!(octets[..expected.len()], expected, "{direction} {index}");
                }
            }
        }
    }

    #[test]
    fn a_used_frame_becomes_the_same_again() {
        for direction in [Flow::ENCAP, Flow::DECAP] {
            let whole: Vec<u16> = frame(direction, 5, 16)
                .chunks(2)
                .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
                .collect();
            let octets = frame(direction, 5, 16);
            let flow = Flow::fixed(7, &octets).unwrap();
            let mut used = whole.clone();
            used[..NATIVE_HEADERS / 2].fill(0xffff);
            // SAFETY: the frame is longer than the headers.
            unsafe { flow.restore(used.as_mut_ptr()) };
            assert_eq!(used, whole);
        }
    }

    #[test]
    fn every_native_host_gets_a_frame_whose_checksum_is_right() {
        const HOSTS: u32 = 100_000;
        let spread = [0x2a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
        for (native, is_spread) in [(NATIVE, false), (spread, true)] {
            let first = frame_of(native, Flow::DECAP, 3, 16);
            let flow = Flow::new(Flow::DECAP, 1, 7, &first).unwrap();
            let flow = flow.with_hosts(HOSTS, is_spread);
            let mut seen = std::collections::BTreeSet::new();
            let mut index = 0;
            for turn in 0..HOSTS {
                seen.insert(host(native.into(), index, is_spread));
                if turn % 100 == 0 {
                    let mut words: Vec<u16> = first
                        .chunks(2)
                        .map(|pair| u16::from_ne_bytes([pair[0], pair[1]]))
                        .collect();
                    // SAFETY: the frame is longer than the headers.
                    unsafe { flow.write_host(index, words.as_mut_ptr()) };
                    let octets: Vec<u8> = words.into_iter().flat_map(u16::to_ne_bytes).collect();
                    let packet = &octets[42..];
                    let destination: [u8; 16] = packet[24..40].try_into().unwrap();
                    let expected = host(native.into(), index, is_spread);
                    assert_eq!(Ipv6Addr::from(destination), expected);
                    let source = packet[8..24].try_into().unwrap();
                    let length = packet.len() as u32 - 40;
                    let sum =
                        checksum::ipv6_pseudo_header(&source, &destination, length, wire::UDP);
                    assert!(sum.add_octets(&packet[40..]).is_valid(), "{index}");
                }
                index = flow.next_host(index);
            }
            assert_eq!((index, seen.len()), (0, HOSTS as usize));
        }
    }

    #[test]
    fn a_frame_with_a_tag_is_the_same_behind_it() {
        for direction in [Flow::ENCAP, Flow::DECAP] {
            let plain = frame(direction, 0, 16);
            let tag = [0x81, 0, 0, 7];
            let tagged = [&plain[..12], &tag, &plain[12..]].concat();
            let of = |frame: &[u8]| Flow::new(direction, 10, 7, frame).unwrap();
            let (flow, front) = (of(&tagged), [word([2, 2]), word([2, 2])]);
            assert_eq!((flow.tagged, flow.front), (1, front));
            let untagged = Flow {
                tagged: 0,
                front: [0; 2],
                ..flow
            };
            // But for the tag in the Ethernet header, which is further behind.
            let plain = of(&plain);
            assert_eq!(untagged.template[7..], plain.template[7..]);
            assert_eq!(
                Flow {
                    template: plain.template,
                    ..untagged
                },
                plain
            );
        }
    }

    #[test]
    fn a_client_answers_a_bubble_with_one_from_its_mapping() {
        let (relay, known) = (RELAY, client(77));
        for asked in [Endpoint::new(known.server, 3544), known.mapped] {
            let datagram = |from: Endpoint, to: Endpoint, source: [u8; 16], target: [u8; 16]| {
                let mut frame = std::vec![3; 6];
                frame.extend([if from == relay { 2 } else { 4 }; 6]);
                (frame[..6]).fill(if from == relay { 4 } else { 2 });
                frame.extend(wire::ETHERTYPE_IPV4.to_be_bytes());
                frame.extend([0x45, 0, 0, 68, 0, 7, 0, 0, 64, wire::UDP, 0, 0]);
                frame.extend(from.address);
                frame.extend(to.address);
                let sum = Sum::ZERO.add_octets(&frame[14..]).checksum();
                frame[24..26].copy_from_slice(&sum);
                frame.extend(from.port);
                frame.extend(to.port);
                frame.extend([0, 48, 0, 0, 0x60, 0, 0, 0, 0, 0, wire::NO_NEXT_HEADER, 255]);
                frame.extend(source);
                frame.extend(target);
                let sum = checksum::ipv4_udp_pseudo_header(from.address, to.address, 48)
                    .add_octets(&frame[34..])
                    .udp_checksum();
                frame[40..42].copy_from_slice(&sum);
                frame
            };
            let address = known.encode().octets();
            let mut frame = datagram(relay, asked, NATIVE, address);
            // SAFETY: the frame is as long as that.
            assert!(unsafe { bubble::answer(frame.as_mut_ptr()) });
            assert_eq!(frame, datagram(known.mapped, relay, address, NATIVE));
            let mut data = datagram(relay, asked, NATIVE, address);
            data[48] = wire::UDP;
            // SAFETY: as above.
            assert!(!unsafe { bubble::answer(data.as_mut_ptr()) });
        }
    }

    #[test]
    fn a_short_frame_is_refused() {
        let frame = frame(Flow::ENCAP, 0, 16);
        assert_eq!(Flow::new(Flow::ENCAP, 1, 1, &frame[..61]), None);
        assert_eq!(Flow::new(Flow::DECAP, 1, 1, &frame), None);
    }

    #[test]
    fn every_client_has_its_turn() {
        for clients in [1, 2, 3, 10, 10_000, 100_000] {
            let flow = Flow::new(Flow::ENCAP, clients, 1, &frame(Flow::ENCAP, 0, 16)).unwrap();
            let mut seen = std::vec![false; clients as usize];
            let mut index = 0;
            for _ in 0..clients {
                seen[index as usize] = true;
                index = flow.next(index);
            }
            assert!(seen.iter().all(|seen| *seen), "{clients}");
        }
    }

    #[test]
    fn a_client_is_known_by_its_mapping() {
        for number in [0, 4096, 99_999] {
            let mapped = client(number).mapped;
            assert_eq!(index(mapped, 100_000), Some(number));
            assert_eq!(index(mapped, number), None);
            let other = Endpoint::new(mapped.ip(), 1);
            assert_eq!(index(other, 100_000), None);
        }
    }
}
