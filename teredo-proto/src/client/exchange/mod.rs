//! Between the client and its peers: Teredo clients, and native hosts through their relays
//! (RFC 4380 sections 5.2.3, 5.2.4, 5.2.6, 5.2.8 and 5.2.9; RFC 6081).

mod answers;
mod bubbles;
mod connectivity;
mod contact;
mod departed;
mod discovery;
mod extensions;
mod limits;
mod procedure;
mod reception;
mod relays;
mod state;
mod transmission;
mod trust;

#[cfg(test)]
mod tests;

use std::{ops::Range, time::Duration};

use rand::Rng;
use teredo_common::{
    address::{Endpoint, embedded_mapping},
    time::Instant,
};

use super::{Config, Identity, PeerInfo, Statistics, shared::Shared};
use crate::shared::{
    keyed::Keyed,
    peers::{Bounds, Budget, PeerIndex, Peers, Timing},
    turns::Turns,
};
use contact::Contact;
use departed::Departed;
use discovery::{Discovery, is_on_link};
use extensions::ports::Ports;
use limits::Limits;
use relays::Relays;
pub use state::SavedExchange;

/// The times that end trust (P-03, P-12). The client sees every packet itself.
const TIMING: Timing = Timing {
    lifetime: Duration::from_secs(30),
    refresh_after: Duration::from_secs(25),
    grace: Duration::ZERO,
};
/// Number of paces towards servers. Servers whose hashes meet share one.
const SERVERS: usize = 1024;
/// Divisor of the room for waiting packets that yields the share of packets from unproved peers.
const HELD_SHARE: usize = 4;

/// The half of the client that talks with peers.
#[derive(Debug)]
pub struct Exchange {
    keyed: Keyed,
    identity: Option<Identity>,
    /// The address of the identity; unspecified if there is none.
    own: [u8; 16],
    peers: Peers<Contact>,
    departed: Departed,
    /// Packets of the host that wait for an answer.
    queues: Budget,
    /// Packets for the host that wait for the proof of their source (C-41).
    held: Budget,
    limits: Limits,
    turns: Turns,
    relays: Relays,
    discovery: Discovery,
    ports: Ports,
}

/// The way that a packet of the host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// From this local port to this endpoint at once, as many octets.
    Send(u16, Endpoint, usize),
    /// Into a queue, until the peer answers.
    Queued,
}

impl Exchange {
    /// Creates an exchange without address and peers.
    pub fn new(config: &Config, random: &mut impl Rng) -> Self {
        Self::with_tables(config, Keyed::new(random))
    }

    fn with_tables(config: &Config, keyed: Keyed) -> Self {
        let held = config.queue_total_bytes / HELD_SHARE;
        let bounds = |octets| Bounds {
            packets_per_peer: config.queue_per_peer,
            octets,
            octets_per_source: octets,
        };
        Self {
            keyed,
            identity: None,
            own: [0; 16],
            peers: Peers::new(config.max_peers, TIMING, keyed),
            departed: Departed::new(config.max_peers, keyed),
            queues: Budget::new(bounds(config.queue_total_bytes - held), keyed),
            held: Budget::new(bounds(held), keyed),
            limits: Limits::new(config, keyed),
            turns: Turns::new(config.server_pace, SERVERS, keyed),
            relays: Relays::default(),
            discovery: Discovery::default(),
            ports: Ports::default(),
        }
    }

    /// Sets the client's identity; forgets all peers if the address is another (C-45).
    pub fn set_identity(&mut self, shared: &mut Shared, now: Instant, identity: Option<Identity>) {
        let address = identity.map_or([0; 16], |identity| identity.address.octets());
        self.identity = identity;
        if address == self.own {
            return;
        }
        self.own = address;
        self.relays = Relays::default();
        self.remove_if(shared, |_, _, _| true);
        self.departed.clear();
        self.restart_discovery(shared, now);
    }

