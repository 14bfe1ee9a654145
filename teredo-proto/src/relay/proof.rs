//! The proof that a peer is at its mapping: something that was sent there, and nowhere else,
//! came back from there.
//!
//! The answer to an indirect bubble shows only that its sender gets the datagrams to the *server* in
//! the peer's address. Anybody can run a server, and forge the source of
//! a datagram. So the relay sends a second cookie directly to the mapping, in two forms, of which
//! clients know at least one:
//!
//! - A bubble with a neighbor solicitation trailer, which clients with the extensions of RFC 6081
//!   answer with a bubble to its source (RFC 6081 section 5.7), and so does our own.
//! - An echo request from the native host that the peer talks to, which comes through the tunnel
//!   like every packet of that host. The client's host answers it, the answer ends here.
//!
//! Until the proof has come, only few packets go to the mapping: see [`super::unproved`].

use std::time::Duration;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, cookie::Sent, time::Instant};

use super::{Event, Relay};
use crate::{
    relay::statistics::Question,
    shared::peers::{Patience, Peer, PeerIndex, RoleState},
    wire::{
        bubble,
        icmpv6::{self, Echo},
        trailer::Trailer,
    },
};

/// The age of a proof from which on the relay asks for another.
const REFRESH_AFTER: Duration = Duration::from_secs(300);
/// The age at which a proof ends.
const LIFETIME: Duration = Duration::from_secs(600);
/// The time for which a relay leaves it to another one of its fleet to ask for a new proof.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is added to it at random, so that not all ask at once.
const PATIENCE_JITTER: Duration = Duration::from_secs(120);
/// The pause after the first question. Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How often a pause is doubled: up to 64 seconds.
const MAX_DOUBLINGS: u8 = 6;
/// The identifier of the relay's echo requests.
const IDENTIFIER: u16 = 0x5465;
/// Octets of the packets that answer an echo request: a reply, and an error that quotes the request.
const ANSWERS: [usize; 2] = [56, 104];
/// No native host is known that the peer talks to.
const NO_HOST: [u8; 16] = [0; 16];

/// What the relay knows about the mapping of a peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Proof {
    /// When the last proof came; [`Instant::ZERO`] if none holds.
    proved: Instant,
    /// When the relay may ask again.
    next: Instant,
    /// Questions since the last proof.
    asked: u8,
    /// The native host that the peer sent to last, or [`NO_HOST`].
    host: [u8; 16],
    /// Packets that may be sent to the mapping for those that came from there.
    pub credit: u16,
}

/// There are hundreds of thousands of entries.
const _: () = assert!(size_of::<Peer<Proof>>() <= 128);

impl Proof {
    /// Returns when the last proof came; [`Instant::ZERO`] if none holds.
    pub fn proved(&self) -> Instant {
        self.proved
    }

    /// Whether the mapping is proved.
    pub fn holds(&self) -> bool {
        self.proved != Instant::ZERO
    }

    /// When the relay has to do something about a proof that holds.
    fn deadline(&self) -> Instant {
        let refresh = (self.proved + REFRESH_AFTER).max(self.next);
        refresh.min(self.proved + LIFETIME)
    }
}

impl RoleState for Proof {
    /// RFC 4380 section 5.4.1 lets a relay ask again at once.
    const PATIENCE: Patience = Patience::BackOff;

    /// Whether the peer answered everything that it was asked.
    fn may_refresh(peer: &Peer<Self>, _now: Instant, _lifetime: Duration) -> bool {
        peer.pending.is_none()
    }

    /// Peers whose mapping is proved stay longest.
    fn is_expendable(&self) -> bool {
        !self.holds()
    }

    fn displaces_untrusted(_peer: &Peer<Self>) -> bool {
        false
    }
}

impl Relay {
    /// Asks a peer that is trusted for proof, if it owes one. `host` is the native host of a packet
    /// that came from the peer. One packet is not worth more than one question (L-19), so the forms
    /// take turns.
    pub(super) fn seek_proof(&mut self, now: Instant, index: PeerIndex, host: Option<[u8; 16]>) {
        let proof = &mut self.peers[index].state;
        let is_first = host.is_some() && proof.host == NO_HOST;
        proof.host = host.unwrap_or(proof.host);
        if proof.holds() || now < proof.next && !is_first {
            return;
        }
        let is_echo_due = is_first || proof.host != NO_HOST && proof.asked % 2 == 1;
        self.put_off_question(now, index);
        if is_echo_due {
            self.ask_by_echo(now, index);
        } else {
            self.ask_by_bubble(now, index);
        }
    }

    /// Lets the relay ask again after a pause.
    fn put_off_question(&mut self, now: Instant, index: PeerIndex) {
        let proof = &mut self.peers[index].state;
        let pause = FIRST_PAUSE * (1 << proof.asked.min(MAX_DOUBLINGS));
        proof.next = now + pause;
        proof.asked = proof.asked.saturating_add(1);
    }

    /// Sends the second cookie to the mapping as the source of a bubble.
    fn ask_by_bubble(&mut self, now: Instant, index: PeerIndex) {
        let Some((cookie, address, mapped)) = self.question(now, index) else {
            return;
        };
        let mut payload = bubble::build(&cookie, &address).to_vec();
        Trailer::NeighborSolicitation.write(&mut payload);
        self.send_bubble(mapped, &payload);
        self.statistics.questions[Question::SentBubble] += 1;
    }

