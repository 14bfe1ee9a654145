//! The fixed IPv6 header (RFC 8200 section 3).

use teredo_common::wire::IPV6_HEADER;

#[cfg(test)]
use crate::words::join;
use crate::{
    frame::{Frame, Octets},
    words::split,
};

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
    pub const ALL_ROUTERS: [u64; 2] = [
        u64::from_ne_bytes([0xff, 2, 0, 0, 0, 0, 0, 0]),
        u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 2]),
    ];

    /// Returns the header at the start of `packet`, if the frame has one there.
    #[inline(always)]
    pub fn of(packet: Frame) -> Option<Self> {
        packet.first().map(Self)
    }

    /// Returns the view of octets that are a header.
    #[inline(always)]
    pub fn new(octets: Octets<IPV6_HEADER>) -> Self {
        Self(octets)
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

    /// Whether the payload has this length.
    #[inline(always)]
    pub fn has_payload(self, length: u16) -> bool {
        self.0.read::<u16, PAYLOAD_LENGTH>() == length.to_be()
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

    /// Returns the source as the address of a peer.
    #[inline(always)]
    pub fn teredo_source(self) -> TeredoAddress {
        TeredoAddress {
            prefix: self.0.read::<u32, SOURCE>(),
            middle: self.0.read::<u64, { SOURCE + 4 }>(),
            client: self.0.read::<u32, { SOURCE + 12 }>(),
        }
    }

    /// Returns the destination as the address of a peer.
    #[inline(always)]
    pub fn teredo_destination(self) -> TeredoAddress {
        TeredoAddress {
            prefix: self.0.read::<u32, DESTINATION>(),
            middle: self.0.read::<u64, { DESTINATION + 4 }>(),
            client: self.0.read::<u32, { DESTINATION + 12 }>(),
        }
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

    /// Returns the first word of the source, which is a Teredo service prefix or not.
    #[inline(always)]
    pub fn source_prefix(self) -> u32 {
        self.0.read::<u32, SOURCE>()
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

/// A Teredo address, in words as they lie in memory.
#[derive(Clone, Copy)]
pub struct TeredoAddress {
    /// The service prefix.
    pub prefix: u32,
    /// The server, the flags, and the obfuscated port.
    pub middle: u64,
    /// The obfuscated IPv4 address of the client.
    pub client: u32,
}

impl TeredoAddress {
    /// Returns the address with these words.
    #[cfg(test)]
    pub fn new([prefix, server, flags_and_port, client]: [u32; 4]) -> Self {
        Self {
            prefix,
            middle: join(server, flags_and_port),
            client,
        }
    }

    /// Returns its words.
    #[inline(always)]
    pub fn words(self) -> [u32; 4] {
        let (server, flags_and_port) = split(self.middle);
        [self.prefix, server, flags_and_port, self.client]
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
