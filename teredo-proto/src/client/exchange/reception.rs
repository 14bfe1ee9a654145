//! From peers: UDP payloads in, IPv6 packets out (RFC 4380 section 5.2.3).

use teredo_common::{address::Endpoint, scope::is_global_unicast, time::Instant, wire::ICMPV6};

use super::{Exchange, Shared};
use crate::{
    client::statistics::DropReason,
    shared::peers::{Full, GAP, PeerIndex},
    wire::{
        encapsulation::Encapsulation,
        ipv6::{self, Header},
        router, trailer,
    },
};

impl Exchange {
    /// Handles a datagram that arrived at the service port or one of the ports that this half
    /// opened, and is not an advertisement at the service port. Returns the length of the inner
    /// packet if the host is to have it now.
    pub fn handle_datagram(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: u16,
        from: Endpoint,
        parts: &Encapsulation<'_>,
    ) -> Result<Option<usize>, DropReason> {
        let Some(identity) = &self.identity else {
            return Err(DropReason::NotQualified);
        };
        let (server, is_tunnel) = (identity.server.primary(), identity.tunnel);
        let header = Header::parse(parts.packet).map_err(|_| DropReason::Malformed)?;
        if to != shared.config.port {
            if router::is_advertisement(header, parts.packet) {
                return self
                    .handle_echo(shared, now, to, from, parts)
                    .map(|()| None);
            }
            self.check_port(shared, to, &header.source())?;
        }
        if header.destination() != self.own {
            return Err(DropReason::Destination);
        }
        if !parts.trailers.is_empty()
            && trailer::parse(parts.trailers).any(|trailer| trailer.is_err())
        {
            return Err(DropReason::Trailer);
        }
        let is_from_server = from == server;
        if is_tunnel {
            return match is_from_server {
                true => deliver(header, parts.packet).map(Some),
                false => Err(DropReason::Tunnel),
            };
        }
        if !is_from_server && (parts.origin.is_some() || parts.authentication.is_some()) {
            return Err(DropReason::ServerElement);
        }
        let source = header.source();
        if header.is_bubble() {
            if is_from_server {
                self.receive_indirect(shared, now, &source, parts)?;
            } else {
                self.receive_direct(shared, now, to, from, &source, parts)?;
            }
            return Ok(None);
        }
        let length = deliver(header, parts.packet)?;
        let origin = parts.origin.filter(|_| is_from_server);
        let is_now = self.accept(shared, now, to, from, origin, header, parts.packet)?;
        Ok(is_now.then_some(length))
    }

    /// Applies the rules for packets in their order. Returns whether the host is to have the packet
    /// now; `false` if it was consumed or held.
    #[expect(clippy::too_many_arguments, reason = "all that is known of a datagram")]
    fn accept(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        to: u16,
        from: Endpoint,
        origin: Option<Endpoint>,
        header: Header<'_>,
        packet: &[u8],
    ) -> Result<bool, DropReason> {
        let source = header.source();
        let found = self.peers.find(&source);
        if let Some(index) = found {
            // Rules 1 and 2, and answers that the server forwards (C-36 to C-38).
            let relay = origin.unwrap_or(from);
            if header.next_header() == ICMPV6
                && self.handle_answer(shared, now, index, relay, packet)?
            {
                return Ok(false);
            }
            let peer = &self.peers[index];
            if peer.is_trusted() && peer.mapped == from {
                let port = peer.state.port;
                let state = &mut self.peers[index].state;
                state.is_talking = true;
                state.unanswered_since = None;
                self.trust(shared, now, index, port, from);
                self.peers
                    .traffic_mut(index)
                    .decap
                    .add(header.packet_length());
                return Ok(true);
            }
        }
        if shared.config.prefix.contains(&source) {
            // Rules 3 and 5 (C-39, C-40).
            let index = self.prove(shared, now, from, &source, None)?;
            self.trust(shared, now, index, to, from);
            self.peers
                .traffic_mut(index)
                .decap
                .add(header.packet_length());
            return Ok(true);
        }
        if shared.config.is_foreign(&source) {
            return Err(DropReason::Source);
        }
        if let Some(index) = found {
            let peer = &self.peers[index];
            let is_held_elsewhere = !peer.state.held.is_empty() && peer.state.held_from != from;
            if peer.is_trusted() || is_held_elsewhere {
                self.peers[index].state.elsewhere = Some((from, now));
            }
        }
        self.hold(shared, now, found, from, &source, packet)?;
        Ok(false)
    }

    /// Holds a packet of a native host, and tests the host, if the host was sent something, or the
    /// packet comes from a known relay: rule 6 (C-41).
    fn hold(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        found: Option<PeerIndex>,
        from: Endpoint,
        source: &[u8; 16],
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if !self.may_reach(shared, from) {
            return Err(DropReason::SourceScope);
        }
        let is_awaited = found.is_some_and(|index| {
            let peer = &self.peers[index];
            peer.is_asked() || peer.last_sent != Instant::ZERO
        });
        let is_known = self.relays.knows(from, now);
        if !is_awaited && !is_known && !shared.config.accept_unsolicited {
            return Err(DropReason::Unsolicited);
        }
        let index = self.admit(shared, *source)?;
        let is_asked = self.peers[index].is_asked();
        let contact = &mut self.peers[index].state;
        if contact.held.is_empty() {
            contact.held_from = from;
        } else if contact.held_from != from {
            return Err(DropReason::HeldElsewhere);
        }
        let is_tested =
            (contact.tests.as_ref()).is_some_and(|tests| now.saturating_since(tests.last()) < GAP);
        if !is_asked && is_tested {
            return Err(DropReason::Unsolicited);
        }
        let pushed = self.held.push(now, &mut contact.held, packet);
        if !is_asked {
            self.start_procedure(shared, now, index);
        }
        pushed.map_err(|full| match full {
            Full::Peer => DropReason::QueuePeer,
            Full::Source | Full::Total => DropReason::QueueTotal,
        })?;
        self.limits.answered(from);
        shared.statistics.queued += 1;
        Ok(())
    }
}

/// Returns the length of a packet that the host may have: from a global unicast address (C-18),
/// without a routing header that leads it elsewhere (L-11).
fn deliver(header: Header<'_>, packet: &[u8]) -> Result<usize, DropReason> {
    if !is_global_unicast(&header.source()) {
        return Err(DropReason::Source);
    }
    if ipv6::has_forbidden_routing(packet) {
        return Err(DropReason::RoutingHeader);
    }
    Ok(header.packet_length())
}
