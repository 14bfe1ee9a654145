//! The Internet checksum (RFC 1071) and the outer UDP checksum in constant time.
//!
//! One's complement sums may be taken in any byte order and any grouping of 16-bit words as long
//! as the words are aligned to the start of the data (RFC 1071 section 2), so octets are read in
//! the order of the host and the folded result, stored the same way, is right on the wire.

use crate::{
    address::Endpoint,
    wire::{ICMPV6, IPV6_HEADER, TCP, UDP, UDP_HEADER},
};

/// A one's complement sum that has not been folded yet, of less than 2^18 octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds a 16-bit number in host byte order.
    #[inline(always)]
    pub const fn add(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    /// Subtracts a 16-bit number in host byte order: adds its one's complement.
    #[inline(always)]
    pub const fn subtract(self, word: u16) -> Self {
        Self(self.0 + (!word).to_be() as u64)
    }

    /// Adds two octets in network byte order.
    #[inline(always)]
    pub const fn add_2(self, octets: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(octets) as u64)
    }

    /// Adds four octets in network byte order.
    #[inline(always)]
    pub const fn add_4(self, octets: [u8; 4]) -> Self {
        Self(self.0 + u32::from_ne_bytes(octets) as u64)
    }

    /// Adds eight octets in network byte order.
    #[inline(always)]
    pub const fn add_8(self, octets: [u8; 8]) -> Self {
        let words = u64::from_ne_bytes(octets);
        Self(self.0 + (words & 0xffff_ffff) + (words >> 32))
    }

    /// Adds the octets of another sum.
    #[inline(always)]
    pub const fn add_sum(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds the sum of octets in 32 bits, as the kernel keeps it.
    #[inline(always)]
    pub const fn add_unfolded(self, sum: u32) -> Self {
        Self(self.0 + sum as u64)
    }

    /// The sum of the same octets if they start at an odd offset of the data. It counts as 2,048 octets.
    #[inline(always)]
    pub const fn at_odd_offset(self) -> Self {
        // To exchange the octets of a digit is to multiply by 2^8, as 2^16 counts as one.
        Self(self.halves() << 8)
    }

    /// Adds 16 octets in network byte order.
    #[inline(always)]
    pub const fn add_16(self, o: &[u8; 16]) -> Self {
        self.add_4([o[0], o[1], o[2], o[3]])
            .add_4([o[4], o[5], o[6], o[7]])
            .add_4([o[8], o[9], o[10], o[11]])
            .add_4([o[12], o[13], o[14], o[15]])
    }

    /// Adds octets that start at an even offset of the data; the last may be alone.
    pub fn add_octets(self, octets: &[u8]) -> Self {
        let mut sum = self;
        let (words, rest) = octets.as_chunks::<4>();
        for &word in words {
            sum = sum.add_4(word);
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum.add_4(last)
    }

    /// The sum in 16 bits, as two octets in network byte order. Zero only if everything added was.
    #[inline(always)]
    pub const fn fold(self) -> [u8; 2] {
        // What this carries leaves less than 2^16 below.
        Self(self.halves()).third_digit().to_ne_bytes()
    }

    /// Returns a number of less than 2^33 with the same one's complement sum.
    #[inline(always)]
    const fn halves(self) -> u64 {
        (self.0 >> 32) + (self.0 & 0xffff_ffff)
    }

    /// Returns the one's complement sum of the 16-bit digits. One multiplication puts it into the third digit of the
    /// product, with the carry of the lowest two digits. If the digits above those add another carry, that is lost.
    #[inline(always)]
    const fn third_digit(self) -> u16 {
        (self.0.wrapping_mul(0x1_0001_0001) >> 32) as u16
    }

    /// The checksum field for the data added: two octets in network byte order.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        (!u16::from_ne_bytes(self.fold())).to_ne_bytes()
    }

    /// The checksum field of UDP, where zero means that there is no checksum (RFC 768).
    #[inline(always)]
    pub const fn udp_checksum(self) -> [u8; 2] {
        match u16::from_ne_bytes(self.checksum()) {
            0 => [0xff, 0xff],
            checksum => checksum.to_ne_bytes(),
        }
    }

    /// Whether data that includes its checksum field is intact.
    #[inline(always)]
    pub const fn is_valid(self) -> bool {
        // If a carry is lost, the result is less than the digits above the lowest two, which are less than 2^16 - 1.
        self.third_digit() == 0xffff
    }
}

/// The pseudo-header of UDP over IPv4 (RFC 768); `length` in octets with the UDP header.
#[inline(always)]
pub const fn ipv4_udp_pseudo_header(source: [u8; 4], destination: [u8; 4], length: u16) -> Sum {
    Sum::ZERO
        .add_4(source)
        .add_4(destination)
        .add(UDP as u16)
        .add(length)
}

