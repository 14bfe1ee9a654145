//! From native hosts: IPv6 packets in, UDP payloads out (RFC 4380 section 5.4.1).

use teredo_common::{
    address::{Endpoint, embedded_mapping, embedded_server, has_cone_flag},
    scope::is_global_unicast,
    time::Instant,
};

use super::{Event, Relay, Transmit};
use crate::{
    relay::statistics::DropReason,
    shared::{bubble::Refused, peers::PeerIndex, queue::Full, statistics::Unreachable},
    wire::{icmpv6, ipv6::Header},
};

/// Things to send that wait for somebody to take them.
const MAX_TRANSMITS: usize = 65_536;

enum Way {
    /// To this endpoint, as many octets.
    Send(Endpoint, usize),
    /// The packet waits for a bubble's answer.
    Queued,
}

impl Relay {
    /// Takes an IPv6 packet that the kernel routed to the Teredo service, with its hop limit
    /// decremented unless it is this host's own.
    ///
    /// Returns the UDP payload that is to be sent now, and where to. `None` while things wait in
    /// [`Relay::poll_transmit`]: the packet then waits behind them.
    pub fn handle_ipv6<'p>(
        &mut self,
        now: Instant,
        packet: &'p mut [u8],
    ) -> Option<(Endpoint, &'p [u8])> {
        let is_first = self.transmits.is_empty();
        match self.route(now, packet) {
            Ok(Way::Send(to, length)) => {
                let payload = packet.get(..length)?;
                if is_first {
                    self.statistics.encapsulated.add(length);
                    return Some((to, payload));
                }
                if self.transmits.len() >= MAX_TRANSMITS {
                    self.statistics.dropped[DropReason::EncapBacklog] += 1;
                    return None;
                }
                self.transmit(to, payload.to_vec());
                None
            }
            Ok(Way::Queued) => None,
            Err(reason) => {
                self.statistics.dropped[reason] += 1;
                None
            }
        }
    }

    fn route(&mut self, now: Instant, packet: &[u8]) -> Result<Way, DropReason> {
        let header = Header::parse(packet).map_err(|_| DropReason::EncapMalformed)?;
        let (source, destination) = (header.source(), header.destination());
        if !self.config.prefix.contains(&destination) {
            return Err(DropReason::EncapNotTeredo);
        }
        if !self.may_come_from(&source) {
            return Err(DropReason::EncapSource);
        }
        if header.is_bubble() {
            return Err(DropReason::EncapBubble);
        }
        let length = header.packet_length();
        if length > usize::from(self.config.mtu) {
            return Err(DropReason::EncapTooBig);
        }
        let packet = &packet[..length];
        let index = match self.peers.find(&destination) {
            Some(index) => index,
            None => self.meet(now, packet, &source, &destination)?,
        };
        let peer = &self.peers[index];
        if peer.is_usable(now, self.config.peer_lifetime) {
            self.sent(now, index);
            return Ok(Way::Send(self.peers[index].mapped, length));
        }
        if peer.is_trusted() {
            self.distrust(index);
        }
        if self.config.honor_cone && has_cone_flag(&destination) {
            let mapped = embedded_mapping(&destination);
            self.trust(now, index, mapped);
            self.sent(now, index);
            return Ok(Way::Send(mapped, length));
        }
        self.wait(now, index, packet)?;
        Ok(Way::Queued)
    }

    /// R-08, L-07, L-10: native sources that the relay serves.
    fn may_come_from(&self, source: &[u8; 16]) -> bool {
        is_global_unicast(source)
            && !self.config.prefix.contains(source)
            && self.serves(source)
            && !self.own_ipv4.leads_back(source)
    }

    /// Creates the entry of a new peer (R-01, R-04, L-06, L-12).
    fn meet(
        &mut self,
        now: Instant,
        packet: &[u8],
        source: &[u8; 16],
        destination: &[u8; 16],
    ) -> Result<PeerIndex, DropReason> {
        let mapped = embedded_mapping(destination);
        if !self.own_ipv4.may_send_to(mapped) {
            return Err(DropReason::EncapDestination);
        }
        if !self.may_ask(embedded_server(destination)) {
            self.send_unreachable(now, packet);
            return Err(DropReason::EncapServer);
        }
        if self.draining {
            return Err(DropReason::EncapDraining);
        }
        let [network @ .., _, _, _, _, _, _, _, _] = *source;
        if !self.new_peer_buckets.take(network, now) {
            return Err(DropReason::EncapNewPeerRate);
        }
        self.make_room();
        Ok(self.peers.insert(*destination, mapped))
    }

    /// Queues a packet for a peer that is not usable, and asks the peer for an answer.
    fn wait(&mut self, now: Instant, index: PeerIndex, packet: &[u8]) -> Result<(), DropReason> {
        let pending = self.peers[index].pending_mut();
        let is_asked = pending.procedure.is_some();
        if !is_asked && pending.history.check(now) == Err(Refused::Exhausted) {
            self.send_unreachable(now, packet);
            self.arm_removal(index);
            return Err(DropReason::EncapBubbleLimit);
        }
        let pushed = self.queues.push(&mut pending.queue, packet);
        self.peers.touch(index);
        if !is_asked {
            self.start_procedure(now, index);
        }
        pushed.map_err(|full| match full {
            Full::Peer => DropReason::EncapQueuePeer,
            Full::Source => DropReason::EncapQueueSource,
            Full::Total => DropReason::EncapQueueTotal,
        })?;
        self.statistics.queued += 1;
        Ok(())
    }

    /// Notes that a data packet goes to a usable peer.
    fn sent(&mut self, now: Instant, index: PeerIndex) {
        let refresh_after = self.config.refresh_after;
        let peer = &mut self.peers[index];
        peer.last_sent = now;
        let needs_refresh = now.saturating_since(peer.last_received) >= refresh_after;
        let needs_upkeep = now >= peer.upkeep;
        if needs_refresh {
            self.refresh(now, index);
        }
        if needs_upkeep {
            self.upkeep(now, index);
        }
    }

    /// Sends a packet after those that wait already.
    pub(super) fn transmit(&mut self, to: Endpoint, payload: Vec<u8>) {
        self.statistics.encapsulated.add(payload.len());
        self.transmits.push_back(Transmit::Datagram { to, payload });
    }

    /// Tells the sender of `packet` that its destination cannot be reached, if that is allowed
    ///
    pub(super) fn send_unreachable(&mut self, now: Instant, packet: &[u8]) {
        let outcome = match self.error_source() {
            _ if !icmpv6::may_answer(packet) => Unreachable::Forbidden,
            None => Unreachable::NoSource,
            Some(_)
                if !self
                    .unreachable_bucket
                    .take(self.config.unreachable_rate, now) =>
            {
                Unreachable::RateLimited
            }
            Some(source) => match icmpv6::address_unreachable(&source, packet) {
                Some(error) => {
                    self.transmits.push_back(Transmit::Ipv6(error));
                    Unreachable::Sent
                }
                None => Unreachable::Forbidden,
            },
        };
        self.statistics.unreachable[outcome] += 1;
    }

    /// Tells the fast path of a trusted peer.
    pub(super) fn announce(&mut self, index: PeerIndex) {
        let peer = &self.peers[index];
        let event = Event::PeerTrusted {
            address: peer.address.into(),
            mapped: peer.mapped,
            symmetric: peer.symmetric,
            last_received: peer.last_received,
            last_sent: peer.last_sent,
        };
        self.emit(event);
    }
}
