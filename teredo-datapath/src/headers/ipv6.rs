//! The fixed IPv6 header (RFC 8200 section 3).

use teredo_common::wire::IPV6_HEADER;

use crate::frame::{Frame, Octets};

/// Offset of the payload length.
const PAYLOAD_LENGTH: usize = 4;
/// Offset of the next header.
const NEXT_HEADER: usize = 6;
/// Offset of the hop limit.
const HOP_LIMIT: usize = 7;
/// Offset of the source address.
const SOURCE: usize = 8;
/// Offset of the destination address.
const DESTINATION: usize = 24;

/// The header of an IPv6 packet.
#[derive(Clone, Copy)]
pub struct Ipv6(Octets<IPV6_HEADER>);

impl Ipv6 {
    /// ff02::2.
    const ALL_ROUTERS: [u64; 2] = [
        u64::from_ne_bytes([0xff, 2, 0, 0, 0, 0, 0, 0]),
        u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 2]),
    ];

    /// Returns the header at the start of `packet`, if the frame has one there.
    #[inline(always)]
    pub fn of(packet: Frame) -> Option<Self> {
        packet.first().map(Self)
    }

    /// Returns the first four bits, 6 in an IPv6 packet.
    #[inline(always)]
    pub fn version(self) -> u8 {
        self.0.read::<u8, 0>() >> 4
    }

    /// Returns the number of octets after the header.
    #[inline(always)]
    pub fn payload_length(self) -> usize {
        self.0.number::<PAYLOAD_LENGTH>()
    }

    /// Returns the protocol of the payload.
    #[inline(always)]
    pub fn next_header(self) -> u8 {
        self.0.read::<u8, NEXT_HEADER>()
    }

    /// Returns the hop limit.
    #[inline(always)]
    pub fn hop_limit(self) -> u8 {
        self.0.read::<u8, HOP_LIMIT>()
    }

    /// Returns the first eight octets: everything but the addresses.
    #[inline(always)]
    pub fn start(self) -> [u8; 8] {
        let [a, b, c, d] = self.0.read::<u32, 0>().to_ne_bytes();
        let [e, f, g, h] = self.0.read::<u32, 4>().to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Returns the first eight octets as one word in memory order.
    #[inline(always)]
    pub fn start_word(self) -> u64 {
        self.0.read::<u64, 0>()
    }

    /// Returns the source as two words in memory order.
    #[inline(always)]
    pub fn source(self) -> [u64; 2] {
        [
            self.0.read::<u64, SOURCE>(),
            self.0.read::<u64, { SOURCE + 8 }>(),
        ]
    }

    /// Returns the destination as two words in memory order.
    #[inline(always)]
    pub fn destination(self) -> [u64; 2] {
        [
            self.0.read::<u64, DESTINATION>(),
            self.0.read::<u64, { DESTINATION + 8 }>(),
        ]
    }

    /// Returns the source as four words in memory order.
    #[inline(always)]
    pub fn source_words(self) -> [u32; 4] {
        self.0.words::<SOURCE>()
    }

    /// Returns the destination as four words in memory order.
    #[inline(always)]
    pub fn destination_words(self) -> [u32; 4] {
        self.0.words::<DESTINATION>()
    }

    /// Returns the first word of the destination, which is a Teredo service prefix or not.
    #[inline(always)]
    pub fn destination_prefix(self) -> u32 {
        self.0.read::<u32, DESTINATION>()
    }

    /// Returns the port in a Teredo source address as it is there: obfuscated, network byte order.
    #[inline(always)]
    pub fn source_obfuscated_port(self) -> u16 {
        self.0.read::<u16, { SOURCE + 10 }>()
    }

    /// Whether the destination is ff02::2.
    #[inline(always)]
    pub fn is_to_all_routers(self) -> bool {
        self.destination() == Self::ALL_ROUTERS
    }
}

/// The first eight octets of an IPv6 header.
#[derive(Clone, Copy)]
pub struct Ipv6Start(Octets<8>);

impl Ipv6Start {
    /// Returns the view of octets in which a header starts.
    #[inline(always)]
    pub fn new(octets: Octets<8>) -> Self {
        Self(octets)
    }

    /// Replaces the hop limit.
    #[inline(always)]
    pub fn set_hop_limit(self, hop_limit: u8) {
        self.0.write::<u8, HOP_LIMIT>(hop_limit);
    }
}
