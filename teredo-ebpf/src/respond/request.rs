//! A datagram to the server, up to and with its IPv6 header.

use teredo_common::{
    address::Endpoint,
    checksum::Sum,
    respond::Server,
    verdict::Verdict,
    wire::{IPV6_HEADER, UDP, UDP_HEADER},
};

use super::server;
use crate::{
    maps,
    outer::{self, FRAGMENTED, OUTER},
    packet::{Frame, Octets},
    settings,
};

/// A datagram whose outer headers are right.
#[derive(Clone, Copy)]
pub struct Request {
    /// The frame that it came in.
    pub frame: Frame,
    /// Ethernet, IPv4 and UDP header.
    pub outer: Octets<OUTER>,
    /// The IPv4 address that it comes from, network byte order.
    pub source: u32,
    /// The UDP port that it comes from, network byte order.
    source_port: u16,
    /// The server's address that it was sent to, network byte order.
    pub local: u32,
    /// Octets of UDP payload.
    length: usize,
}

/// Whether this is UDP to the server that neither options nor fragmentation keep from being read.
#[inline(always)]
pub fn is_for_server(outer: Octets<OUTER>) -> bool {
    let local = outer.read::<u32, 30>();
    outer.read::<u8, 23>() == UDP
        && (local == server::primary() || local == server::secondary())
        && outer.read::<u8, 14>() == 0x45
        && outer.read::<u16, 20>() & FRAGMENTED == 0
        && outer.read::<u16, 36>() == server::port()
}

impl Request {
    /// Checks the outer headers.
    #[inline(always)]
    pub fn read(frame: Frame, outer: Octets<OUTER>) -> Result<Self, Verdict> {
        let source_port = outer.read::<u16, 34>();
        if outer.read::<u8, 22>() == 0 || source_port == 0 {
            return Err(Verdict::RespondHeader);
        }
        if !outer::is_header_valid(outer) {
            return Err(Verdict::RespondHeaderChecksum);
        }
        let (datagram, _) = outer::lengths(frame, outer).ok_or(Verdict::RespondLength)?;
        let length = datagram.wrapping_sub(UDP_HEADER);
        if (length as isize) < 0 {
            return Err(Verdict::RespondLength);
        }
        let source = outer.read::<u32, 26>();
        if is_own(source) {
            return Err(Verdict::RespondOwnSource);
        }
        Ok(Self {
            frame,
            outer,
            source,
            source_port,
            local: outer.read::<u32, 30>(),
            length,
        })
    }

    /// The IPv6 header after `OFFSET` octets of payload.
    #[inline(always)]
    pub fn head<const OFFSET: usize>(self) -> Result<Head, Verdict> {
        let octets = self
            .frame
            .skip::<OUTER>()
            .skip::<OFFSET>()
            .first::<IPV6_HEADER>()
            .ok_or(Verdict::RespondMalformed)?;
        let head = Head { octets };
        let needed = OFFSET + IPV6_HEADER + head.payload_length();
        if octets.read::<u8, 0>() >> 4 != 6 || needed > self.length {
            return Err(Verdict::RespondMalformed);
        }
        Ok(head)
    }

    /// Whether nothing follows the IPv6 packet that starts after `offset` octets of payload.
    #[inline(always)]
    pub fn ends_with(self, head: Head, offset: usize) -> bool {
        offset + IPV6_HEADER + head.payload_length() == self.length
    }

    /// Whether the server serves the source.
    #[inline(always)]
    pub fn check_source(self) -> Result<(), Verdict> {
        let source = self.source.to_ne_bytes();
        if !server::scope().accepts(source) {
            return Err(Verdict::RespondSourceScope);
        }
        if server::has(Server::ALLOWS_SOME) && !maps::is_allowed(source) {
            return Err(Verdict::RespondNotAllowed);
        }
        Ok(())
    }

    /// Where the datagram comes from.
    #[inline(always)]
    pub fn mapped(self) -> Endpoint {
        Endpoint {
            address: self.source.to_ne_bytes(),
            port: self.source_port.to_ne_bytes(),
        }
    }

    /// Whether the datagram came to the secondary address.
    #[inline(always)]
    pub fn is_to_secondary(self) -> bool {
        self.local == server::secondary()
    }

    /// Whether a relay receives at the same endpoint.
    #[inline(always)]
    pub fn is_for_relay(self) -> bool {
        server::shares_its_port() && !self.is_to_secondary()
    }

    /// Whether the UDP checksum is right for a payload of this sum, or absent.
    #[inline(always)]
    pub fn is_intact(self, payload: Sum) -> bool {
        let checksum = self.outer.read::<u16, 40>();
        checksum == 0
            || outer::udp_sum(
                self.mapped(),
                server::endpoint(self.local),
                (UDP_HEADER + self.length) as u16,
            )
            .add_2(checksum.to_ne_bytes())
            .add_sum(payload)
            .is_valid()
    }
}

/// Whether this host has the IPv4 address.
#[inline(always)]
pub fn is_own(address: u32) -> bool {
    address == server::primary()
        || address == server::secondary()
        || (settings::has_relay() && address == settings::relay_address())
        || maps::is_own_ipv4(address.to_ne_bytes())
}

/// An IPv6 header whose packet lies within the datagram.
#[derive(Clone, Copy)]
pub struct Head {
    octets: Octets<IPV6_HEADER>,
}

impl Head {
    /// ff02::2.
    const ALL_ROUTERS: [u64; 2] = [
        u64::from_ne_bytes([0xff, 2, 0, 0, 0, 0, 0, 0]),
        u64::from_ne_bytes([0, 0, 0, 0, 0, 0, 0, 2]),
    ];

    /// Octets after the header.
    #[inline(always)]
    pub fn payload_length(self) -> usize {
        self.octets.number::<4>()
    }

    /// What comes after the header.
    #[inline(always)]
    pub fn next_header(self) -> u8 {
        self.octets.read::<u8, 6>()
    }

    /// The hop limit.
    #[inline(always)]
    pub fn hop_limit(self) -> u8 {
        self.octets.read::<u8, 7>()
    }

    /// The first eight octets.
    #[inline(always)]
    pub fn first(self) -> u64 {
        self.octets.read::<u64, 0>()
    }

    /// The source, as it lies in memory.
    #[inline(always)]
    pub fn source(self) -> [u64; 2] {
        [self.octets.read::<u64, 8>(), self.octets.read::<u64, 16>()]
    }

    /// The destination, as it lies in memory.
    #[inline(always)]
    pub fn destination(self) -> [u64; 2] {
        [self.octets.read::<u64, 24>(), self.octets.read::<u64, 32>()]
    }

    /// The source in words of four octets.
    #[inline(always)]
    pub fn source_words(self) -> [u32; 4] {
        self.octets.words::<8>()
    }

    /// The destination in words of four octets.
    #[inline(always)]
    pub fn destination_words(self) -> [u32; 4] {
        self.octets.words::<24>()
    }

    /// Whether the destination is ff02::2.
    #[inline(always)]
    pub fn is_to_all_routers(self) -> bool {
        self.destination() == Self::ALL_ROUTERS
    }
}

/// Adds eight octets twice.
#[inline(always)]
pub fn add_16(sum: Sum, [a, b]: [u64; 2]) -> Sum {
    sum.add_8(a.to_ne_bytes()).add_8(b.to_ne_bytes())
}
