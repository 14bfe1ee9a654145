//! From the host: IPv6 packets in, UDP payloads out (RFC 4380 section 5.2.4).

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, embedded_mapping, has_cone_flag, server_link_local},
    scope::{is_global_unicast, is_link_local},
    time::Instant,
    traffic::Count,
    wire::SERVER_PORT,
};

use super::{Exchange, Forward, Shared, TIMING, bubbles::server_of, contact::Contact};
use crate::{
    client::{Transmit, statistics::DropReason},
    shared::{
        peers::{Full, NotQueued, PeerIndex, RoleState as _},
        statistics::Unreachable,
    },
    wire::{
        icmpv6::{self, ADDRESS_UNREACHABLE, SOURCE_POLICY},
        ipv6::Header,
    },
};

const MULTICAST: u8 = 0xff;
/// The time for which a native host may leave packets unanswered until it is tested (P-14).
const STALL: Duration = Duration::from_secs(3);

impl Exchange {
    /// Returns the local port and the endpoint for packets of the host with this header, if they go at
    /// once, as those to a usable peer do; otherwise nothing has happened. `largest` is the length of the
    /// largest, in octets, and `count` their number.
    pub fn forward(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        header: Header<'_>,
        largest: usize,
        count: Count,
    ) -> Option<(u16, Endpoint)> {
        let identity = self.identity.as_ref()?;
        let destination = header.destination();
        if header.source() != self.own
            || largest > usize::from(identity.mtu)
            || destination[0] == MULTICAST
        {
            return None;
        }
        if identity.tunnel {
            return Some((shared.config.port, identity.server.primary()));
        }
        if header.is_bubble() {
            return None;
        }
        let index = self.peers.find(&destination)?;
        if !self.peers.is_usable(now, index) {
            return None;
        }
        let state = &self.peers[index].state;
        let way = (state.port, state.destination);
        self.peers.traffic_mut(index).encap += count;
        self.note_sent(shared, now, index);
        Some(way)
    }

    /// Handles a packet of the host.
    pub fn handle_ipv6(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        packet: &[u8],
    ) -> Result<Forward, DropReason> {
        let header = Header::parse(packet).map_err(|_| DropReason::HostMalformed)?;
        let (source, destination) = (header.source(), header.destination());
        let length = header.packet_length();
        if let Some((port, to)) = self.forward(shared, now, header, length, Count::of(length)) {
            return Ok(Forward::Send(port, to, length));
        }
        let packet = &packet[..length];
        let Some(identity) = &self.identity else {
            self.refuse(shared, now, ADDRESS_UNREACHABLE, packet);
            return Err(DropReason::HostNotQualified);
        };
        if source != self.own {
            self.refuse(shared, now, SOURCE_POLICY, packet);
            return Err(DropReason::HostSource);
        }
        if length > usize::from(identity.mtu) {
            return Err(DropReason::HostTooBig);
        }
        if destination[0] == MULTICAST {
            return Err(DropReason::HostMulticast);
        }
        if header.is_bubble() {
            return Err(DropReason::HostBubble);
        }
        let index = match self.peers.find(&destination) {
            Some(index) => index,
            None => self.create_peer(shared, now, packet, &destination)?,
        };
        if self.peers[index].is_trusted() {
            self.distrust(shared, index);
        }
        if shared.config.honor_cone && self.is_cone(shared, &destination) {
            let (port, mapped) = (shared.config.port, embedded_mapping(&destination));
            self.trust(shared, now, index, port, mapped);
            self.note_sent(shared, now, index);
            self.peers.traffic_mut(index).encap.add(length);
            return Ok(Forward::Send(port, mapped, length));
        }
        self.enqueue(shared, now, index, packet)?;
        Ok(Forward::Queued)
    }

    /// Whether an address has the cone flag and names an endpoint that may be sent to.
    fn is_cone(&self, shared: &Shared, address: &[u8; 16]) -> bool {
        has_cone_flag(address)
            && shared.config.prefix.contains(address)
            && self.may_be_peer(shared, address)
    }

