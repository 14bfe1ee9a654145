//! Packets as people have them: hexadecimal digits, frames of a capture.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4},
};

use teredo_proto::wire::{encapsulation, ipv6::Header};
use thiserror::Error;

use super::link::Link;

/// Octets of an IPv4 header without options.
const IPV4_HEADER: usize = 20;
/// Octets of a UDP header.
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// An IPv6 packet without encapsulation.
    Ipv6(Vec<u8>),
    /// A UDP datagram over IPv4.
    Datagram {
        /// Its source.
        from: SocketAddrV4,
        /// Its destination.
        to: SocketAddrV4,
        /// The ECN field of the IPv4 header.
        ecn: u8,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// The reason why octets are no packet that a daemon could get. Each is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Not hexadecimal.
    #[error("the packet is not hexadecimal: `{0}` is no digit")]
    NoDigit(char),
    /// Half an octet is missing.
    #[error("the packet has {0} hexadecimal digits, and octets have two each")]
    OddDigits(usize),
    /// Neither IPv4 nor IPv6, with an Ethernet header or without.
    #[error("the {0} octets are neither an Ethernet frame nor an IP packet that is complete")]
    NoPacket(usize),
    /// A fragment, of which the daemon never sees one.
    #[error(
        "the packet is an IPv4 fragment; give the whole datagram, which the kernel puts together"
    )]
    Fragment,
    /// Another protocol than UDP.
    #[error("the IPv4 packet has protocol {0}, and Teredo is UDP (17)")]
    NoUdp(u8),
}

impl Packet {
    /// Reads an IPv4 packet, an IPv6 packet or an Ethernet frame, of which nothing tells which it is.
    ///
    /// # Errors
    ///
    /// When it is none of them, or not complete.
    pub fn parse(octets: &[u8]) -> Result<Self, PacketError> {
        // The versions and lengths of IP tell a packet from a frame.
        let mut links = [Link::Raw, Link::Ethernet].into_iter();
        let found = links.find_map(|link| link.packet(octets).and_then(ip));
        found.unwrap_or(Err(PacketError::NoPacket(octets.len())))
    }

    /// Returns the source and the destination of the IPv6 packet, which may be inside a datagram.
    #[must_use]
    pub fn addresses(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        let header = match self {
            Self::Ipv6(packet) => Header::parse(packet).ok()?,
            Self::Datagram { payload, .. } => {
                Header::parse(encapsulation::parse(payload).ok()?.packet).ok()?
            }
        };
        Some((header.source().into(), header.destination().into()))
    }
}

/// Reads an IP packet; `None` if the octets do not begin with one that is complete.
pub(super) fn ip(octets: &[u8]) -> Option<Result<Packet, PacketError>> {
    match octets.first()? >> 4 {
        6 => {
            let header = Header::parse(octets).ok()?;
            let length = header.packet_length();
            // What is behind the packet is padding of a frame, of which there are few octets.
            octets
                .get(..length)
                .map(|packet| Ok(Packet::Ipv6(packet.to_vec())))
        }
        4 => ipv4(octets),
        _ => None,
    }
}

fn ipv4(octets: &[u8]) -> Option<Result<Packet, PacketError>> {
    let header: &[u8; IPV4_HEADER] = octets.first_chunk()?;
    let header_length = usize::from(header[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let packet = octets.get(..length)?;
    let content = packet.get(header_length.max(IPV4_HEADER)..)?;
    let address = |start: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|offset| header[start + offset]);
        Ipv4Addr::new(a, b, c, d)
    };
    if header[9] != UDP {
        return Some(Err(PacketError::NoUdp(header[9])));
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Some(Err(PacketError::Fragment));
    }
    let udp: &[u8; UDP_HEADER] = content.first_chunk()?;
    let [source, destination, udp_length] =
        [0, 2, 4].map(|start| u16::from_be_bytes([udp[start], udp[start + 1]]));
    let payload = content.get(UDP_HEADER..usize::from(udp_length))?;
    Some(Ok(Packet::Datagram {
        from: SocketAddrV4::new(address(12), source),
        to: SocketAddrV4::new(address(16), destination),
        ecn: header[1] & 3,
        payload: payload.to_vec(),
    }))
}

