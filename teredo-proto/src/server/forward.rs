//! Where accepted packets go: to the server itself, to a client, or to native IPv6 (RFC 4380
//! section 5.3.1).

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    prefixes::TeredoPrefixes,
    scope::is_global_unicast,
    time::Instant,
    wire::MAX_TRAILERS,
};

use super::{
    Route, Server, ServerAddress, Transmit,
    reception::{Kind, Packet},
    statistics::{DropReason, Service},
};
use crate::wire::{
    icmpv6,
    ipv6::{self, Header},
};

/// The hop limit of a packet that no router may forward.
const LAST_HOP: u8 = 1;

impl Server {
    /// Handles a bubble of the relay in the same process, at the endpoint `relay`, to a client of this
    /// server (S-30). It would arrive as an indirect bubble if the two were not one host. The relay
    /// has limits of its own.
    ///
    /// Returns the packet to send because of it, if any.
    pub fn handle_relay_bubble(
        &mut self,
        now: Instant,
        relay: Endpoint,
        bubble: &[u8],
    ) -> Option<Transmit<'_>> {
        let mut output = self.room();
        let outcome = self.forward_for_relay(now, relay, bubble, &mut output);
        self.finish(output, outcome)
    }

    fn forward_for_relay(
        &mut self,
        now: Instant,
        relay: Endpoint,
        bubble: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        let header = Header::parse(bubble).map_err(|_| DropReason::Malformed)?;
        let destination = header.destination();
        if !header.is_bubble() {
            return Err(DropReason::Protocol);
        }
        if !self.is_teredo(&destination) || !self.is_own_client(&destination) {
            return Err(DropReason::NoClient);
        }
        let to = self.client_at(&destination)?;
        if self.is_stopped(now) {
            return Err(DropReason::Draining);
        }
        output.extend_from_slice(&relay.origin_indication());
        output.extend_from_slice(&bubble[..header.packet_length()]);
        Ok((Service::RelayBubbleForwarded, datagram(to)))
    }

    /// Destination rules (S-11 to S-16).
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        if self.is_local(&packet.destination) {
            return self.answer_echo(now, packet, output);
        }
        if !is_global_unicast(&packet.destination) {
            return Err(DropReason::DestinationScope);
        }
        if self.is_teredo(&packet.destination) {
            return self.forward(now, packet, output);
        }
        self.send_native(now, packet, output)
    }

    /// S-11: the reply goes to where the request came from.
    fn answer_echo(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        if !icmpv6::echo_reply(&self.link_local, packet.octets, output) {
            return Err(DropReason::Local);
        }
        self.admit(now, packet.from)
            .inspect_err(|_| output.clear())?;
        Ok((Service::EchoAnswered, datagram(packet.from)))
    }

    /// S-14 to S-16: unchanged, with the origin indication for clients of this server.
    fn forward(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        let to = self.client_at(&packet.destination)?;
        let is_own_client = self.is_own_client(&packet.destination);
        if !is_own_client && !self.config.forward_foreign {
            return Err(DropReason::DestinationForeign);
        }
        let (service, trailers) = match packet.kind {
            Kind::Bubble => (Service::BubbleForwarded, packet.trailers),
            // Trailers mean nothing behind other packets.
            _ => (Service::EchoForwarded, &[][..]),
        };
        if trailers.len() > MAX_TRAILERS {
            return Err(DropReason::Trailers);
        }
        self.admit(now, packet.from)?;
        if is_own_client {
            output.extend_from_slice(&packet.from.origin_indication());
        }
        output.extend_from_slice(packet.octets);
        output.extend_from_slice(trailers);
        Ok((service, datagram(to)))
    }

    /// S-13: connectivity tests of clients, as a router would send them on.
    fn send_native(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        output: &mut Vec<u8>,
    ) -> Result<(Service, Route), DropReason> {
        let is_test = match packet.kind {
            Kind::EchoRequest => self.config.forward_echo,
            Kind::EchoReply => self.config.forward_echo_reply,
            Kind::Bubble | Kind::Solicitation => false,
        };
        if !is_test {
            return Err(DropReason::NotEcho);
        }
        if TeredoPrefixes::STANDARD.contains(&packet.destination) {
            return Err(DropReason::DestinationScope);
        }
        if self.own_ipv4.leads_back(&packet.destination) {
            return Err(DropReason::DestinationLoop);
        }
        if packet.header.hop_limit() <= LAST_HOP {
            return Err(DropReason::HopLimit);
        }
        if !self.native_reachable {
            return Err(DropReason::NoRoute);
        }
        self.admit(now, packet.from)?;
        output.extend_from_slice(packet.octets);
        ipv6::decrement_hop_limit(output);
        Ok((Service::EchoNative, Route::Native))
    }

    /// The endpoint in a Teredo address, if something may be sent there (S-14, L-02).
    fn client_at(&self, address: &[u8; 16]) -> Result<Endpoint, DropReason> {
        let mapped = embedded_mapping(address);
        if !self.own_ipv4.may_send_to(mapped) {
            return Err(DropReason::DestinationMapping);
        }
        Ok(mapped)
    }
}

/// Everything but advertisements leaves from the primary address.
pub(super) const fn datagram(to: Endpoint) -> Route {
    Route::Datagram {
        from: ServerAddress::Primary,
        to,
    }
}
