//! The fixed IPv6 header (RFC 8200 section 3) and the chain of extension headers after it.

mod chain;

use teredo_common::wire::{HOP_BY_HOP, IPV6_HEADER, NO_NEXT_HEADER};

pub use chain::{ChainLink, chain, has_forbidden_routing};

/// The reason why octets are not an IPv6 packet that Teredo carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer octets than the fixed header.
    #[error("shorter than an IPv6 header")]
    Short,
    /// Another version than 6.
    #[error("not IPv6")]
    Version,
    /// The payload length reaches beyond the octets present.
    #[error("cut short")]
    Truncated,
    /// Payload length zero with hop-by-hop options: a jumbogram (W-05).
    #[error("jumbogram")]
    Jumbogram,
}

/// A view of the fixed header of a complete packet.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; IPV6_HEADER]);

impl<'a> Header<'a> {
    /// Checks version and lengths (W-03, W-05). Octets after the packet are allowed.
    ///
    /// # Errors
    ///
    /// Returns the reason if the octets do not begin with a packet that Teredo carries.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Malformed> {
        let header = Self(octets.first_chunk().ok_or(Malformed::Short)?);
        if header.0[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        if header.packet_length() > octets.len() {
            return Err(Malformed::Truncated);
        }
        if header.payload_length() == 0 && header.next_header() == HOP_BY_HOP {
            return Err(Malformed::Jumbogram);
        }
        Ok(header)
    }

    /// Returns the number of octets after the fixed header.
    pub const fn payload_length(self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Returns the length of the packet in octets, with the fixed header.
    pub const fn packet_length(self) -> usize {
        IPV6_HEADER + self.payload_length() as usize
    }

    /// Returns the protocol number of the header that follows.
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Returns the hop limit: the number of routers that the packet may still pass.
    pub const fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Returns the ECN field of the traffic class, 0 to 3 (RFC 3168).
    pub const fn congestion(self) -> u8 {
        self.0[1] >> 4 & 3
    }

    /// Returns the source address.
    pub fn source(self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.0[8..24]);
        address
    }

    /// Returns the destination address.
    pub fn destination(self) -> [u8; 16] {
        let mut address = [0; 16];
        address.copy_from_slice(&self.0[24..]);
        address
    }

    /// Returns `true` if the packet is a bubble: nothing follows the header, and it says so (W-04).
    /// Its hop limit may be anything (W-13).
    pub const fn is_bubble(self) -> bool {
        self.next_header() == NO_NEXT_HEADER && self.payload_length() == 0
    }
}

/// Builds the fixed header in front of `payload_length` octets.
pub fn header(
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: &[u8; 16],
    destination: &[u8; 16],
) -> [u8; IPV6_HEADER] {
    let mut octets = [0; IPV6_HEADER];
    octets[0] = 0x60;
    octets[4..6].copy_from_slice(&payload_length.to_be_bytes());
    octets[6] = next_header;
    octets[7] = hop_limit;
    octets[8..24].copy_from_slice(source);
    octets[24..].copy_from_slice(destination);
    octets
}

/// Marks a packet as having met congestion (RFC 3168).
pub fn set_congestion_experienced(packet: &mut [u8]) {
    if let Some(octet) = packet.get_mut(1) {
        *octet |= 0x30;
    }
}

/// Decrements the hop limit of a packet, which is not zero.
pub fn decrement_hop_limit(packet: &mut [u8]) {
    if let Some(octet) = packet.get_mut(7) {
        *octet = octet.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::octets;
    use proptest::prelude::*;
    use teredo_common::wire::{ICMPV6, UDP};

    const V14: &str = "60000000000c3a15 2001000041379e508000f12ab9c82815 \
        20014860000020010000000000000068 8000c57cd373b69b53aa0126";

    #[test]
    fn v14_header_and_transport() {
        let packet = octets(V14);
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.packet_length(), packet.len());
        assert_eq!((header.next_header(), header.hop_limit()), (ICMPV6, 21));
        assert_eq!(header.source()[..], packet[8..24]);
        assert_eq!(header.destination()[..], packet[24..40]);
        assert!(!header.is_bubble());
    }

    #[test]
    fn w03_lengths_and_version() {
        let packet = octets(V14);
        let error = |octets: &[u8]| Header::parse(octets).unwrap_err();
        assert_eq!(error(&packet[..39]), Malformed::Short);
        assert_eq!(error(&packet[..51]), Malformed::Truncated);
        let mut version = packet.clone();
        version[0] = 0x45;
        assert_eq!(error(&version), Malformed::Version);
        let mut longer = packet.clone();
        longer.extend([5, 2, 4, 0xb1]);
        assert_eq!(Header::parse(&longer).unwrap().packet_length(), 52);
    }

    #[test]
    fn w04_bubble_needs_both_marks() {
        let mut packet = octets(V14);
        packet[6] = NO_NEXT_HEADER;
        assert!(!Header::parse(&packet).unwrap().is_bubble());
        packet[4..6].fill(0);
        assert!(Header::parse(&packet).unwrap().is_bubble());
        packet[6] = UDP;
        assert!(!Header::parse(&packet).unwrap().is_bubble());
    }

    #[test]
    fn w05_no_jumbograms() {
        let packet = header(0, HOP_BY_HOP, 1, &[1; 16], &[2; 16]);
        assert_eq!(Header::parse(&packet).unwrap_err(), Malformed::Jumbogram);
    }

    #[test]
    fn congestion_bits() {
        let mut packet = header(0, NO_NEXT_HEADER, 1, &[1; 16], &[2; 16]);
        packet[1] = 0xcf;
        assert_eq!(Header::parse(&packet).unwrap().congestion(), 0);
        packet[1] = 0x10;
        assert_eq!(Header::parse(&packet).unwrap().congestion(), 1);
        set_congestion_experienced(&mut packet);
        assert_eq!(packet[1], 0x30);
        assert_eq!(Header::parse(&packet).unwrap().congestion(), 3);
    }

    proptest! {
        #[test]
        fn any_octets_are_parsed_without_panic(octets in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(header) = Header::parse(&octets) {
                prop_assert!(header.packet_length() <= octets.len());
            }
        }
    }
}
