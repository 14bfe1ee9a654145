//! The Teredo relay (RFC 4380 section 5.4) between clients and native IPv6 hosts, or, as a
//! host-specific relay, one native host.
//!
//! The [order of calls](crate#the-order-of-calls) keeps packets in order, and the relay enforces it:
//! [`Relay::handle_ipv6`] returns no packet while others wait in [`Relay::poll_transmit`], and
//! [`Relay::poll_event`] returns no event until all of those are taken.

mod bubbles;
mod config;
mod cookie;
mod hearing;
mod proof;
mod reception;
mod sharing;
mod state;
mod statistics;
mod transmission;
mod trust;
mod unproved;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, Ipv6Addr},
    ops::Range,
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::{Endpoint, embedded_mapping, embedded_server},
    cookie::CookieKey,
    peers::Peer as MapPeer,
    scope::is_global_unicast,
    time::Instant,
    traffic::Traffic,
    wire::IPV6_HEADER,
};

pub use config::Config;
pub use hearing::{MAX_MEMBERS, Member};
pub use sharing::{Learned, Report};
pub use state::{Secrets, State};
pub use statistics::{Bubble, DropReason, Question, Statistics};

pub use crate::shared::peers::PeerTraffic;

use crate::shared::{
    keyed::Keyed,
    limiter::{Bucket, Rate, Tiers},
    own::OwnIpv4,
    party::NOBODY,
    peers::{Bounds, Budget, Histories, Patience, PeerIndex, Peers, Timing},
    turns::Turns,
};
use cookie::Cookie;
use proof::Proof;
use sharing::Sharing;
use trust::STAMP_DELAY;
use unproved::Unproved;

/// A packet for the caller to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A UDP datagram from the relay's endpoint, whose outer DF and ECN are to be clear (W-06).
    Datagram {
        /// Destination endpoint.
        to: Endpoint,
        /// UDP payload.
        payload: Vec<u8>,
    },
    /// An indirect bubble, for the server in the same process ([`Config::own_server`]) to forward:
    /// see [`Server::handle_relay_bubble`](crate::Server::handle_relay_bubble).
    OwnServer {
        /// The bubble, an IPv6 packet.
        bubble: [u8; IPV6_HEADER],
    },
    /// An ICMPv6 error of this host, for the kernel to route.
    Ipv6(Vec<u8>),
}

/// A change of the peers that the fast path may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The mapping of a trusted peer is proved, or its packets pass through the relay although
    /// the fast path could serve them (at most once a second).
    PeerTrusted {
        /// The peer's Teredo address.
        address: Ipv6Addr,
        /// Endpoint that reaches the peer.
        mapped: Endpoint,
        /// When a packet of the peer last arrived.
        last_received: Instant,
        /// When a packet was last sent to the peer.
        last_sent: Instant,
    },
    /// The peer is not trusted any more, or its mapping is not proved any more.
    PeerForgotten {
        /// The peer's Teredo address.
        address: Ipv6Addr,
    },
}

/// The state of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Teredo address of the peer.
    pub address: Ipv6Addr,
    /// Endpoint that reaches the peer; if it is not trusted, its last or claimed one.
    pub mapped: Endpoint,
    /// Whether packets are sent to [`PeerInfo::mapped`].
    pub trusted: bool,
    /// Whether something that was sent only to [`PeerInfo::mapped`] came back from there.
    pub proved: bool,
    /// Whether [`PeerInfo::mapped`] differs from the endpoint in the address.
    pub symmetric: bool,
    /// When a packet of the peer last arrived; [`Instant::ZERO`] if never.
    pub last_received: Instant,
    /// When a packet was last sent to the peer; [`Instant::ZERO`] if never.
    pub last_sent: Instant,
    /// The packets in both directions since the peer was known, also those of the fast path.
    pub traffic: Traffic,
    /// Number of packets that wait for the peer to answer.
    pub queued: usize,
}

/// Upper bound on queued events. Excess events are dropped; within a second the next packet of a
/// trusted peer, or the sweep that finds strangers in the map, makes up for them.
const MAX_EVENTS: usize = 65_536;

