//! Packets to try.

use std::net::{Ipv6Addr, SocketAddrV4};

use teredo_common::{
    checksum::{self, Sum},
    wire::ETHERNET_HEADER,
};
use teredo_proto::wire::{ipv6, router};

/// The Ethernet address of the station that frames are said to come from.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
const UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Octets of IPv4 and UDP headers.
const OUTER: usize = 28;

/// Returns a short UDP packet from one address to another, to ports that nobody uses.
pub fn packet(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let (source, destination) = (source.octets(), destination.octets());
    let mut content = [0; 16];
    content[..6].copy_from_slice(&[0x82, 0x9b, 0x82, 0x9b, 0, 16]);
    let pseudo = checksum::ipv6_pseudo_header(&source, &destination, content.len() as u32, UDP);
    let sum: Sum = pseudo.add_octets(&content);
    [content[6], content[7]] = sum.udp_checksum();
    let header = ipv6::header(content.len() as u16, UDP, HOP_LIMIT, &source, &destination);
    [&header[..], &content].concat()
}

/// Returns the router solicitation that a client sends.
pub fn solicitation() -> Vec<u8> {
    // The cone flag is clear.
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xffff, 0xffff, 0xfffe);
    router::solicitation(&source.octets()).to_vec()
}

/// Returns the frame of an IPv6 packet to the interface with this Ethernet address.
pub fn of_packet(station: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&station[..], &STATION, &ETHERTYPE_IPV6, packet].concat()
}

/// Returns the frame of a UDP datagram to the interface with this Ethernet address.
pub fn of_datagram(
    station: [u8; 6],
    from: SocketAddrV4,
    to: SocketAddrV4,
    ecn: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_HEADER + OUTER + payload.len());
    for part in [&station[..], &STATION, &ETHERTYPE_IPV4] {
        frame.extend_from_slice(part);
    }
    let length = (OUTER + payload.len()) as u16;
    let mut header = [
        0x45, ecn, 0, 0, 0, 0, 0, 0, HOP_LIMIT, UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[12..16].copy_from_slice(&from.ip().octets());
    header[16..20].copy_from_slice(&to.ip().octets());
    let sum = Sum::ZERO.add_octets(&header).checksum();
    header[10..12].copy_from_slice(&sum);
    frame.extend_from_slice(&header);
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    // No checksum, which the program accepts as the kernel does.
    frame.extend([0, 0]);
    frame.extend_from_slice(payload);
    frame
}
