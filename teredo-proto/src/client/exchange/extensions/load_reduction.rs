//! Server load reduction (RFC 6081 section 5.7): a silent peer is asked directly first.

use teredo_common::time::Instant;

use super::super::{Exchange, Shared, contact::Contact};
use crate::{
    shared::peers::{PeerIndex, RoleState as _},
    wire::{bubble, trailer::Trailer},
};

/// Solicitations before the server is asked again, within the attempts of one procedure.
const MAX_SOLICITATIONS: u8 = 2;

impl Exchange {
    /// Asks a peer that was trusted for a sign of life at its last endpoint. Returns `false`
    /// if the peer has to be asked through its server.
    pub(in super::super) fn solicit(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        attempts: u8,
    ) -> bool {
        if !self.may_solicit(shared, index, attempts) {
            return false;
        }
        let state = &self.peers[index].state;
        let (port, to) = (state.port, state.destination);
        let trailer = Trailer::NeighborSolicitation;
        self.send_signed(shared, now, index, (port, to), trailer, false)
    }

    /// Whether a peer is asked directly next, limits aside.
    pub(in super::super) fn may_solicit(
        &self,
        shared: &Shared,
        index: PeerIndex,
        attempts: u8,
    ) -> bool {
        let extensions = shared.config.extensions;
        let peer = &self.peers[index];
        let state = &peer.state;
        extensions.symmetric
            && extensions.load_reduction
            && attempts < MAX_SOLICITATIONS
            && state.is_known
            && self.check_port(shared, state.port, &peer.address).is_ok()
    }

    /// Answers a solicitation, within the limits of bubbles.
    pub(in super::super) fn advertise(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
    ) {
        let is_usable = self.peers.is_usable(now, index);
        let peer = &mut self.peers[index];
        let target = (peer.state.port, peer.state.destination);
        let is_burst = peer
            .pending_mut()
            .history
            .check(now, Contact::PATIENCE)
            .is_ok();
        let ends_burst = !is_burst && self.may_end_burst(now, index);
        if !is_usable || !is_burst && !ends_burst {
            return;
        }
        let trailer = Trailer::NeighborAdvertisement;
        if ends_burst {
            self.peers[index].state.may_answer = false;
            self.peers.prolong_burst(now, index, &mut shared.random);
        }
        if self.send_signed(shared, now, index, target, trailer, ends_burst) && is_burst {
            self.count_burst(now, index);
        }
    }

    /// Sends a direct bubble with a neighbor discovery trailer. Returns whether the limits allowed
    /// it.
    pub(super) fn send_signed(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        index: PeerIndex,
        (port, to): (u16, teredo_common::address::Endpoint),
        trailer: Trailer<'_>,
        ends_burst: bool,
    ) -> bool {
        let is_allowed = self.may_reach_peer(shared, index, to)
            && match ends_burst {
                true => self.limits.take_answer(to, now),
                false => self.limits.take_direct(to, now),
            };
        if !is_allowed {
            return false;
        }
        let mut payload = bubble::build(&self.own, &self.peers[index].address).to_vec();
        let nonce = self.peers[index].state.nonces.received;
        if nonce != [0; 4] {
            Trailer::Nonce(nonce).write(&mut payload);
        }
        trailer.write(&mut payload);
        self.send_direct_payload(shared, port, to, payload);
        true
    }
}