/// The pseudo-header of a transport over IPv6 (RFC 8200 section 8.1); `length` in octets.
#[inline(always)]
pub const fn ipv6_pseudo_header(
    source: &[u8; 16],
    destination: &[u8; 16],
    length: u32,
    next_header: u8,
) -> Sum {
    let [a, b, c, d] = length.to_be_bytes();
    Sum::ZERO
        .add_16(source)
        .add_16(destination)
        .add_4([a, b, c, d])
        .add(next_header as u16)
}

/// The checksum of a transport message over IPv6. Its checksum field must be zero, or is verified:
/// then the result is zero.
pub fn ipv6_transport(
    source: &[u8; 16],
    destination: &[u8; 16],
    next_header: u8,
    message: &[u8],
) -> [u8; 2] {
    ipv6_pseudo_header(source, destination, message.len() as u32, next_header)
        .add_octets(message)
        .checksum()
}

/// The checksum of a UDP datagram over IPv4, computed over every octet of the payload.
pub fn ipv4_udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> [u8; 2] {
    let length = (UDP_HEADER + payload.len()) as u16;
    ipv4_udp_pseudo_header(source.address, destination.address, length)
        .add_2(source.port)
        .add_2(destination.port)
        .add(length)
        .add_octets(payload)
        .udp_checksum()
}

/// Whether the transport directly after an IPv6 header has a checksum over the pseudo-header and
/// all of its octets, which is what [`encapsulation`] builds on.
///
/// UDP has it only where its own checksum field is not zero, for the caller to look at.
#[inline(always)]
pub const fn covers_payload(next_header: u8) -> bool {
    matches!(next_header, TCP | UDP | ICMPV6)
}

/// Offset of the checksum field in the header of a transport that [`covers_payload`], in octets.
#[inline(always)]
pub const fn transport_checksum_offset(next_header: u8) -> Option<usize> {
    match next_header {
        TCP => Some(16),
        UDP => Some(6),
        ICMPV6 => Some(2),
        _ => None,
    }
}

/// The outer UDP checksum of an encapsulated IPv6 packet from its first eight octets alone.
///
/// If the inner transport checksum is right, the sum of the transport's octets is the complement
/// of the sum of its pseudo-header. Pseudo-header and IPv6 header share both addresses, which
/// cancel out; left are the first eight octets of the IPv6 header less payload length and next
/// header. If the inner checksum is wrong, so is the result, and the first verifier drops the
/// packet. The offsets 8 and 48 are even, so odd payload lengths need no care.
///
/// `ipv6` holds the octets as they are sent: the hop limit already decremented. Only for packets
/// whose next header [`covers_payload`] and whose UDP payload is the IPv6 packet alone.
#[inline(always)]
pub const fn encapsulation(source: Endpoint, destination: Endpoint, ipv6: &[u8; 8]) -> [u8; 2] {
    encapsulation_between(endpoints(source, destination), ipv6)
}

/// The same from the sum of the octets of both endpoints.
#[inline(always)]
pub const fn encapsulation_between(endpoints: Sum, ipv6: &[u8; 8]) -> [u8; 2] {
    encapsulation_sum(endpoints, ipv6).udp_checksum()
}

/// Whether a checksum other than zero is that of [`encapsulation`].
#[inline(always)]
pub const fn is_encapsulation(
    source: Endpoint,
    destination: Endpoint,
    ipv6: &[u8; 8],
    checksum: [u8; 2],
) -> bool {
    encapsulation_sum(endpoints(source, destination), ipv6)
        .add_2(checksum)
        .is_valid()
}

#[inline(always)]
const fn endpoints(source: Endpoint, destination: Endpoint) -> Sum {
    Sum::ZERO
        .add_4(source.address)
        .add_2(source.port)
        .add_4(destination.address)
        .add_2(destination.port)
}

