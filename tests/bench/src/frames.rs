//! Forged frames, and checks of those that a relay sends.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use teredo_common::{
    address::Endpoint,
    checksum::{ipv4_udp_pseudo_header, ipv6_pseudo_header},
    wire::{
        ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_HEADER, IPV6_HEADER,
        UDP, UDP_HEADER,
    },
};
use teredo_lab::{
    frames::{Stations, datagram, ethernet},
    peers::udp_packet,
};
use teredo_lab_ebpf::{LAST, client, latency};

use super::cases::Direction;

/// The relay's outer endpoint.
pub const RELAY: Endpoint = Endpoint::new(Ipv4Addr::new(20, 0, 0, 1), 3545);
/// The native host of the clients' packets, and the gateway to others.
pub const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, LAST);
/// A native host behind the gateway. Others have other interface identifiers.
pub const HOST_BEHIND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, LAST);
/// A native host behind the gateway with a route of its own. Others have other routes.
pub const SCATTERED: Ipv6Addr = Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, LAST);
/// Number of clients for hosts in one network; a relay may limit how many new clients a network
/// contacts.
const CLIENTS_OF_NETWORK: u32 = 10_000;
/// The native host's UDP port inside the tunnel.
pub const HOST_PORT: u16 = 5001;
/// The clients' UDP port inside the tunnel.
pub const CLIENT_PORT: u16 = 5002;
/// The hop limit of inner packets before any router has forwarded them.
pub const HOP_LIMIT: u8 = 64;
/// Octets in front of the payload of an inner packet.
pub const INNER_HEADERS: usize = IPV6_HEADER + UDP_HEADER;

/// Makes an Ethernet frame with a datagram of `size` octets (from the IPv6 header on) to a native
/// host from client `number`; or to the client, from that host or, for the higher numbers,
/// from hosts in other networks.
///
/// # Errors
///
/// Fails when the size does not hold the headers, or exceeds any packet.
pub fn data(
    stations: Stations,
    direction: Direction,
    number: u32,
    host: Ipv6Addr,
    size: u16,
) -> Result<Vec<u8>> {
    let payload = usize::from(size)
        .checked_sub(INNER_HEADERS)
        .with_context(|| format!("{size} octets are too few for a datagram"))?;
    let client = client(number);
    let teredo = (client.encode(), CLIENT_PORT);
    let mut payload = vec![0xa5; payload];
    if let Some(room) = payload.first_chunk_mut() {
        *room = latency::ROOM;
    }
    match direction {
        Direction::Encap | Direction::Both => {
            let network = u16::try_from(number / CLIENTS_OF_NETWORK)?;
            let mut segments = host.segments();
            segments[3] += network;
            let native = (segments.into(), HOST_PORT);
            let packet = udp_packet(native, teredo, HOP_LIMIT, &payload)?;
            Ok(ethernet(stations, ETHERTYPE_IPV6, &packet))
        }
        Direction::Decap => {
            let packet = udp_packet(teredo, (host, HOST_PORT), HOP_LIMIT, &payload)?;
            datagram(stations, client.mapped, RELAY, &packet)
        }
    }
}

/// A UDP datagram over IPv4 in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The datagram's source.
    pub source: Endpoint,
    /// The datagram's destination.
    pub destination: Endpoint,
    /// The datagram's payload.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Parses the datagram in an Ethernet frame; `None` if the frame holds another packet.
    ///
    /// # Errors
    ///
    /// Fails when the datagram is damaged.
    pub fn parse(frame: &'a [u8]) -> Result<Option<Self>> {
        if ether_type(frame) != Some(ETHERTYPE_IPV4) {
            return Ok(None);
        }
        let packet = &frame[ETHERNET_HEADER..];
        let Some((header, rest)) = packet.split_first_chunk::<ENCAPSULATION>() else {
            return Ok(None);
        };
        if header[0] != 0x45 || header[9] != UDP {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([header[24], header[25]]));
        let payload = length
            .checked_sub(UDP_HEADER)
            .and_then(|length| rest.get(..length))
            .context("a datagram is longer than its frame")?;
        let four = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let datagram = Self {
            source: Endpoint {
                address: four(12),
                port: [header[20], header[21]],
            },
            destination: Endpoint {
                address: four(16),
                port: [header[22], header[23]],
            },
            payload,
        };
        ensure!(
            ipv4_udp_pseudo_header(four(12), four(16), length as u16)
                .add_octets(&packet[IPV4_HEADER..IPV4_HEADER + length])
                .is_valid(),
            "a datagram to {} has a wrong or no checksum",
            datagram.destination
        );
        Ok(Some(datagram))
    }
}