    /// Handles a change of [`Shared::network`]: forgets peers at endpoints that are this host's own
    /// now (L-02), or on a link that is gone.
    pub fn network_changed(&mut self, shared: &mut Shared) {
        self.remove_if(shared, |exchange, shared, mapped| {
            !exchange.may_reach(shared, mapped) && !is_on_link(shared, mapped)
        });
    }

    fn remove_if(
        &mut self,
        shared: &mut Shared,
        is_refused: impl Fn(&Self, &Shared, Endpoint) -> bool,
    ) {
        let peers = self.peers.iter();
        let refused: Vec<PeerIndex> = peers
            .filter(|(_, peer)| is_refused(self, shared, peer.mapped))
            .map(|(index, _)| index)
            .collect();
        for index in refused {
            self.remove(shared, index);
        }
    }

    /// A port that was asked for with [`super::Transmit::OpenPort`] could not be opened.
    pub fn handle_port_failure(&mut self, port: u16) {
        self.random_port_failed(port);
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) {
        self.handle_discovery_timeout(shared, now);
        while let Some(index) = self.peers.take_due(now) {
            self.handle_echo_timeout(shared, now, index);
            self.look_after(shared, now, index);
        }
        self.take_turns(shared, now);
    }

    /// When [`Exchange::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.peers.deadline().map(|(deadline, _)| deadline);
        let deadlines = [peers, self.discovery.next, self.turns.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Returns all peers, in no particular order.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> {
        let peers = self.peers_in(0..usize::MAX);
        peers.map(|(_, peer)| peer)
    }

    /// Returns the number of bursts to a peer since its last answer, a few at most.
    pub fn unanswered(&self, address: &[u8; 16]) -> u8 {
        let found = self.peers.find(address);
        let pending = found.and_then(|index| self.peers[index].pending.as_deref());
        pending.map_or(0, |pending| pending.history.unanswered())
    }

    /// Returns the number of trusted peers.
    pub fn trusted_peers(&self) -> usize {
        self.peers.trusted()
    }

    /// Returns the number of slots of the list of peers, of which some may be free.
    pub fn slots(&self) -> usize {
        self.peers.slots()
    }

    /// Iterates over the peers in these slots, each with its slot. A peer keeps its slot.
    pub fn peers_in(&self, slots: Range<usize>) -> impl Iterator<Item = (usize, PeerInfo)> {
        self.peers.in_slots(slots).map(|(slot, peer)| {
            let peer = PeerInfo {
                address: peer.address.into(),
                mapped: peer.mapped,
                trusted: peer.is_trusted(),
                local: peer.state.is_at_local(peer.mapped),
                last_received: peer.last_received,
                last_sent: peer.last_sent,
                traffic: self.peers.accounts.get(slot).total,
                queued: peer.queued(),
                elsewhere: (peer.state.elsewhere).filter(|(relay, _)| *relay != peer.mapped),
            };
            (slot, peer)
        })
    }

    /// Returns the table of peers.
    pub fn peers_mut(&mut self) -> &mut Peers<Contact> {
        &mut self.peers
    }

    /// Sets the current numbers of peers and waiting packets.
    pub fn measure(&self, statistics: &mut Statistics) {
        statistics.trusted_peers = self.peers.trusted();
        statistics.untrusted_peers = self.peers.untrusted();
        statistics.queue_packets = self.queues.packets() + self.held.packets();
        statistics.queue_octets = self.queues.octets() + self.held.octets();
    }

    /// Whether a datagram may be sent to an endpoint that was taken from a packet: global unicast,
    /// and neither this host's nor the client's own mapping (L-02, L-05).
    fn may_reach(&self, shared: &Shared, endpoint: Endpoint) -> bool {
        let is_own = self
            .identity
            .is_some_and(|identity| identity.mapped == endpoint);
        !is_own && shared.own_ipv4.may_send_to(endpoint)
    }

    /// Whether a Teredo address names a client that bubbles may be sent to (L-05, L-06).
    fn may_be_peer(&self, shared: &Shared, address: &[u8; 16]) -> bool {
        self.may_reach(shared, embedded_mapping(address))
    }
}
