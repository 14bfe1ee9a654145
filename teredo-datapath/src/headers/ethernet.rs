//! The Ethernet header without VLAN tags.

use teredo_common::wire::{
    ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN,
};

use crate::frame::{Frame, Octets};

/// Offset of the destination address.
const DESTINATION: usize = 0;
/// Offset of the source address.
const SOURCE: usize = 6;
/// Offset of the EtherType.
const ETHERTYPE: usize = 12;

/// The Ethernet header of a frame.
#[derive(Clone, Copy)]
pub struct Ethernet(Octets<ETHERNET_HEADER>);

impl Ethernet {
    /// Returns the header of a frame, if the frame has one.
    #[inline(always)]
    pub fn of(frame: Frame) -> Option<Self> {
        frame.first().map(Self)
    }

    /// Returns the view of octets that are to become a header.
    #[inline(always)]
    pub fn new(octets: Octets<ETHERNET_HEADER>) -> Self {
        Self(octets)
    }

    /// Whether the frame carries IPv4.
    #[inline(always)]
    pub fn is_ipv4(self) -> bool {
        self.0.read::<u16, ETHERTYPE>() == ETHERTYPE_IPV4.to_be()
    }

    /// Whether the frame carries IPv6.
    #[inline(always)]
    pub fn is_ipv6(self) -> bool {
        self.0.read::<u16, ETHERTYPE>() == ETHERTYPE_IPV6.to_be()
    }

    /// Whether a VLAN tag follows the addresses.
    #[inline(always)]
    pub fn is_tagged(self) -> bool {
        is_tag(self.0.read::<u16, ETHERTYPE>())
    }

    /// Whether the destination is this address, given as its first four and its last two octets.
    #[inline(always)]
    pub fn is_to(self, first: u32, last: u16) -> bool {
        self.0.read::<u32, DESTINATION>() == first
            && self.0.read::<u16, { DESTINATION + 4 }>() == last
    }

    /// Returns the addresses of a frame that goes back to the sender of this one.
    #[inline(always)]
    pub fn reversed(self) -> Addresses {
        let [a, b, c, d] = self.0.read::<u32, SOURCE>().to_ne_bytes();
        let [e, f] = self.0.read::<u16, { SOURCE + 4 }>().to_ne_bytes();
        let [g, h] = self.0.read::<u16, DESTINATION>().to_ne_bytes();
        Addresses {
            first: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            rest: self.0.read::<u32, { DESTINATION + 2 }>(),
        }
    }

    /// Writes the whole header.
    #[inline(always)]
    pub fn write(self, addresses: Addresses, ethertype: u16) {
        addresses.write(self.0.part::<0, ADDRESSES>());
        self.0.write::<u16, ETHERTYPE>(ethertype.to_be());
    }
}

/// Whether a VLAN tag begins with this number, network byte order.
#[inline(always)]
pub fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN.to_be() || ethertype == ETHERTYPE_SERVICE_VLAN.to_be()
}

/// Octets of both addresses.
pub const ADDRESSES: usize = ETHERTYPE;

/// Destination and source address of a frame, in two words as they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The first eight octets.
    pub first: u64,
    /// The others.
    pub rest: u32,
}

impl Addresses {
    /// Returns the words of two addresses.
    #[must_use]
    #[inline(always)]
    pub const fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (destination, source);
        Self {
            first: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            rest: u32::from_ne_bytes([i, j, k, l]),
        }
    }

    /// Returns the addresses at the start of a frame.
    #[inline(always)]
    pub fn read(start: Octets<ADDRESSES>) -> Self {
        Self {
            first: start.read::<u64, DESTINATION>(),
            rest: start.read::<u32, { DESTINATION + 8 }>(),
        }
    }

    /// Writes them to the start of a frame.
    #[inline(always)]
    pub fn write(self, start: Octets<ADDRESSES>) {
        start.write::<u64, DESTINATION>(self.first);
        start.write::<u32, { DESTINATION + 8 }>(self.rest);
    }

    /// Returns the destination.
    #[inline(always)]
    pub fn destination(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.first.to_ne_bytes();
        [a, b, c, d, e, f]
    }
}