    /// Sends the second cookie to the mapping as the data of an echo request.
    fn ask_by_echo(&mut self, now: Instant, index: PeerIndex) {
        let Some((cookie, address, mapped)) = self.question(now, index) else {
            return;
        };
        let echo = Echo {
            identifier: IDENTIFIER,
            sequence: 0,
            data: &cookie[8..],
        };
        let request = icmpv6::echo_request(&self.peers[index].state.host, &address, echo);
        self.send_bubble(mapped, &request);
        self.statistics.questions[Question::SentEcho] += 1;
    }

    /// Returns the second cookie of a peer, the peer's address, and its mapping, if the rates allow a
    /// question.
    fn question(
        &mut self,
        now: Instant,
        index: PeerIndex,
    ) -> Option<([u8; 16], [u8; 16], Endpoint)> {
        let (address, mapped) = (self.peers[index].address, self.peers[index].mapped);
        if !self.question_rates.take(&mapped.address, now) {
            self.statistics.questions[Question::Limited] += 1;
            return None;
        }
        let cookie = self.cookie.source(now, Sent::To(mapped), &address);
        Some((cookie, address, mapped))
    }

    /// Whether a packet from the mapping of a peer answers an echo request of the relay.
    pub(super) fn is_echo_of_cookie(
        &self,
        now: Instant,
        from: Endpoint,
        source: &[u8; 16],
        packet: &[u8],
    ) -> bool {
        // Before the checksum of everything that comes.
        if !ANSWERS.contains(&packet.len()) {
            return false;
        }
        let Some(echo) = icmpv6::echo_answer(packet) else {
            return false;
        };
        let Ok(identifier) = <[u8; 8]>::try_from(echo.data) else {
            return false;
        };
        echo.identifier == IDENTIFIER
            && (self.cookie).proves_identifier(now, Sent::To(from), source, identifier)
    }

    /// Records that the second cookie came back from the mapping. The fast path may serve the peer.
    pub(super) fn prove(&mut self, now: Instant, index: PeerIndex) {
        let proof = &mut self.peers[index].state;
        let is_news = !proof.holds();
        proof.proved = now;
        proof.next = now;
        proof.asked = 0;
        if is_news {
            self.statistics.proved += 1;
            self.statistics.proved_peers += 1;
            self.touch(now, index);
        }
        self.arm_proof(index);
    }

    /// Adopts the proof of another relay of the fleet, which will ask for the next one in time (F-22).
    pub(super) fn learn_proof(&mut self, now: Instant, index: PeerIndex, proved: Instant) {
        let jitter = self.random.random_range(Duration::ZERO..PATIENCE_JITTER);
        let proof = &mut self.peers[index].state;
        if proved <= proof.proved || now.saturating_since(proved) >= LIFETIME {
            return;
        }
        let is_news = !proof.holds();
        proof.proved = proved;
        proof.next = proved + REFRESH_AFTER + PATIENCE + jitter;
        proof.asked = 0;
        if is_news {
            self.statistics.proved_peers += 1;
            self.touch(now, index);
        }
        self.arm_proof(index);
    }

    /// Adopts a proof from before: the relay asks for another one soon.
    pub(super) fn adopt_proof(&mut self, now: Instant, index: PeerIndex) {
        // Not zero, even if the clock has only just started.
        let proved = (now - REFRESH_AFTER).max(Instant::from_nanos(1));
        let proof = &mut self.peers[index].state;
        proof.proved = proved;
        proof.next = now;
        self.statistics.proved_peers += 1;
        self.arm_proof(index);
    }

    /// Forgets the proof of a peer: its mapping has changed, it is not trusted any more, or the proof
    /// is too old.
    pub(super) fn forget_proof(&mut self, index: PeerIndex) {
        let proof = &mut self.peers[index].state;
        let held = proof.holds();
        *proof = Proof {
            host: proof.host,
            ..Proof::default()
        };
        if held {
            self.statistics.proved_peers -= 1;
            let address = self.peers[index].address.into();
            // Not one may be lost: the fast path would send to its mapping.
            self.events.push_back(Event::PeerForgotten { address });
        }
    }

    /// Asks for a new proof, or ends one that was not renewed in time.
    pub(super) fn maintain_proof(&mut self, now: Instant, index: PeerIndex) {
        let proof = &self.peers[index].state;
        if !proof.holds() || now < proof.deadline() {
            return;
        }
        if now.saturating_since(proof.proved) >= LIFETIME {
            self.statistics.questions[Question::Expired] += 1;
            self.forget_proof(index);
        } else {
            self.put_off_question(now, index);
            self.ask_by_bubble(now, index);
            if self.peers[index].state.host != NO_HOST {
                self.ask_by_echo(now, index);
            }
        }
    }

    /// Sets the deadline of a proof that holds.
    pub(super) fn arm_proof(&mut self, index: PeerIndex) {
        let proof = &self.peers[index].state;
        if proof.holds() {
            let deadline = proof.deadline();
            self.peers.arm(index, deadline);
        }
    }
}