/// Number of paces towards servers, 40 octets each. Servers whose hashes meet share one: to slow down
/// all, an attacker has to name half a million clients of other servers in a second.
const SERVERS: usize = 65_536;

/// The most memory that a relay takes for each of [`Config::max_peers`], in octets, whatever arrives: the peers, what
/// is under way for those that are not trusted, and their places in the lines for their servers. The packets that wait
/// have a bound of their own, [`Config::queue_total_bytes`].
pub const PEER_OCTETS: usize = 512;

/// A Teredo relay; the [module](self) tells how to use it.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    own_ipv4: OwnIpv4,
    own_ipv6: Vec<[u8; 16]>,
    serves_all: bool,
    draining: bool,
    cookie: Cookie,
    keyed: Keyed,
    random: StdRng,
    peers: Peers<Proof>,
    queues: Budget,
    unreachable_rate: Rate,
    unreachable_bucket: Bucket,
    new_peer_rates: Tiers,
    direct_bubble_rates: Tiers,
    question_rates: Tiers,
    unproved: Unproved,
    turns: Turns,
    direct_bubble_histories: Histories,
    /// The peers that others told about, if the relay is one of a fleet.
    sharing: Option<Box<Sharing>>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    statistics: Statistics,
}

impl Relay {
    /// Creates a relay without peers. `seed` comes from the operating system's random number
    /// generator: the cookies and hash tables are as secret as it is (L-16).
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        let secrets = Secrets::new(&mut random);
        Self::with_secrets(config, random, secrets)
    }

    fn with_secrets(mut config: Config, random: StdRng, secrets: Secrets) -> Self {
        let (key, keyed) = (secrets.cookie_key(), secrets.tables);
        config.direct_bubbles |= config.host_specific;
        let (own_ipv4, own_ipv6) = (config.own_ipv4.clone(), config.own_ipv6.clone());
        let bounds = Bounds {
            packets_per_peer: config.queue_per_peer,
            octets: config.queue_total_bytes,
            octets_per_source: config.queue_source_bytes,
        };
        let timing = Timing {
            lifetime: config.peer_lifetime,
            refresh_after: config.refresh_after,
            grace: STAMP_DELAY,
        };
        let mut relay = Self {
            own_ipv4: OwnIpv4::new(config.ipv4_scope),
            own_ipv6: Vec::new(),
            serves_all: config.served.iter().any(|served| served.prefix_len() == 0),
            draining: false,
            cookie: Cookie::new(key),
            keyed,
            random,
            peers: Peers::new(config.max_peers, timing, keyed),
            queues: Budget::new(bounds, keyed),
            unreachable_rate: config.unreachable_rate,
            unreachable_bucket: Bucket::default(),
            new_peer_rates: config.new_peer_rates.tiers(keyed),
            direct_bubble_rates: config.direct_bubble_rates.tiers(keyed),
            question_rates: config.question_rates.tiers(keyed),
            unproved: Unproved::new(&config, keyed),
            turns: Turns::new(config.server_pace, SERVERS, keyed),
            direct_bubble_histories: Histories::new(config.max_peers / 8, Patience::BackOff, keyed),
            sharing: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            statistics: Statistics::default(),
            config,
        };
        relay.set_own_addresses(&own_ipv4, &own_ipv6);
        relay
    }

    /// Sets the addresses of this host, and forgets the peers that they exclude.
    ///
    /// The relay sends nothing to `ipv4` and accepts nothing from it; the directed broadcast
    /// addresses of attached networks belong in it as well (L-05), the relay's own address need
    /// not. Errors are sent from the first global address of `ipv6` that is no Teredo address; a
    /// host-specific relay serves all of `ipv6`.
    pub fn set_own_addresses(&mut self, ipv4: &[Ipv4Addr], ipv6: &[Ipv6Addr]) {
        self.own_ipv6 = ipv6.iter().map(Ipv6Addr::octets).collect();
        if !self.own_ipv4.set(ipv4, [self.config.endpoint.address]) {
            return;
        }
        let refused: Vec<PeerIndex> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                self.own_ipv4.contains(peer.mapped.address) || !self.may_be_peer(&peer.address)
            })
            .map(|(index, _)| index)
            .collect();
        for index in refused {
            self.remove(index);
        }
    }

    /// Adopts a peer that an earlier run of this relay left in the fast path's map, if it is still
    /// trusted, fresh and allowed, and there is room. Returns whether it may stay in the map.
    pub fn adopt_peer(&mut self, now: Instant, address: Ipv6Addr, peer: &MapPeer) -> bool {
        let octets = address.octets();
        let last_received = peer.last_received.min(now);
        let fresh = now.saturating_since(last_received) < self.config.peer_lifetime;
        let acceptable = fresh
            && self.config.prefix.contains(&octets)
            && self.may_be_peer(&octets)
            && self.own_ipv4.may_send_to(peer.mapped);
        if !acceptable || self.peers.is_trusted_full() || self.peers.find(&octets).is_some() {
            return false;
        }
        self.make_room();
        let index = self.peers.insert(octets, peer.mapped, NOBODY);
        self.peers.trust(index);
        let entry = &mut self.peers[index];
        entry.symmetric = peer.is_symmetric(&octets);
        entry.last_received = last_received;
        entry.last_sent = peer.last_sent.min(now);
        self.statistics.trusted += 1;
        self.peers.put_off_touch(now, index);
        self.peers.arm_trusted(now, index);
        self.adopt_proof(now, index);
        self.adopt_hearing(now, index);
        true
    }

    /// Returns the configuration that the relay was made with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the key of the cookies, and the time by which they are older at most than the clock
    /// says, for a fast path that recognises them.
    pub fn cookies(&self) -> (CookieKey, Duration) {
        (self.cookie.key(), self.cookie.skipped_at_most())
    }

    /// Stops taking new peers; those that the relay has already go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Returns `true` once [`Relay::drain`] was called.
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Returns the next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Returns whether packets wait in [`Relay::poll_transmit`].
    pub fn has_packets(&self) -> bool {
        !self.transmits.is_empty()
    }

    /// Returns whether events wait in [`Relay::poll_event`], or peers in [`Relay::poll_news`].
    pub fn has_news(&self) -> bool {
        let sharing = self.sharing.as_ref();
        !self.events.is_empty() || sharing.is_some_and(|sharing| sharing.has_news())
    }

    /// Returns the next event, once all packets are taken from [`Relay::poll_transmit`]: the fast
    /// path must not overtake packets that waited.
    pub fn poll_event(&mut self) -> Option<Event> {
        if !self.transmits.is_empty() {
            return None;
        }
        self.events.pop_front()
    }

    /// Returns the time at which to call [`Relay::handle_timeout`], or `None` if nothing will be due.
    /// An earlier call does no harm.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.peers.deadline().map(|(deadline, _)| deadline);
        [peers, self.turns.deadline()].into_iter().flatten().min()
    }

    /// Returns all peers, in no particular order.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> {
        let peers = self.peers_in(0..usize::MAX);
        peers.map(|(_, peer)| peer)
    }

    /// Returns the number of slots of the list of peers, of which some may be free.
    pub fn slots(&self) -> usize {
        self.peers.slots()
    }

    /// Returns the slot of a peer.
    pub fn slot(&self, address: &[u8; 16]) -> Option<usize> {
        self.peers.find(address).map(PeerIndex::slot)
    }

    /// Iterates over the peers in these slots, each with its slot. A peer keeps its slot.
    pub fn peers_in(&self, slots: Range<usize>) -> impl Iterator<Item = (usize, PeerInfo)> {
        self.peers.in_slots(slots).map(|(slot, peer)| {
            let peer = PeerInfo {
                address: peer.address.into(),
                mapped: peer.mapped,
                trusted: peer.is_trusted(),
                proved: peer.state.holds(),
                symmetric: peer.symmetric,
                last_received: peer.last_received,
                last_sent: peer.last_sent,
                traffic: self.peers.accounts.get(slot).total,
                queued: peer.queued(),
            };
            (slot, peer)
        })
    }

    /// Returns the number of times that a peer was asked for a sign of life since its last one, a few at
    /// most; zero if it is not a peer.
    pub fn unanswered(&self, address: &[u8; 16]) -> u8 {
        let found = self.peers.find(address);
        let pending = found.and_then(|index| self.peers[index].pending.as_deref());
        pending.map_or(0, |pending| pending.history.unanswered())
    }

    /// Loads the state of a peer into the CPU's cache. Doing so for a whole batch of packets before
    /// the first is handled lets the memory accesses overlap.
    pub fn prefetch(&self, address: &[u8; 16]) {
        if let Some(index) = self.peers.find(address) {
            std::hint::black_box(self.peers[index].last_received);
            std::hint::black_box(self.peers.accounts.get(index.slot()).total);
        }
    }

    /// Returns `true` if packets of this peer are accepted from the endpoint that the relay knows
    /// (S-30).
    pub fn is_usable(&self, now: Instant, address: &[u8; 16]) -> bool {
        let found = self.peers.find(address);
        found.is_some_and(|index| self.peers.is_usable(now, index))
    }

    /// Returns `true` if the mapping of this peer is proved, so that the fast path may have it.
    pub fn has_proved(&self, address: &[u8; 16]) -> bool {
        let found = self.peers.find(address);
        found.is_some_and(|index| self.peers[index].is_trusted() && self.peers[index].state.holds())
    }

    /// Returns the counters since the start, and the current number of peers and waiting packets.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.statistics;
        statistics.trusted_peers = self.peers.trusted();
        statistics.untrusted_peers = self.peers.untrusted();
        statistics.queue_packets = self.queues.packets();
        statistics.queue_octets = self.queues.octets();
        statistics.waiting_bubbles = self.turns.waiting();
        statistics
    }

    /// Whether a Teredo address is one that the relay would create an entry for (R-01, L-06).
    fn may_be_peer(&self, address: &[u8; 16]) -> bool {
        self.own_ipv4.may_send_to(embedded_mapping(address))
            && self.may_ask(embedded_server(address))
    }

    /// Whether indirect bubbles may be sent to this server (L-06).
    fn may_ask(&self, server: [u8; 4]) -> bool {
        self.is_own_server(server) || self.own_ipv4.is_elsewhere(server)
    }

    /// Whether this is the server in the same process.
    fn is_own_server(&self, server: [u8; 4]) -> bool {
        let own = self.config.own_server;
        own.is_some_and(|own| own.octets() == server)
    }

    /// Whether the address is one of a Teredo service, and so not native.
    fn is_teredo(&self, address: &[u8; 16]) -> bool {
        self.config.prefix.contains(address) || self.config.teredo.contains(address)
    }

    /// Whether the relay serves this native address.
    fn serves(&self, address: &[u8; 16]) -> bool {
        if self.config.host_specific {
            return self.own_ipv6.contains(address);
        }
        self.serves_all || {
            let address = Ipv6Addr::from(*address);
            let mut served = self.config.served.iter();
            served.any(|served| served.contains(&address))
        }
    }

    /// The address that errors are sent from.
    fn error_source(&self) -> Option<[u8; 16]> {
        let mut candidates = self.own_ipv6.iter().copied();
        candidates.find(|address| is_global_unicast(address) && !self.is_teredo(address))
    }

    /// Makes the traffic of peers be reported, from now on or as before the state was stored.
    pub fn begin_reports(&mut self) {
        self.peers.accounts.begin_reports();
    }

    /// Calls `report` with the peers in these slots that have traffic which was not reported yet.
    pub fn report(&mut self, slots: Range<usize>, report: impl FnMut(PeerTraffic)) {
        self.peers.report(slots, report);
    }

    /// Returns the traffic to report of peers that were removed since the last call.
    pub fn take_removed(&mut self) -> Vec<PeerTraffic> {
        self.peers.accounts.take_removed()
    }

    /// Sends a packet of a native host to a peer after everything that waits already.
    fn transmit(&mut self, index: PeerIndex, to: Endpoint, payload: Vec<u8>) {
        self.note_encapsulated(index, payload.len());
        self.transmits.push_back(Transmit::Datagram { to, payload });
    }

    fn note_encapsulated(&mut self, index: PeerIndex, octets: usize) {
        self.statistics.encapsulated.add(octets);
        self.peers.traffic_mut(index).encap.add(octets);
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            self.statistics.events_lost += 1;
        }
    }
}