    /// Creates the entry of a new peer that the host sends to (C-51).
    fn create_peer(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        packet: &[u8],
        destination: &[u8; 16],
    ) -> Result<PeerIndex, DropReason> {
        if !is_global_unicast(destination) || *destination == self.own {
            return Err(DropReason::HostDestination);
        }
        if shared.config.is_foreign(destination) {
            self.refuse(shared, now, ADDRESS_UNREACHABLE, packet);
            return Err(DropReason::HostDestination);
        }
        let is_teredo = shared.config.prefix.contains(destination);
        if is_teredo {
            let server = server_of(destination);
            if !self.may_be_peer(shared, destination) || !self.may_reach(shared, server) {
                self.refuse(shared, now, ADDRESS_UNREACHABLE, packet);
                return Err(DropReason::HostDestination);
            }
        }
        if let Some(oldest) = self.peers.make_room() {
            self.remove(shared, oldest);
        }
        Ok(self.insert(shared, *destination))
    }

    /// Queues a packet for a peer that is not usable, and asks the peer for an answer.
    fn enqueue(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let queued = self.peers.enqueue(&mut self.queues, now, index, packet);
        if queued == Err(NotQueued::Exhausted) {
            self.refuse(shared, now, ADDRESS_UNREACHABLE, packet);
        } else if !self.peers[index].is_asked() {
            self.start_procedure(shared, now, index);
        }
        queued.map_err(|reason| match reason {
            NotQueued::Exhausted => DropReason::HostBubbleLimit,
            NotQueued::Full(Full::Peer) => DropReason::HostQueuePeer,
            NotQueued::Full(Full::Source | Full::Total) => DropReason::HostQueueTotal,
        })?;
        shared.statistics.queued += 1;
        Ok(())
    }

    /// Notes that a packet goes to a usable peer.
    fn note_sent(&mut self, shared: &mut Shared, now: Instant, index: PeerIndex) {
        let due = self.peers.note_sent(now, index);
        self.peers[index].state.random.refreshes = 0;
        if due.refresh || self.is_stalled(now, index) {
            self.start_procedure(shared, now, index);
        }
        if due.touch {
            self.touch(now, index);
        }
    }

    /// Whether a native host that exchanged packets with this one fell silent while it is sent to: its
    /// relay may have been restarted, and knows the client again only after a test (P-14).
    fn is_stalled(&mut self, now: Instant, index: PeerIndex) -> bool {
        let peer = &mut self.peers[index];
        if !peer.state.is_talking || peer.state.tests.is_none() {
            return false;
        }
        let since = *peer.state.unanswered_since.get_or_insert(now);
        now.saturating_since(since) >= STALL && Contact::may_refresh(peer, now, TIMING.lifetime)
    }

    /// Informs the host that a packet cannot be sent, if that is allowed. The error comes from
    /// the router of the link, which is the server.
    pub(super) fn refuse(&mut self, shared: &mut Shared, now: Instant, code: u8, packet: &[u8]) {
        let server = self.identity.map(|identity| identity.server);
        let server = server.or_else(|| shared.config.servers.first().copied());
        let is_link_local =
            Header::parse(packet).is_ok_and(|header| is_link_local(&header.source()));
        let outcome = match server {
            _ if is_link_local || !icmpv6::may_answer(packet) => Unreachable::Forbidden,
            None => Unreachable::NoSource,
            Some(_) if !self.limits.take_unreachable(now) => Unreachable::RateLimited,
            Some(server) => {
                let source = server_link_local(server.primary, SERVER_PORT).octets();
                match icmpv6::unreachable(code, &source, packet) {
                    Some(error) => {
                        shared.transmits.push_back(Transmit::Ipv6(error));
                        Unreachable::Sent
                    }
                    None => Unreachable::Forbidden,
                }
            }
        };
        shared.statistics.unreachable[outcome] += 1;
    }
}