impl fmt::Display for Packet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |formatter: &mut fmt::Formatter<'_>| match self.addresses() {
            Some((source, destination)) => write!(formatter, "{source} -> {destination}"),
            None => formatter.write_str("no IPv6 packet"),
        };
        match self {
            Self::Ipv6(packet) => {
                write!(formatter, "IPv6 packet of {} octets, ", packet.len())?;
                inner(formatter)
            }
            Self::Datagram {
                from, to, payload, ..
            } => {
                let octets = payload.len();
                write!(formatter, "UDP {from} -> {to}, {octets} octets: ")?;
                inner(formatter)
            }
        }
    }
}

/// Reads hexadecimal digits, with spaces, colons or without.
///
/// # Errors
///
/// When there is something else.
pub fn parse_hexadecimal(text: &str) -> Result<Vec<u8>, PacketError> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let digits = text
        .chars()
        .filter(|one| !one.is_whitespace() && *one != ':')
        .map(|one| one.to_digit(16).ok_or(PacketError::NoDigit(one)))
        .collect::<Result<Vec<_>, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(PacketError::OddDigits(digits.len()));
    }
    let octets = digits.chunks_exact(2);
    Ok(octets.map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use teredo_common::wire::IPV6_HEADER;

    use super::*;

    /// A bubble in UDP in IPv4.
    pub fn datagram() -> Vec<u8> {
        let inner = teredo_proto::wire::bubble::build(&[0x20; 16], &[0x21; 16]);
        let length = (IPV4_HEADER + UDP_HEADER + inner.len()) as u16;
        let udp_length = (UDP_HEADER + inner.len()) as u16;
        let mut octets = vec![0x45, 2];
        octets.extend(length.to_be_bytes());
        octets.extend([0, 0, 0x40, 0, 64, UDP, 0, 0, 9, 0, 0, 1, 5, 6, 7, 8]);
        octets.extend([16, 0, 0x0d, 0xd9]);
        octets.extend(udp_length.to_be_bytes());
        octets.extend([0, 0]);
        octets.extend(inner);
        octets
    }

    #[test]
    fn a_datagram_is_found_in_frames_and_packets() {
        let packet = datagram();
        let frame = |tag: &[u8]| [&[2; 12][..], tag, &[8, 0], &packet, &[0; 6]].concat();
        for octets in [
            packet.clone(),
            frame(&[]),
            frame(&[0x81, 0, 0, 7]),
            frame(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]),
        ] {
            let parsed = Packet::parse(&octets).unwrap();
            let Packet::Datagram {
                from,
                to,
                ecn,
                payload,
            } = &parsed
            else {
                panic!("{parsed:?}");
            };
            assert_eq!((from.to_string(), to.port()), ("9.0.0.1:4096".into(), 3545));
            assert_eq!((*ecn, payload.len()), (2, IPV6_HEADER));
            let text = parsed.to_string();
            assert!(text.ends_with("2020:2020:2020:2020:2020:2020:2020:2020 -> 2121:2121:2121:2121:2121:2121:2121:2121"), "{text}");
        }
    }

    #[test]
    fn an_ipv6_packet_ends_where_it_says() {
        let packet = teredo_proto::wire::bubble::build(&[0x20; 16], &[0x21; 16]);
        let frame = [&[2; 12][..], &[0x86, 0xdd], &packet, &[0; 6]].concat();
        assert_eq!(Packet::parse(&frame), Ok(Packet::Ipv6(packet.to_vec())));
    }

    #[test]
    fn other_octets_are_refused_with_the_reason() {
        let mut icmp = datagram();
        icmp[9] = 1;
        let mut fragment = datagram();
        fragment[6] = 0x20;
        let cut = &datagram()[..40];
        for (octets, error) in [
            (&icmp[..], PacketError::NoUdp(1)),
            (&fragment, PacketError::Fragment),
            (cut, PacketError::NoPacket(40)),
            (&[], PacketError::NoPacket(0)),
        ] {
            assert_eq!(Packet::parse(octets), Err(error));
        }
        assert_eq!(parse_hexadecimal("0x45:00 ff"), Ok(vec![0x45, 0, 255]));
        assert_eq!(parse_hexadecimal("4x"), Err(PacketError::NoDigit('x')));
        assert_eq!(parse_hexadecimal("450"), Err(PacketError::OddDigits(3)));
    }
}
