//! A datagram to the server, up to and with its IPv6 header.

use teredo_common::{
    address::Endpoint,
    checksum::Sum,
    respond::ServerConstants,
    verdict::Verdict,
    wire::{IPV6_HEADER, UDP_HEADER},
};

use super::server;
use crate::{
    environment::Environment,
    frame::Frame,
    headers::{Ipv6, OUTER, Outer, udp_sum},
    maps, settings,
};

/// A datagram whose outer headers are right.
#[derive(Clone, Copy)]
pub struct Request {
    /// The frame of the datagram.
    pub frame: Frame,
    /// Ethernet, IPv4 and UDP header.
    pub outer: Outer,
    /// The IPv4 source, network byte order.
    pub source: u32,
    /// The UDP source port, network byte order.
    source_port: u16,
    /// The IPv4 destination, which is one of the server's addresses, network byte order.
    pub local: u32,
    /// Octets of UDP payload.
    length: usize,
}

/// Whether this is a UDP datagram to the server, without IPv4 options and not fragmented.
#[inline(always)]
pub fn is_for_server(environment: &impl Environment, outer: Outer) -> bool {
    let local = outer.destination();
    outer.is_udp()
        && (local == server::primary(environment) || local == server::secondary(environment))
        && !outer.has_options()
        && !outer.is_fragment()
        && outer.destination_port() == server::port(environment)
}

impl Request {
    /// Checks the outer headers.
    #[inline(always)]
    pub fn read(
        environment: &impl Environment,
        frame: Frame,
        outer: Outer,
    ) -> Result<Self, Verdict> {
        let source_port = outer.source_port();
        if outer.time_to_live() == 0 || source_port == 0 {
            return Err(Verdict::RespondHeader);
        }
        if !outer.is_ipv4_valid() {
            return Err(Verdict::RespondHeaderChecksum);
        }
        let (datagram, _) = outer.lengths(frame).ok_or(Verdict::RespondLength)?;
        let length = datagram.wrapping_sub(UDP_HEADER);
        if (length as isize) < 0 {
            return Err(Verdict::RespondLength);
        }
        let source = outer.source();
        if is_own(environment, source) {
            return Err(Verdict::RespondOwnSource);
        }
        Ok(Self {
            frame,
            outer,
            source,
            source_port,
            local: outer.destination(),
            length,
        })
    }

    /// Returns the IPv6 header after `OFFSET` octets of payload, if its packet lies within the datagram.
    #[inline(always)]
    pub fn ipv6<const OFFSET: usize>(self) -> Result<Ipv6, Verdict> {
        let packet = self.frame.skip::<OUTER>().skip::<OFFSET>();
        let ipv6 = Ipv6::of(packet).ok_or(Verdict::RespondMalformed)?;
        let needed = OFFSET + IPV6_HEADER + ipv6.payload_length();
        if ipv6.version() != 6 || needed > self.length {
            return Err(Verdict::RespondMalformed);
        }
        Ok(ipv6)
    }

    /// Whether nothing follows the IPv6 packet that starts after `offset` octets of payload.
    #[inline(always)]
    pub fn ends_with(self, ipv6: Ipv6, offset: usize) -> bool {
        offset + IPV6_HEADER + ipv6.payload_length() == self.length
    }

    /// Whether the server serves the source.
    #[inline(always)]
    pub fn check_source(self, environment: &impl Environment) -> Result<(), Verdict> {
        let source = self.source.to_ne_bytes();
        if !server::scope(environment).accepts(source) {
            return Err(Verdict::RespondSourceScope);
        }
        if server::has(environment, ServerConstants::ALLOWS_SOME) && !environment.is_allowed(source)
        {
            return Err(Verdict::RespondNotAllowed);
        }
        Ok(())
    }

    /// Returns the source of the datagram, which is the client's mapping.
    #[inline(always)]
    pub fn mapped(self) -> Endpoint {
        Endpoint {
            address: self.source.to_ne_bytes(),
            port: self.source_port.to_ne_bytes(),
        }
    }

    /// Whether the datagram came to the secondary address.
    #[inline(always)]
    pub fn is_to_secondary(self, environment: &impl Environment) -> bool {
        self.local == server::secondary(environment)
    }

    /// Whether a relay receives at the same endpoint.
    #[inline(always)]
    pub fn is_for_relay(self, environment: &impl Environment) -> bool {
        server::shares_its_port(environment) && !self.is_to_secondary(environment)
    }

    /// Whether the UDP checksum is right for a payload of this sum, or absent.
    #[inline(always)]
    pub fn is_intact(self, environment: &impl Environment, payload: Sum) -> bool {
        let checksum = self.outer.checksum();
        checksum == 0
            || udp_sum(
                self.mapped(),
                server::endpoint(environment, self.local),
                (UDP_HEADER + self.length) as u16,
            )
            .add_2(checksum.to_ne_bytes())
            .add_sum(payload)
            .is_valid()
    }
}

/// Whether this host has the IPv4 address.
#[inline(always)]
pub fn is_own(environment: &impl Environment, address: u32) -> bool {
    address == server::primary(environment)
        || address == server::secondary(environment)
        || (settings::has_relay(environment) && address == settings::relay_address(environment))
        || maps::is_own_ipv4(environment, address.to_ne_bytes())
}

/// Adds eight octets twice.
#[inline(always)]
pub fn add_16(sum: Sum, [a, b]: [u64; 2]) -> Sum {
    sum.add_8(a.to_ne_bytes()).add_8(b.to_ne_bytes())
}