/// The pseudo-header has the length once more, and the protocol.
#[inline(always)]
const fn encapsulation_sum(endpoints: Sum, ipv6: &[u8; 8]) -> Sum {
    let [a, b, c, d, e, f, next_header, hop_limit] = *ipv6;
    let length = (UDP_HEADER + IPV6_HEADER) as u16 + u16::from_be_bytes([e, f]);
    endpoints
        .add(UDP as u16)
        .add(length)
        .add(length)
        .add_4([a, b, c, d])
        .add_2([next_header, hop_limit])
        .subtract(next_header as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    /// The textbook version, to compare with.
    fn reference(octets: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in octets.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    fn ipv6_packet(
        next_header: u8,
        hop_limit: u8,
        addresses: [u8; 32],
        transport: &[u8],
    ) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((transport.len() as u16).to_be_bytes());
        packet.extend([next_header, hop_limit]);
        packet.extend(addresses);
        packet.extend(transport);
        packet
    }

    #[test]
    fn v15_router_solicitation() {
        let source: core::net::Ipv6Addr = "fe80::ffff:ffff:ffff".parse().unwrap();
        let destination: core::net::Ipv6Addr = "ff02::2".parse().unwrap();
        let message = [0x85, 0, 0, 0, 0, 0, 0, 0];
        let checksum = ipv6_transport(&source.octets(), &destination.octets(), ICMPV6, &message);
        assert_eq!(checksum, [0x7d, 0x37]);
    }

    #[test]
    fn v21_encapsulation() {
        let relay = Endpoint::new(Ipv4Addr::new(5, 6, 7, 8), 3545);
        let client = Endpoint::new(Ipv4Addr::new(9, 0, 0, 1), 4096);
        let first = [0x60, 0, 0, 0, 0, 0x18, 0x3a, 0x3f];
        assert_eq!(encapsulation(relay, client, &first), [0x32, 0x71]);
    }

    #[test]
    fn v22_decapsulation_before_the_hop_limit_changes() {
        let relay = Endpoint::new(Ipv4Addr::new(5, 6, 7, 8), 3545);
        let client = Endpoint::new(Ipv4Addr::new(9, 0, 0, 1), 4096);
        let first = [0x60, 0, 0, 0, 0, 0x10, 0x3a, 0x40];
        assert_eq!(encapsulation(client, relay, &first), [0x32, 0x80]);
    }

    #[test]
    fn a_computed_zero_is_sent_as_all_ones() {
        let nothing = Sum::ZERO.add(0xffff);
        assert_eq!(nothing.checksum(), [0, 0]);
        assert_eq!(nothing.udp_checksum(), [0xff, 0xff]);
    }

    #[test]
    fn the_largest_sums_fold() {
        for (octet, length) in [
            (0xff, (1 << 18) - 4),
            (0xff, 1 << 16),
            (0xff, 4),
            (0, 1 << 16),
        ] {
            for last in [
                [0; 4],
                [0xff; 4],
                [0, 1, 0, 0],
                [0xff, 0xfe, 0, 0],
                [0, 0, 0, 1],
            ] {
                let mut octets = vec![octet; length];
                octets[length - 4..].copy_from_slice(&last);
                let sum = Sum::ZERO.add_octets(&octets);
                let expected = reference(&octets);
                assert_eq!(u16::from_be_bytes(sum.checksum()), expected);
                assert_eq!(sum.is_valid(), expected == 0, "{octet} {last:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn octets_agree_with_the_reference(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let checksum = Sum::ZERO.add_octets(&octets).checksum();
            prop_assert_eq!(u16::from_be_bytes(checksum), reference(&octets));
        }

        #[test]
        fn sums_add_up_at_any_offset(
            first in prop::collection::vec(any::<u8>(), 0..40), words: [[u8; 8]; 3],
        ) {
            let mut whole = first.clone();
            let mut rest = Sum::ZERO;
            for word in words {
                whole.extend(word);
                rest = rest.add_8(word);
            }
            let rest = if first.len() % 2 == 0 { rest } else { rest.at_odd_offset() };
            let sum = Sum::ZERO.add_octets(&first).add_sum(rest);
            prop_assert_eq!(u16::from_be_bytes(sum.checksum()), reference(&whole));
        }

        #[test]
        fn the_complement_subtracts(octets: [u8; 16], word: u16) {
            let kept = Sum::ZERO.add_16(&octets).add(1);
            let taken_back = kept.add(word).subtract(word);
            prop_assert_eq!(kept.udp_checksum(), taken_back.udp_checksum());
        }

        #[test]
        fn constant_time_agrees_with_the_walk(
            source: [u8; 6], destination: [u8; 6], addresses: [u8; 32], hop_limit: u8,
            next_header in prop::sample::select(&[TCP, UDP, ICMPV6][..]),
            mut transport in prop::collection::vec(any::<u8>(), 20..600),
            corruption in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let source: Endpoint = bytemuck::cast(source);
            let destination: Endpoint = bytemuck::cast(destination);
            let offset = transport_checksum_offset(next_header).unwrap();
            transport[offset..offset + 2].fill(0);
            let (from, to) = (addresses[..16].try_into().unwrap(), addresses[16..].try_into().unwrap());
            let checksum = match ipv6_transport(from, to, next_header, &transport) {
                [0, 0] => [0xff, 0xff],
                checksum => checksum,
            };
            transport[offset..offset + 2].copy_from_slice(&checksum);
            if let Some(index) = corruption {
                transport[index.index(usize::MAX) % 20] ^= 0x10;
            }
            let packet = ipv6_packet(next_header, hop_limit, addresses, &transport);
            let walked = ipv4_udp(source, destination, &packet);
            let first = packet[..8].try_into().unwrap();
            let equal = walked == encapsulation(source, destination, first);
            prop_assert_eq!(equal, corruption.is_none());
        }
    }
}
