//! From native hosts: IPv6 packets in, UDP payloads out (RFC 4380 section 5.4.1).

use teredo_common::{
    address::{Endpoint, embedded_mapping, embedded_server, has_cone_flag},
    scope::is_global_unicast,
    time::Instant,
};

use super::{Relay, Transmit};
use crate::{
    relay::statistics::DropReason,
    shared::{
        party::NOBODY,
        peers::{Full, NotQueued, PeerIndex, network},
        statistics::Unreachable,
    },
    wire::{icmpv6, ipv6::Header},
};

/// The largest number of transmits that wait for [`Relay::poll_transmit`].
const MAX_TRANSMITS: usize = 65_536;

/// The way that a packet takes.
enum Forward {
    /// To this peer at this endpoint at once, as many octets.
    Send(PeerIndex, Endpoint, usize),
    /// Into a queue, until a bubble is answered.
    Queued,
}

/// The first octet of multicast addresses.
const MULTICAST: u8 = 0xff;

impl Relay {
    /// Handles an IPv6 packet that the kernel routed to the Teredo service, with its hop limit
    /// decremented unless it is this host's own.
    ///
    /// Returns the UDP payload to send, which is a part of `packet`, and its destination. While other
    /// packets wait in [`Relay::poll_transmit`], the packet waits behind them instead.
    pub fn handle_ipv6<'p>(
        &mut self,
        now: Instant,
        packet: &'p mut [u8],
    ) -> Option<(Endpoint, &'p [u8])> {
        let is_first = self.transmits.is_empty();
        match self.route(now, packet) {
            Ok(Forward::Send(index, to, length)) => {
                let payload = packet.get(..length)?;
                if is_first {
                    self.note_encapsulated(index, length);
                    return Some((to, payload));
                }
                if self.transmits.len() >= MAX_TRANSMITS {
                    self.statistics.dropped[DropReason::EncapBacklog] += 1;
                    return None;
                }
                self.transmit(index, to, payload.to_vec());
                None
            }
            Ok(Forward::Queued) => None,
            Err(reason) => {
                self.statistics.dropped[reason] += 1;
                None
            }
        }
    }

    fn route(&mut self, now: Instant, packet: &[u8]) -> Result<Forward, DropReason> {
        let header = Header::parse(packet).map_err(|_| DropReason::EncapMalformed)?;
        let (source, destination) = (header.source(), header.destination());
        if destination[0] == MULTICAST {
            return Err(DropReason::EncapMulticast);
        }
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
            None => self.create_peer(now, packet, &source, &destination)?,
        };
        if self.peers.is_usable(now, index) {
            if !self.may_send(now, index) {
                return Err(DropReason::EncapUnproved);
            }
            self.note_sent(now, index);
            return Ok(Forward::Send(index, self.peers[index].mapped, length));
        }
        if self.peers[index].is_trusted() {
            self.distrust(index);
        }
        if self.config.honor_cone && has_cone_flag(&destination) {
            let mapped = embedded_mapping(&destination);
            self.trust(now, index, mapped);
            if !self.may_send(now, index) {
                return Err(DropReason::EncapUnproved);
            }
            self.note_sent(now, index);
            return Ok(Forward::Send(index, mapped, length));
        }
        self.enqueue(now, index, packet)?;
        Ok(Forward::Queued)
    }

    /// Whether the relay serves this native source (R-08, L-07, L-10).
    fn may_come_from(&self, source: &[u8; 16]) -> bool {
        is_global_unicast(source)
            && !self.is_teredo(source)
            && self.serves(source)
            && !self.own_ipv4.leads_back(source)
    }

    /// Creates the entry of a new peer (R-01, R-04, L-06, L-12).
    fn create_peer(
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
            self.send_unreachable(now, packet);
            return Err(DropReason::EncapDraining);
        }
        if !self.new_peer_rates.take(source, now) {
            return Err(DropReason::EncapNewPeerRate);
        }
        self.make_room();
        Ok((self.peers).insert(*destination, mapped, network(packet)))
    }

    /// Queues a packet for a peer that is not usable, and asks the peer for an answer.
    fn enqueue(&mut self, now: Instant, index: PeerIndex, packet: &[u8]) -> Result<(), DropReason> {
        self.earn_bubbles(index, packet);
        let queued = self.peers.enqueue(&mut self.queues, now, index, packet);
        if queued == Err(NotQueued::Exhausted) {
            self.send_unreachable(now, packet);
        } else if !self.peers[index].is_asked() {
            self.start_procedure(now, index, network(packet));
        }
        queued.map_err(|reason| match reason {
            NotQueued::Exhausted => DropReason::EncapBubbleLimit,
            NotQueued::Full(Full::Peer) => DropReason::EncapQueuePeer,
            NotQueued::Full(Full::Source) => DropReason::EncapQueueSource,
            NotQueued::Full(Full::Total) => DropReason::EncapQueueTotal,
        })?;
        self.statistics.queued += 1;
        Ok(())
    }

    /// Notes that a data packet goes to a usable peer.
    fn note_sent(&mut self, now: Instant, index: PeerIndex) {
        let due = self.peers.note_sent(now, index);
        if due.refresh {
            self.start_procedure(now, index, NOBODY);
        }
        if due.touch {
            self.touch(now, index);
        }
    }

    /// Informs the sender of `packet` that its destination cannot be reached, if that is allowed
    ///
    pub(super) fn send_unreachable(&mut self, now: Instant, packet: &[u8]) {
        let outcome = match self.error_source() {
            _ if !icmpv6::may_answer(packet) => Unreachable::Forbidden,
            None => Unreachable::NoSource,
            Some(_) if !self.unreachable_bucket.take(self.unreachable_rate, now) => {
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
}
