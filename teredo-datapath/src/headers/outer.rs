//! The headers around an IPv6 packet: Ethernet, IPv4 without options, UDP.

use teredo_common::{
    address::Endpoint,
    checksum::{Sum, ipv4_udp_pseudo_header},
    wire::{ENCAPSULATION, ETHERNET_HEADER, IPV4_HEADER, OUTER_TTL, UDP, UDP_HEADER},
};

use super::Ethernet;
use crate::{
    environment::Environment,
    frame::{Frame, Octets},
    sum,
};

/// Octets up to the end of the UDP header.
pub const OUTER: usize = ETHERNET_HEADER + ENCAPSULATION;

/// Offsets of fields of the IPv4 header.
mod ipv4 {
    use super::ETHERNET_HEADER;

    pub const VERSION_AND_LENGTH: usize = ETHERNET_HEADER;
    pub const TRAFFIC_CLASS: usize = ETHERNET_HEADER + 1;
    pub const TOTAL_LENGTH: usize = ETHERNET_HEADER + 2;
    pub const IDENTIFICATION: usize = ETHERNET_HEADER + 4;
    pub const FRAGMENT: usize = ETHERNET_HEADER + 6;
    pub const TIME_TO_LIVE: usize = ETHERNET_HEADER + 8;
    pub const PROTOCOL: usize = ETHERNET_HEADER + 9;
    pub const CHECKSUM: usize = ETHERNET_HEADER + 10;
    pub const SOURCE: usize = ETHERNET_HEADER + 12;
    pub const DESTINATION: usize = ETHERNET_HEADER + 16;
}

/// Offsets of fields of the UDP header.
mod udp {
    use super::{ETHERNET_HEADER, IPV4_HEADER};

    pub const SOURCE: usize = ETHERNET_HEADER + IPV4_HEADER;
    pub const DESTINATION: usize = SOURCE + 2;
    pub const LENGTH: usize = SOURCE + 4;
    pub const CHECKSUM: usize = SOURCE + 6;
}

/// Version 4 and a header of five words.
const WITHOUT_OPTIONS: u8 = 0x45;
/// Version 4, a header of five words, no differentiated services, no congestion notification.
const VERSION: u16 = (WITHOUT_OPTIONS as u16) << 8;
/// All of the fragmentation field but "don't fragment": reserved bit, "more fragments", offset.
const FRAGMENTED: u16 = 0xbfff_u16.to_be();
/// The bits of explicit congestion notification.
const CONGESTION: u8 = 3;
const TTL_AND_PROTOCOL: u16 = (OUTER_TTL as u16) << 8 | UDP as u16;

/// The bits of the first eight octets of the IPv4 header that [`Outer::is_plain_udp`] knows: version and length,
/// congestion notification, fragmentation.
const PLAIN_BITS: u64 = u64::from_ne_bytes([0xff, CONGESTION, 0, 0, 0, 0, 0xbf, 0xff]);
/// Their values.
const PLAIN: u64 = u64::from_ne_bytes([WITHOUT_OPTIONS, 0, 0, 0, 0, 0, 0, 0]);

/// The Ethernet, IPv4 and UDP header of a frame. IPv4 options move the UDP header, so nothing beyond
/// the first 20 octets of the IPv4 header means anything unless [`Outer::has_options`] is false.
#[derive(Clone, Copy)]
pub struct Outer(Octets<OUTER>);

impl Outer {
    /// Returns the headers of a frame, if the frame is long enough for them.
    #[inline(always)]
    pub fn of(frame: Frame) -> Option<Self> {
        frame.first().map(Self)
    }

    /// Returns the view of octets that are to become the headers.
    #[inline(always)]
    pub fn new(octets: Octets<OUTER>) -> Self {
        Self(octets)
    }

    /// Returns the Ethernet header.
    #[inline(always)]
    pub fn ethernet(self) -> Ethernet {
        Ethernet::new(self.0.part::<0, ETHERNET_HEADER>())
    }

    /// Whether the IPv4 header is not the plain one of 20 octets.
    #[inline(always)]
    pub fn has_options(self) -> bool {
        self.0.read::<u8, { ipv4::VERSION_AND_LENGTH }>() != WITHOUT_OPTIONS
    }

    /// Whether the IPv4 packet is a fragment.
    #[inline(always)]
    pub fn is_fragment(self) -> bool {
        self.0.read::<u16, { ipv4::FRAGMENT }>() & FRAGMENTED != 0
    }

    /// Whether the IPv4 packet takes part in explicit congestion notification.
    #[inline(always)]
    pub fn has_congestion_notification(self) -> bool {
        self.0.read::<u8, { ipv4::TRAFFIC_CLASS }>() & CONGESTION != 0
    }

    /// Returns the IPv4 time to live.
    #[inline(always)]
    pub fn time_to_live(self) -> u8 {
        self.0.read::<u8, { ipv4::TIME_TO_LIVE }>()
    }

    /// Whether the IPv4 packet carries UDP.
    #[inline(always)]
    pub fn is_udp(self) -> bool {
        self.0.read::<u8, { ipv4::PROTOCOL }>() == UDP
    }

    /// Whether the IPv4 packet is a whole UDP datagram that may go on: [`Self::is_udp`], and neither
    /// [`Self::has_options`] nor [`Self::is_fragment`] nor [`Self::has_congestion_notification`], and the time to live is
    /// not zero.
    #[inline(always)]
    pub fn is_plain_udp(self) -> bool {
        let start = self.0.read::<u64, { ipv4::VERSION_AND_LENGTH }>();
        // The time to live is the lower octet.
        let protocol = u16::from_le(self.0.read::<u16, { ipv4::TIME_TO_LIVE }>());
        start & PLAIN_BITS == PLAIN && protocol.wrapping_sub((UDP as u16) << 8 | 1) < 0xff
    }

