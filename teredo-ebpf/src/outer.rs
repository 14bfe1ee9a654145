//! The headers around an IPv6 packet: Ethernet, IPv4 without options, UDP.

use teredo_common::{
    address::Endpoint,
    checksum::{Sum, ipv4_udp_pseudo_header},
    wire::{ENCAPSULATION, ETHERNET_HEADER, IPV4_HEADER, OUTER_TTL, UDP, UDP_HEADER},
};

use crate::{
    maps,
    packet::{Frame, Octets},
};

/// Octets up to the end of the UDP header.
pub const OUTER: usize = ETHERNET_HEADER + ENCAPSULATION;
/// Everything but "don't fragment": reserved bit, "more fragments", offset.
pub const FRAGMENTED: u16 = 0xbfff_u16.to_be();

/// Version 4, header of five words, no differentiated services, no congestion notification.
const VERSION: u16 = 0x4500;
const TTL_AND_PROTOCOL: u16 = (OUTER_TTL as u16) << 8 | UDP as u16;

/// Whether the checksum of the IPv4 header, which has no options, is right.
#[inline(always)]
pub fn is_header_valid(outer: Octets<OUTER>) -> bool {
    let header = [
        outer.read::<u32, 14>(),
        outer.read::<u32, 18>(),
        outer.read::<u32, 22>(),
        outer.read::<u32, 26>(),
        outer.read::<u32, 30>(),
    ];
    header
        .iter()
        .fold(Sum::ZERO, |sum, word| sum.add_4(word.to_ne_bytes()))
        .is_valid()
}

/// Octets of the datagram with its UDP header, and octets that pad the frame, if the lengths fit
/// each other.
#[inline(always)]
pub fn lengths(frame: Frame, outer: Octets<OUTER>) -> Option<(usize, usize)> {
    let total = outer.number::<16>();
    let datagram = outer.number::<38>();
    let padding = frame.length().wrapping_sub(ETHERNET_HEADER + total);
    let fits = (padding as isize) >= 0 && datagram + (ENCAPSULATION - UDP_HEADER) == total;
    fits.then_some((datagram, padding))
}

/// The sum of the UDP header and its pseudo-header, with checksum zero. `length` is that of the
/// datagram with the UDP header.
#[inline(always)]
pub fn udp_sum(source: Endpoint, destination: Endpoint, length: u16) -> Sum {
    ipv4_udp_pseudo_header(source.address, destination.address, length)
        .add_2(source.port)
        .add_2(destination.port)
        .add(length)
}

/// Writes the IPv4 and the UDP header of a datagram; `length` is that of the datagram with the UDP
/// header.
#[inline(always)]
pub fn write<const N: usize>(
    head: Octets<N>,
    source: Endpoint,
    destination: Endpoint,
    length: u16,
    checksum: [u8; 2],
) {
    let total = length + IPV4_HEADER as u16;
    let identification = maps::identification();
    let header_checksum = Sum::ZERO
        .add(VERSION)
        .add(total)
        .add(identification)
        .add(TTL_AND_PROTOCOL)
        .add_4(source.address)
        .add_4(destination.address)
        .checksum();
    head.write::<u16, 14>(VERSION.to_be());
    head.write::<u16, 16>(total.to_be());
    head.write::<u16, 18>(identification.to_be());
    head.write::<u16, 20>(0);
    head.write::<u16, 22>(TTL_AND_PROTOCOL.to_be());
    head.write::<u16, 24>(u16::from_ne_bytes(header_checksum));
    head.write::<u32, 26>(u32::from_ne_bytes(source.address));
    head.write::<u32, 30>(u32::from_ne_bytes(destination.address));
    head.write::<u16, 34>(u16::from_ne_bytes(source.port));
    head.write::<u16, 36>(u16::from_ne_bytes(destination.port));
    head.write::<u16, 38>(length.to_be());
    head.write::<u16, 40>(u16::from_ne_bytes(checksum));
}
