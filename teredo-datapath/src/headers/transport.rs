//! The transport header directly after an IPv6 header, as far as the outer checksum needs it.

use teredo_common::{
    checksum::Sum,
    wire::{FRAGMENT, ICMPV6, TCP, UDP, is_transport},
};

use super::Ipv6;
use crate::frame::Frame;

/// Octets of a TCP header up to the end of the checksum, and the checksum's offset.
const TCP_START: usize = 18;
const TCP_CHECKSUM: usize = 16;
/// Offset of the length of a UDP datagram.
const UDP_LENGTH: usize = 4;
/// Offset of the checksum of a UDP datagram.
const UDP_CHECKSUM: usize = 6;

/// Whether a transport follows the IPv6 header, at once or in a fragment, so that no routing header can.
/// Anything else, also protocols that are unknown here, only userspace can judge.
#[inline(always)]
pub fn is_plain(payload: Frame, next_header: u8) -> bool {
    let behind = match payload.first::<1>() {
        Some(fragment) if next_header == FRAGMENT => fragment.read::<u8, 0>(),
        _ => next_header,
    };
    is_transport(behind)
}

/// Whether the transport, which starts at `transport`, has a checksum over all of the `payload` octets
/// after the IPv6 header. The outer checksum in constant time requires it.
///
/// A UDP datagram may have no checksum, and options after its data that its own length excludes.
#[inline(always)]
pub fn covers_payload(transport: Frame, next_header: u8, payload: usize) -> bool {
    match next_header {
        TCP => payload >= 20,
        ICMPV6 => payload >= 8,
        UDP => match transport.first::<8>() {
            Some(udp) => {
                udp.number::<UDP_LENGTH>() == payload && udp.read::<u16, UDP_CHECKSUM>() != 0
            }
            None => false,
        },
        _ => false,
    }
}

/// Returns the checksum of a TCP segment or UDP datagram of `payload` octets, network byte order, if it covers all of
/// them.
#[inline(always)]
pub fn covering_checksum(transport: Frame, next_header: u8, payload: u16) -> Option<u16> {
    if next_header == UDP {
        let udp = transport.first::<8>()?;
        let checksum = udp.read::<u16, UDP_CHECKSUM>();
        (udp.read::<u16, UDP_LENGTH>() == payload.to_be() && checksum != 0).then_some(checksum)
    } else if next_header == TCP && payload >= 20 {
        let tcp = transport.first::<TCP_START>()?;
        Some(tcp.read::<u16, TCP_CHECKSUM>())
    } else {
        None
    }
}

/// Whether the checksum of TCP or UDP is that of the pseudo-header alone. So the kernel leaves it to the
/// network card, and nobody would finish it within a tunnel.
#[inline(always)]
pub fn is_unfinished(ipv6: Ipv6, transport: Frame, next_header: u8, payload: usize) -> bool {
    let checksum = match next_header {
        TCP => transport
            .first::<TCP_START>()
            .map(|tcp| tcp.read::<u16, TCP_CHECKSUM>()),
        UDP => transport
            .first::<8>()
            .map(|udp| udp.read::<u16, UDP_CHECKSUM>()),
        _ => None,
    };
    checksum
        .is_some_and(|checksum| is_of_pseudo_header(checksum, ipv6, next_header, payload as u16))
}

/// Whether a checksum, network byte order, is that of the pseudo-header alone.
#[inline(always)]
pub fn is_of_pseudo_header(checksum: u16, ipv6: Ipv6, next_header: u8, payload: u16) -> bool {
    let [a, b, c, d] = ipv6.source_words().map(u32::to_ne_bytes);
    let [e, f, g, h] = ipv6.destination_words().map(u32::to_ne_bytes);
    let pseudo_header = Sum::ZERO
        .add_4(a)
        .add_4(b)
        .add_4(c)
        .add_4(d)
        .add_4(e)
        .add_4(f)
        .add_4(g)
        .add_4(h)
        .add(payload)
        .add(next_header as u16);
    checksum.to_ne_bytes() == pseudo_header.fold()
}
