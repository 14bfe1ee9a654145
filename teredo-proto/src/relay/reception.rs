//! From clients: UDP payloads in, IPv6 packets out (RFC 4380 section 5.4.2).

use teredo_common::{
    address::{Endpoint, embedded_mapping},
    cookie::Sent,
    scope::is_global_unicast,
    time::Instant,
};

use super::Relay;
use crate::{
    relay::statistics::{Bubble, DropReason, Question},
    shared::{party::NOBODY, peers::PeerIndex},
    wire::{
        ecn, encapsulation,
        ipv6::{self, Header},
        trailer,
    },
};

impl Relay {
    /// Handles the payload of a UDP datagram that arrived at the relay's endpoint, whole and with its
    /// checksum verified. `ecn` is the ECN field of its IPv4 header, 0 to 3.
    ///
    /// Returns the IPv6 packet to forward, if any: a part of `payload`, whose hop limit is still as
    /// the client set it.
    pub fn handle_datagram<'p>(
        &mut self,
        now: Instant,
        from: Endpoint,
        ecn: u8,
        payload: &'p mut [u8],
    ) -> Option<&'p mut [u8]> {
        match self.receive(now, from, ecn, payload) {
            Ok(Some(length)) => {
                let packet = payload.get_mut(..length)?;
                if ecn == ecn::CONGESTION_EXPERIENCED {
                    ipv6::set_congestion_experienced(packet);
                }
                self.statistics.decapsulated.add(length);
                Some(packet)
            }
            Ok(None) => None,
            Err(reason) => {
                self.statistics.dropped[reason] += 1;
                None
            }
        }
    }

    /// Returns the length of the packet at the start of `payload` that is to be forwarded; `None`
    /// for a bubble that was accepted.
    fn receive(
        &mut self,
        now: Instant,
        from: Endpoint,
        ecn: u8,
        payload: &[u8],
    ) -> Result<Option<usize>, DropReason> {
        if self.own_ipv4.contains(from.address) {
            return Err(DropReason::DecapOwnSource);
        }
        if !self.own_ipv4.may_send_to(from) {
            return Err(DropReason::DecapSourceScope);
        }
        let parts = encapsulation::parse(payload).map_err(|_| DropReason::DecapMalformed)?;
        if parts.authentication.is_some() || parts.origin.is_some() {
            return Err(DropReason::DecapServerElement);
        }
        if trailer::parse(parts.trailers).any(|trailer| trailer.is_err()) {
            return Err(DropReason::DecapTrailer);
        }
        let header = Header::parse(parts.packet).map_err(|_| DropReason::DecapMalformed)?;
        let (source, destination) = (header.source(), header.destination());
        if source == destination {
            return Err(DropReason::DecapSameAddresses);
        }
        if !self.config.prefix.contains(&source) {
            return Err(DropReason::DecapSource);
        }
        let index = self.authenticate(now, from, header.is_bubble(), &source, &destination)?;
        if header.is_bubble() {
            return Ok(None);
        }
        if self.is_echo_of_cookie(now, from, &source, parts.packet) {
            self.statistics.questions[Question::AnsweredEcho] += 1;
            let is_change = !self.peers[index].state.holds();
            self.prove(now, index);
            self.note_news(&source, is_change);
            return Ok(None);
        }
        if ipv6::has_forbidden_routing(parts.packet) {
            return Err(DropReason::DecapRoutingHeader);
        }
        self.check_destination(&destination)?;
        if ecn::must_drop(ecn, header.congestion()) {
            return Err(DropReason::DecapCongestion);
        }
        self.seek_proof(now, index, Some(destination));
        let length = header.packet_length();
        self.peers.traffic_mut(index).decap.add(length);
        Ok(Some(length))
    }

    /// Finds the peer, checks that the packet is its own, and trusts it.
    fn authenticate(
        &mut self,
        now: Instant,
        from: Endpoint,
        is_bubble: bool,
        source: &[u8; 16],
        destination: &[u8; 16],
    ) -> Result<PeerIndex, DropReason> {
        let found = self.peers.find(source);
        let returned = |sent| is_bubble && self.cookie.proves(now, sent, source, destination);
        let has_proof = returned(Sent::To(from));
        let has_cookie = has_proof || returned(Sent::Indirectly);
        let is_known = found.is_some_and(|index| self.is_known_at(index, from, now));
        if !has_cookie && !is_known && from != embedded_mapping(source) {
            return Err(DropReason::DecapMapping);
        }
        let index = match found {
            Some(index) => index,
            // It may be another relay of the fleet that asked (F-10, F-21).
            None if has_cookie => self.readmit(source)?,
            None => return Err(DropReason::DecapUnknownPeer),
        };
        if is_bubble {
            let kind = match has_cookie {
                true => Bubble::ReceivedCookie,
                false => Bubble::ReceivedDirect,
            };
            self.statistics.bubbles[kind] += 1;
        }
        let before = (self.statistics.trusted, self.statistics.proved);
        self.trust(now, index, from);
        if has_proof {
            self.statistics.questions[Question::AnsweredBubble] += 1;
            self.prove(now, index);
        } else if is_bubble {
            self.seek_proof(now, index, None);
        }
        let is_change = before != (self.statistics.trusted, self.statistics.proved);
        if has_cookie || is_change {
            self.note_news(source, is_change);
        }
        Ok(index)
    }

    /// Creates the entry of a peer that brings back a cookie, and was forgotten meanwhile: the relay
    /// asked it, so nothing is lost with an entry but the packets that waited.
    fn readmit(&mut self, address: &[u8; 16]) -> Result<PeerIndex, DropReason> {
        if self.draining || !self.may_be_peer(address) {
            return Err(DropReason::DecapUnknownPeer);
        }
        self.make_room();
        let mapped = embedded_mapping(address);
        Ok(self.peers.insert(*address, mapped, NOBODY))
    }

    /// Whether a usable entry has this endpoint. For a peer that is not symmetric, that is the
    /// endpoint in its address.
    fn is_known_at(&self, index: PeerIndex, from: Endpoint, now: Instant) -> bool {
        self.peers[index].mapped == from && self.peers.is_usable(now, index)
    }

    /// Checks that the destination is native and served by the relay.
    fn check_destination(&self, destination: &[u8; 16]) -> Result<(), DropReason> {
        if self.is_teredo(destination) {
            return Err(DropReason::DecapDestinationTeredo);
        }
        if !is_global_unicast(destination) {
            return Err(DropReason::DecapDestinationScope);
        }
        if self.own_ipv4.leads_back(destination) {
            return Err(DropReason::DecapDestinationLoop);
        }
        if !self.serves(destination) {
            return Err(DropReason::DecapDestination);
        }
        Ok(())
    }
}