/// An inner UDP packet of the measurements.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// The packet's source.
    pub source: [u8; 16],
    /// The packet's destination.
    pub destination: [u8; 16],
}

impl Inner {
    /// Parses the inner packet in an IPv6 packet; `None` if it is not UDP.
    ///
    /// # Errors
    ///
    /// Fails when the packet is damaged.
    pub fn parse(packet: &[u8]) -> Result<Option<Self>> {
        let Some((header, udp)) = packet.split_first_chunk::<IPV6_HEADER>() else {
            return Ok(None);
        };
        if header[0] >> 4 != 6 || header[6] != UDP {
            return Ok(None);
        }
        let mut inner = Self {
            source: [0; 16],
            destination: [0; 16],
        };
        inner.source.copy_from_slice(&header[8..24]);
        inner.destination.copy_from_slice(&header[24..]);
        let length = u16::from_be_bytes([header[4], header[5]]);
        let udp = udp
            .get(..length.into())
            .context("an IPv6 packet is longer than its frame")?;
        ensure!(
            ipv6_pseudo_header(&inner.source, &inner.destination, length.into(), UDP)
                .add_octets(udp)
                .is_valid(),
            "a packet to {} has a wrong inner checksum",
            Ipv6Addr::from(inner.destination)
        );
        ensure!(header[7] == HOP_LIMIT - 1, "the hop limit is {}", header[7]);
        Ok(Some(inner))
    }

    /// Parses the inner packet in an Ethernet frame without encapsulation.
    ///
    /// # Errors
    ///
    /// Fails when the packet is damaged.
    pub fn parse_frame(frame: &[u8]) -> Result<Option<Self>> {
        match ether_type(frame) {
            Some(ETHERTYPE_IPV6) => Self::parse(&frame[ETHERNET_HEADER..]),
            _ => Ok(None),
        }
    }
}

fn ether_type(frame: &[u8]) -> Option<u16> {
    let octets = frame.get(12..ETHERNET_HEADER)?;
    Some(u16::from_be_bytes([octets[0], octets[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIONS: Stations = Stations {
        source: [2; 6],
        destination: [4; 6],
    };

    #[test]
    fn forged_frames_are_intact() {
        let client = client(77);
        let frame = data(STATIONS, Direction::Decap, 77, HOST, 65).unwrap();
        assert_eq!(frame.len(), 14 + 28 + 65);
        let datagram = Datagram::parse(&frame).unwrap().unwrap();
        assert_eq!(datagram.source, client.mapped);
        assert_eq!(datagram.destination, RELAY);
        // Sent with the full hop limit, which a relay has to decrement.
        assert!(Inner::parse(datagram.payload).is_err());

        let mut relayed = data(STATIONS, Direction::Encap, 77, HOST, 65).unwrap();
        relayed[14 + 7] -= 1;
        let inner = Inner::parse_frame(&relayed).unwrap().unwrap();
        assert_eq!(inner.destination, client.encode().octets());
    }

    #[test]
    fn damage_is_noticed() {
        let whole = data(STATIONS, Direction::Decap, 3, HOST, 64).unwrap();
        for at in [14 + 20, 14 + 28 + 7, whole.len() - 1] {
            let mut frame = whole.clone();
            frame[at] ^= 1;
            assert!(Datagram::parse(&frame).is_err(), "octet {at}");
        }
        let mut frame = data(STATIONS, Direction::Encap, 3, HOST, 64).unwrap();
        frame[14 + 7] -= 1;
        frame[60] ^= 1;
        assert!(Inner::parse_frame(&frame).is_err());
    }

    #[test]
    fn a_size_without_room_is_refused() {
        assert!(data(STATIONS, Direction::Encap, 0, HOST, 47).is_err());
    }
}
