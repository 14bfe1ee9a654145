//! Addresses and packets for tests, from text and from their fields.
//!
//! All functions panic when their arguments make no sense: they are for tests alone, in this crate
//! and, with the feature `testing`, in others.

use std::net::{Ipv6Addr, SocketAddrV4};

use teredo_common::{
    address::Endpoint,
    checksum,
    wire::{ICMPV6, IPV6_HEADER, NO_NEXT_HEADER, TCP, UDP},
};

use crate::wire::{bubble, ipv6::header};

/// Hop limit of a packet that no router has forwarded yet.
const HOP_LIMIT: u8 = 64;

/// Returns the octets that hexadecimal digits stand for; white space does not count.
///
/// # Panics
///
/// Panics if `hexadecimal` has another character, or half an octet.
#[must_use]
pub fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "half an octet");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

/// Returns the endpoint that a text such as `9.0.0.1:4096` stands for.
///
/// # Panics
///
/// Panics if `text` is not an IPv4 address and a port.
#[must_use]
pub fn endpoint(text: &str) -> Endpoint {
    let endpoint: SocketAddrV4 = text.parse().expect("an IPv4 address and a port");
    endpoint.into()
}

/// Returns the octets of the IPv6 address that a text stands for.
///
/// # Panics
///
/// Panics if `text` is not an IPv6 address.
#[must_use]
pub fn address(text: &str) -> [u8; 16] {
    let address: Ipv6Addr = text.parse().expect("an IPv6 address");
    address.octets()
}

/// Returns an IPv6 packet.
#[must_use]
pub fn ipv6(
    next_header: u8,
    hop_limit: u8,
    source: &[u8; 16],
    destination: &[u8; 16],
    payload: &[u8],
) -> Vec<u8> {
    let length = payload.len() as u16;
    let header = header(length, next_header, hop_limit, source, destination);
    [&header[..], payload].concat()
}

/// Returns an IPv6 packet with a TCP segment, UDP datagram or ICMPv6 message, whose checksum it
/// sets.
///
/// # Panics
///
/// Panics if `next_header` is none of the three, or `message` too short.
#[must_use]
pub fn transport(
    next_header: u8,
    hop_limit: u8,
    source: &[u8; 16],
    destination: &[u8; 16],
    message: &[u8],
) -> Vec<u8> {
    let at = IPV6_HEADER
        + match next_header {
            TCP => 16,
            UDP => 6,
            ICMPV6 => 2,
            _ => panic!("the protocol {next_header} has no checksum"),
        };
    let mut packet = ipv6(next_header, hop_limit, source, destination, message);
    packet[at..at + 2].fill(0);
    let message = &packet[IPV6_HEADER..];
    let sum = match checksum::ipv6_transport(source, destination, next_header, message) {
        [0, 0] if next_header == UDP => [0xff; 2],
        sum => sum,
    };
    packet[at..at + 2].copy_from_slice(&sum);
    packet
}

/// Returns an IPv6 packet that can be told from those with another `mark`.
#[must_use]
pub fn packet(source: &[u8; 16], destination: &[u8; 16], mark: u8) -> Vec<u8> {
    ipv6(UDP, HOP_LIMIT, source, destination, &[mark; 20])
}

/// Returns a bubble.
#[must_use]
pub fn bubble(source: &[u8; 16], destination: &[u8; 16]) -> Vec<u8> {
    bubble::build(source, destination).into()
}

/// Returns `true` if a UDP payload is a bubble and nothing else.
#[must_use]
pub fn is_bubble(payload: &[u8]) -> bool {
    payload.len() == IPV6_HEADER && payload[6] == NO_NEXT_HEADER
}