    /// Whether the lengths are those of a datagram of `datagram` octets with its UDP header.
    #[inline(always)]
    pub fn has_lengths(self, datagram: u16) -> bool {
        self.0.read::<u16, { ipv4::TOTAL_LENGTH }>() == (datagram + IPV4_HEADER as u16).to_be()
            && self.0.read::<u16, { udp::LENGTH }>() == datagram.to_be()
    }

    /// Returns the IPv4 source, network byte order.
    #[inline(always)]
    pub fn source(self) -> u32 {
        self.0.read::<u32, { ipv4::SOURCE }>()
    }

    /// Returns the IPv4 destination, network byte order.
    #[inline(always)]
    pub fn destination(self) -> u32 {
        self.0.read::<u32, { ipv4::DESTINATION }>()
    }

    /// Returns the UDP source port, network byte order.
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        self.0.read::<u16, { udp::SOURCE }>()
    }

    /// Returns the source of the datagram.
    #[inline(always)]
    pub fn sender(self) -> Endpoint {
        Endpoint {
            address: self.source().to_ne_bytes(),
            port: self.source_port().to_ne_bytes(),
        }
    }

    /// Returns the UDP destination port, network byte order.
    #[inline(always)]
    pub fn destination_port(self) -> u16 {
        self.0.read::<u16, { udp::DESTINATION }>()
    }

    /// Returns the UDP checksum, network byte order; zero if there is none.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        self.0.read::<u16, { udp::CHECKSUM }>()
    }

    /// Whether the checksum of an IPv4 header without options is right.
    #[inline(always)]
    pub fn is_ipv4_valid(self) -> bool {
        let header = self.0.part::<ETHERNET_HEADER, IPV4_HEADER>();
        [
            header.read::<u32, 0>(),
            header.read::<u32, 4>(),
            header.read::<u32, 8>(),
            header.read::<u32, 12>(),
            header.read::<u32, 16>(),
        ]
        .iter()
        .fold(Sum::ZERO, |sum, word| sum.add_4(word.to_ne_bytes()))
        .is_valid()
    }

    /// Whether the checksum of the datagram, of so many octets with its UDP header, is right over all of `frame`.
    #[inline(always)]
    pub fn is_valid(self, environment: &impl Environment, frame: Frame, datagram: usize) -> bool {
        let sum = sum::of(environment, frame.skip::<{ udp::SOURCE }>(), datagram);
        let addresses = ipv4_udp_pseudo_header(
            self.source().to_ne_bytes(),
            self.destination().to_ne_bytes(),
            datagram as u16,
        );
        sum.is_some_and(|sum| sum.add_sum(addresses).is_valid())
    }

    /// Returns the octets of the datagram with its UDP header, and the octets that pad `frame`, if
    /// all lengths fit each other.
    #[inline(always)]
    pub fn lengths(self, frame: Frame) -> Option<(usize, usize)> {
        let total = self.0.number::<{ ipv4::TOTAL_LENGTH }>();
        let datagram = self.0.number::<{ udp::LENGTH }>();
        let padding = frame.length().wrapping_sub(ETHERNET_HEADER + total);
        let fits = (padding as isize) >= 0 && datagram + IPV4_HEADER == total;
        fits.then_some((datagram, padding))
    }

    /// Writes the IPv4 and the UDP header. `length` is that of the datagram with the UDP header, in
    /// octets; `identification` is in host byte order.
    #[inline(always)]
    pub fn write(
        self,
        source: Endpoint,
        destination: Endpoint,
        length: u16,
        checksum: [u8; 2],
        identification: u16,
    ) {
        let total = length + IPV4_HEADER as u16;
        let header_checksum = Sum::ZERO
            .add(VERSION)
            .add(total)
            .add(identification)
            .add(TTL_AND_PROTOCOL)
            .add_4(source.address)
            .add_4(destination.address)
            .checksum();
        let octets = self.0;
        octets.write::<u16, { ipv4::VERSION_AND_LENGTH }>(VERSION.to_be());
        octets.write::<u16, { ipv4::TOTAL_LENGTH }>(total.to_be());
        octets.write::<u16, { ipv4::IDENTIFICATION }>(identification.to_be());
        octets.write::<u16, { ipv4::FRAGMENT }>(0);
        octets.write::<u16, { ipv4::TIME_TO_LIVE }>(TTL_AND_PROTOCOL.to_be());
        octets.write::<u16, { ipv4::CHECKSUM }>(u16::from_ne_bytes(header_checksum));
        octets.write::<u32, { ipv4::SOURCE }>(u32::from_ne_bytes(source.address));
        octets.write::<u32, { ipv4::DESTINATION }>(u32::from_ne_bytes(destination.address));
        octets.write::<u16, { udp::SOURCE }>(u16::from_ne_bytes(source.port));
        octets.write::<u16, { udp::DESTINATION }>(u16::from_ne_bytes(destination.port));
        octets.write::<u16, { udp::LENGTH }>(length.to_be());
        octets.write::<u16, { udp::CHECKSUM }>(u16::from_ne_bytes(checksum));
    }
}

/// Returns the sum of the UDP header and its pseudo-header, with checksum zero. `length` is that of the
/// datagram with the UDP header, in octets.
#[inline(always)]
pub fn udp_sum(source: Endpoint, destination: Endpoint, length: u16) -> Sum {
    ipv4_udp_pseudo_header(source.address, destination.address, length)
        .add_2(source.port)
        .add_2(destination.port)
        .add(length)
}

const _: () = assert!(UDP_HEADER == OUTER - udp::SOURCE);
