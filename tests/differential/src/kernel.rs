//! The kernel's part in the userspace relay's path.

use anyhow::{Result, ensure};
use teredo_common::{
    address::Endpoint,
    checksum::{self, Sum},
    wire::{
        ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6, IPV4_HEADER, IPV6_HEADER,
        OUTER_TTL, TCP, UDP, UDP_HEADER,
    },
};

use crate::site;

/// A datagram as the relay's socket receives it.
pub struct Datagram {
    /// Its source.
    pub from: Endpoint,
    /// ECN field of the IPv4 header, 0 to 3.
    pub ecn: u8,
    /// Whether the checksum is right or absent; the kernel drops other datagrams.
    pub is_intact: bool,
    /// UDP payload.
    pub payload: Vec<u8>,
}

fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*octets.get(at..)?.first_chunk()?))
}

fn endpoint_at(octets: &[u8], address: usize, port: usize) -> Option<Endpoint> {
    Some(Endpoint {
        address: *octets.get(address..)?.first_chunk()?,
        port: *octets.get(port..)?.first_chunk()?,
    })
}

/// The IP packet in a frame of this type for one of our interfaces.
fn packet(frame: &[u8], ethertype: u16) -> Option<&[u8]> {
    (u16_at(frame, 12)? == ethertype).then(|| &frame[ETHERNET_HEADER..])
}

fn is_for_us(frame: &[u8]) -> bool {
    frame.starts_with(&site::WAN) || frame.starts_with(&site::LAN)
}

/// Receives a frame: the datagram for the relay, if the frame holds a complete one.
pub fn receive(frame: &[u8]) -> Option<Datagram> {
    let packet = packet(frame, ETHERTYPE_IPV4).filter(|_| is_for_us(frame))?;
    let header = usize::from(*packet.first()? & 15) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    let is_whole = packet[0] >> 4 == 4 && header >= IPV4_HEADER && total >= header;
    let packet = packet.get(..total).filter(|_| is_whole)?;
    if !Sum::ZERO.add_octets(packet.get(..header)?).is_valid() {
        return None;
    }
    let is_fragment = u16_at(packet, 6)? & 0x3fff != 0;
    if is_fragment || packet[9] != UDP {
        return None;
    }
    let length = usize::from(u16_at(packet, header + 4)?);
    let payload = packet.get(header + UDP_HEADER..header + length)?;
    let from = endpoint_at(packet, 12, header)?;
    let to = endpoint_at(packet, 16, header + 2)?;
    let checksum = u16_at(packet, header + 6)?;
    let expected = u16::from_be_bytes(checksum::ipv4_udp(from, to, payload));
    (to == site::relay()).then(|| Datagram {
        from,
        ecn: packet[1] & 3,
        is_intact: checksum == 0 || checksum == expected,
        payload: payload.to_vec(),
    })
}

/// The IPv6 packet in a frame, without the frame's padding.
pub fn ipv6(frame: &[u8]) -> Option<&[u8]> {
    let packet = packet(frame, ETHERTYPE_IPV6)?;
    let length = IPV6_HEADER + usize::from(u16_at(packet, 4)?);
    packet.get(..length).filter(|packet| packet[0] >> 4 == 6)
}

/// Routes an IPv6 packet: the result is `None` if it ends here.
pub fn route(packet: impl Into<Vec<u8>>) -> Option<Vec<u8>> {
    let mut packet = packet.into();
    let hop_limit = packet.get_mut(7)?;
    *hop_limit = hop_limit.checked_sub(1).filter(|&left| left > 0)?;
    Some(packet)
}

/// Checks that a frame is the one that the relay's socket would send: `payload` in a datagram to
/// `to`. The checksum is zero, or as good as the inner one.
pub fn check_sent(frame: &[u8], to: Endpoint, payload: &[u8]) -> Result<()> {
    let Some(packet) = packet(frame, ETHERTYPE_IPV4) else {
        anyhow::bail!("not IPv4")
    };
    let total = IPV4_HEADER + UDP_HEADER + payload.len();
    ensure!(
        packet.len() == total,
        "{} octets, not {total}",
        packet.len()
    );
    ensure!(packet[..2] == [0x45, 0], "no options, no services (W-06)");
    ensure!(u16_at(packet, 2) == Some(total as u16), "total length");
    ensure!(packet[6..8] == [0, 0], "may be fragmented (W-06)");
    ensure!(packet[8..10] == [OUTER_TTL, UDP], "time to live, protocol");
    ensure!(
        Sum::ZERO.add_octets(&packet[..IPV4_HEADER]).is_valid(),
        "header checksum"
    );
    let from = site::relay();
    ensure!(endpoint_at(packet, 12, 20) == Some(from), "source");
    ensure!(endpoint_at(packet, 16, 22) == Some(to), "destination");
    let length = (UDP_HEADER + payload.len()) as u16;
    ensure!(u16_at(packet, 24) == Some(length), "length of the datagram");
    ensure!(&packet[28..] == payload, "payload");
    let checksum = &packet[26..28];
    let is_valid = checksum == checksum::ipv4_udp(from, to, payload);
    let is_as_good = is_valid || !is_inner_valid(payload);
    ensure!(checksum == [0, 0] || is_as_good, "checksum {checksum:x?}");
    Ok(())
}

/// Whether the transport directly after the header accepts the packet. UDP may have no checksum,
/// and its own length may end before the packet does.
pub fn is_inner_valid(packet: &[u8]) -> bool {
    let (header, payload) = packet.split_at(IPV6_HEADER);
    let (Ok(source), Ok(destination)) = (header[8..24].try_into(), header[24..40].try_into())
    else {
        return false;
    };
    let message = match header[6] {
        UDP if u16_at(payload, 6) == Some(0) => return true,
        UDP => u16_at(payload, 4).and_then(|length| payload.get(..usize::from(length))),
        TCP | ICMPV6 => Some(payload),
        _ => return true,
    };
    message.is_some_and(|message| {
        checksum::ipv6_transport(source, destination, header[6], message) == [0, 0]
    })
}
