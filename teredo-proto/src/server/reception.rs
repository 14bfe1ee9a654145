//! Datagrams in: what they are, and whether they are accepted (RFC 4380 section 5.3.1).

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    scope::may_be_source,
    time::Instant,
    wire::{ALL_ROUTERS, ECHO_REPLY, ECHO_REQUEST, ICMPV6, IPV6_HEADER, ROUTER_SOLICITATION},
};

use super::{
    Route, Server, ServerAddress, Transmit,
    statistics::{DropReason, Service},
};
use crate::wire::{encapsulation, ipv6::Header, router};

/// Octets of an echo message without data.
const ECHO_HEADER: u16 = 8;

/// What a server deals with (S-05, DEC-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bubble,
    Solicitation,
    EchoRequest,
    EchoReply,
}

/// A packet that passed the checks so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'p> {
    pub from: Endpoint,
    pub header: Header<'p>,
    /// As long as its header says.
    pub octets: &'p [u8],
    pub trailers: &'p [u8],
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub kind: Kind,
}

impl Server {
    /// Handles the payload of a UDP datagram that arrived at the address `to` of the server, whole
    /// and with its checksum verified.
    ///
    /// Returns the packet to send because of it, if any. Limits come last: a packet that is refused
    /// for any other reason takes no token.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        to: ServerAddress,
        from: Endpoint,
        payload: &[u8],
    ) -> Option<Transmit<'_>> {
        let mut output = self.room();
        let outcome = self.receive(now, to, from, payload, &mut output);
        self.finish(output, outcome)
    }

    /// The order is that of S-03.
    fn receive(
        &mut self,
        now: Instant,
        to: ServerAddress,
        from: Endpoint,
        payload: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        let parts = encapsulation::parse(payload).map_err(|_| DropReason::Malformed)?;
        let header = Header::parse(parts.packet).map_err(|_| DropReason::Malformed)?;
        let (source, destination) = (header.source(), header.destination());
        if self.own_ipv4.contains(from.address) {
            return Err(DropReason::OwnSource);
        }
        let is_solicitation = router::is_solicitation(header, parts.packet);
        if parts.origin.is_some() || parts.authentication.is_some() && !is_solicitation {
            return Err(DropReason::Element);
        }
        if source == destination {
            return Err(DropReason::SameAddresses);
        }
        if !self.is_allowed(from.address) {
            return Err(DropReason::AccessList);
        }
        if to == ServerAddress::Primary
            && let Some(lease) = self.tunnel.find(&source)
        {
            return self.receive_from_tunnel(now, lease, from, header, parts.packet, output);
        }
        let packet = Packet {
            from,
            header,
            octets: parts.packet,
            trailers: parts.trailers,
            source,
            destination,
            kind: self.kind(header, parts.packet)?,
        };
        if from.port() == 0 || !self.config.ipv4_scope.accepts(from.address) {
            return Err(DropReason::SourceScope);
        }
        if packet.kind == Kind::Solicitation {
            return self.advertise(now, to, &packet, parts.authentication, output);
        }
        if to == ServerAddress::Secondary {
            return Err(DropReason::SecondaryAddress);
        }
        self.accept(&packet)?;
        self.deliver(now, &packet, output)
    }

    /// Rule 2 (S-05): nothing but bubbles, solicitations and echo, and no large ones.
    fn kind(&self, header: Header<'_>, packet: &[u8]) -> Result<Kind, DropReason> {
        if header.is_bubble() {
            return Ok(Kind::Bubble);
        }
        let length = header.payload_length();
        if header.next_header() != ICMPV6 {
            return Err(DropReason::Protocol);
        }
        if length > self.config.icmpv6_payload {
            return Err(DropReason::Icmpv6Size);
        }
        match packet.get(IPV6_HEADER) {
            Some(&ROUTER_SOLICITATION) => Ok(Kind::Solicitation),
            Some(&ECHO_REQUEST) if length >= ECHO_HEADER => Ok(Kind::EchoRequest),
            Some(&ECHO_REPLY) if length >= ECHO_HEADER => Ok(Kind::EchoReply),
            _ => Err(DropReason::Icmpv6Type),
        }
    }

    /// Rules 5 to 7 (S-08 to S-10): packets of clients from where they are, and packets of others
    /// to clients of this server.
    fn accept(&self, packet: &Packet<'_>) -> Result<(), DropReason> {
        if self.is_teredo(&packet.source) {
            if embedded_mapping(&packet.source) != packet.from {
                return Err(DropReason::SourceMapping);
            }
            return Ok(());
        }
        if !self.is_teredo(&packet.destination) || !self.is_own_client(&packet.destination) {
            return Err(DropReason::NoClient);
        }
        if !may_be_source(&packet.source) {
            return Err(DropReason::Source);
        }
        if self.own_ipv4.leads_back(&packet.source) {
            return Err(DropReason::SourceLoop);
        }
        Ok(())
    }

    /// Whether a packet is for the server itself (S-11).
    pub(super) fn is_local(&self, destination: &[u8; 16]) -> bool {
        *destination == ALL_ROUTERS || *destination == self.link_local
    }
}
