//! A relay and what is around it, for the targets that have one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use teredo_common::{
    address::{Endpoint, ServicePrefix, embedded_server},
    peers,
    scope::{Ipv4Scope, is_global_unicast, is_link_local},
    wire::{ECHO_REQUEST, ICMPV6},
};
use teredo_proto::{
    Durations, Instant, Rate, Relay,
    relay::{Config, Event, State, Transmit},
    wire::{encapsulation, ipv6::Header},
};

use super::scenery::{OWN_IPV4, OWN_IPV6, RELAY};
use crate::bytes::Bytes;

/// Questions that are remembered.
const QUESTIONS: usize = 8;
/// Bubbles that one packet may cause: four bursts of two, and those that refresh.
const BUBBLES: u64 = 16;

/// A relay, and what an observer of it knows.
pub struct World {
    pub relay: Relay,
    pub config: Config,
    pub now: Instant,
    pub own_ipv4: BTreeSet<Ipv4Addr>,
    /// The peers in the map of the fast path, as the events say.
    pub fast: BTreeMap<[u8; 16], Endpoint>,
    /// The source of the last indirect bubble to each peer.
    pub cookies: BTreeMap<[u8; 16], [u8; 16]>,
    /// The last questions, oldest first: where they went to, and their packets.
    pub questions: VecDeque<(Endpoint, Vec<u8>)>,
    /// Peers and the endpoints at which they were asked whether they are there.
    asked: BTreeSet<([u8; 16], Endpoint)>,
    /// Those from which something came afterwards.
    answered: BTreeSet<([u8; 16], Endpoint)>,
    /// The events, for whom they concern.
    pub told: Vec<Event>,
    /// Bubbles for the server in the same process.
    pub for_server: Vec<Vec<u8>>,
    /// Packets of native hosts, and what else may be an occasion to send.
    occasions: u64,
    packets_sent: u64,
    bubbles_sent: u64,
    errors_sent: u64,
}

impl World {
    /// A relay, configured by the next octets.
    pub fn new(bytes: &mut Bytes<'_>, now: Instant, own_server: Option<Ipv4Addr>) -> Self {
        let [flags, rates, size] = bytes.array();
        let mut config = Config::new(RELAY);
        config.direct_bubbles = flags & 2 != 0;
        config.honor_cone = flags & 4 != 0;
        config.host_specific = flags & 0x30 == 0x30;
        if flags & 8 != 0 {
            config.served = ["2000::/16", "2001:db8::/32"]
                .map(|one| one.parse().expect("it is one"))
                .into();
        }
        if flags & 0x40 != 0 {
            config.ipv4_scope = Ipv4Scope::Lab;
        }
        if flags & 0x80 != 0 {
            config.peer_lifetime = Duration::from_secs(8);
            config.refresh_after = Duration::from_secs(4);
        }
        config.own_ipv6 = vec!["fe80::1".parse().expect("an address"), OWN_IPV6.into()];
        config.own_server = own_server;
        config.max_peers = 2 + usize::from(size % 32);
        config.queue_per_peer = 1 + usize::from(size >> 5);
        config.queue_total_bytes = 4096;
        config.queue_source_bytes = 2048;
        if rates & 1 != 0 {
            config.direct_bubble_rates.address = Rate::new(1, 3);
        }
        if rates & 2 != 0 {
            config.new_peer_rates.subnet = Rate::new(1, 4);
        }
        if rates & 8 != 0 {
            config.question_rates.address = Rate::new(1, 2);
        }
        if rates & 0x10 != 0 {
            config.unproved_rates.address = Rate::new(1, 4);
        }
        if rates & 4 != 0 {
            config.server_pace.first = 1;
            config.server_pace.most = 2;
        }
        let own_ipv4 = BTreeSet::from([OWN_IPV4]);
        config.own_ipv4 = own_ipv4.iter().copied().collect();
        Self {
            relay: Relay::new(config.clone(), [42; 32]),
            config,
            now,
            own_ipv4,
            fast: BTreeMap::new(),
            cookies: BTreeMap::new(),
            questions: VecDeque::new(),
            asked: BTreeSet::new(),
            answered: BTreeSet::new(),
            told: Vec::new(),
            for_server: Vec::new(),
            occasions: 0,
            packets_sent: 0,
            bubbles_sent: 0,
            errors_sent: 0,
        }
    }

    /// A native host sends a packet. Returns the datagram that leaves at once.
    pub fn native_sends(&mut self, packet: &[u8]) -> Option<(Endpoint, Vec<u8>)> {
        self.occasions += 1;
        let mut buffer = packet.to_vec();
        let sent = self.relay.handle_ipv6(self.now, &mut buffer);
        let sent = sent.map(|(to, payload)| (to, payload.to_vec()));
        if let Some((to, payload)) = &sent {
            assert_eq!(packet.get(..payload.len()), Some(&payload[..]), "unchanged");
            self.sent(*to, payload);
        }
        self.drain();
        sent
    }

    /// A datagram arrives. Returns the packet for the kernel.
    pub fn arrives(&mut self, from: Endpoint, ecn: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = payload.to_vec();
        self.occasions += 1;
        if let Ok(parts) = encapsulation::parse(payload)
            && let Ok(header) = Header::parse(parts.packet)
            && self.asked.contains(&(header.source(), from))
        {
            self.answered.insert((header.source(), from));
        }
        let before = self.bubbles_sent;
        let forwarded = self.relay.handle_datagram(self.now, from, ecn, &mut buffer);
        let forwarded = forwarded.map(|packet| packet.to_vec());
        if let Some(packet) = &forwarded {
            self.forwarded(from, packet);
        }
        self.drain();
        assert!(
            self.bubbles_sent - before <= 2,
            "a client causes two questions"
        );
        forwarded
    }

    fn forwarded(&self, from: Endpoint, packet: &[u8]) {
        let header = Header::parse(packet).expect("a packet");
        let (source, destination) = (header.source(), header.destination());
        assert_eq!(header.packet_length(), packet.len());
        assert!(!header.is_bubble(), "R-23");
        assert!(self.config.prefix.contains(&source), "R-20");
        let mut peers = self.relay.peers();
        let is_known = peers
            .any(|peer| peer.address.octets() == source && peer.trusted && peer.mapped == from);
        assert!(is_known, "R-20, R-21");
        assert!(is_global_unicast(&destination), "R-24");
        assert!(!self.config.prefix.contains(&destination), "R-24");
        if self.config.host_specific {
            assert_eq!(destination, OWN_IPV6, "R-30");
        }
        let address = Ipv6Addr::from(destination);
        assert!(
            self.config.served.iter().any(|net| net.contains(&address)),
            "R-24"
        );
    }

    /// Checks a datagram that leaves.
    fn sent(&mut self, to: Endpoint, payload: &[u8]) {
        assert_ne!(to.port(), 0);
        assert!(self.config.ipv4_scope.accepts(to.address), "{to}: L-05");
        assert!(!self.is_own(to.ip()), "{to}: L-02");
        let parts = encapsulation::parse(payload).expect("a Teredo payload");
        assert!(parts.authentication.is_none() && parts.origin.is_none());
        let header = Header::parse(parts.packet).expect("a packet");
        let (source, destination) = (header.source(), header.destination());
        assert!(self.config.prefix.contains(&destination), "R-01");
        let is_question = !parts.trailers.is_empty() || is_echo_of_relay(parts.packet);
        if is_question {
            self.asked.insert((destination, to));
            self.questions.push_back((to, parts.packet.to_vec()));
            if self.questions.len() > QUESTIONS {
                self.questions.pop_front();
            }
            self.count_bubble();
            return;
        }
        if header.is_bubble() && is_link_local(&source) {
            self.cookies.insert(destination, source);
            self.count_bubble();
            return;
        }
        assert!(!self.config.prefix.contains(&source), "R-08");
        assert!(header.packet_length() <= self.config.mtu.into(), "R-07");
        self.packets_sent += 1;
        assert!(self.packets_sent <= self.occasions, "one for each");
    }

    fn count_bubble(&mut self) {
        self.bubbles_sent += 1;
        assert!(
            self.bubbles_sent <= BUBBLES * self.occasions,
            "amplification"
        );
    }

    fn is_own(&self, address: Ipv4Addr) -> bool {
        self.own_ipv4.contains(&address) || address == RELAY.ip()
    }

    /// The fast path reports what it saw of a peer.
    pub fn stamps(&mut self, address: &[u8; 16], received: Instant, sent: Instant) {
        self.occasions += 1;
        let is_trusted = self.relay.record_stamps(address, received, sent);
        assert_eq!(
            is_trusted,
            self.fast.contains_key(address),
            "the map has those"
        );
        self.drain();
    }

    /// A peer of an earlier run is found in the map.
    pub fn adopt(&mut self, address: [u8; 16], peer: &peers::Peer) {
        self.occasions += 1;
        if self.relay.adopt_peer(self.now, address.into(), peer) {
            self.fast.insert(address, peer.mapped);
            self.answered.insert((address, peer.mapped));
            self.told.push(Event::PeerTrusted {
                address: address.into(),
                mapped: peer.mapped,
                last_received: peer.last_received,
                last_sent: peer.last_sent,
            });
        }
        self.drain();
    }

    /// Changes the addresses of the host.
    pub fn set_own(&mut self, ipv4: &[Ipv4Addr]) {
        self.own_ipv4 = ipv4.iter().copied().collect();
        self.relay.set_own_addresses(ipv4, &[OWN_IPV6.into()]);
        self.drain();
    }

    /// Returns the IPv4 addresses of the host.
    pub fn own_ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.own_ipv4.iter().copied().chain([RELAY.ip()])
    }

    pub fn suspend(&mut self, duration: Duration) {
        self.relay.handle_suspension(duration);
        self.drain();
        assert!(self.fast.is_empty(), "P-04");
    }

    /// Another process goes on.
    pub fn restart(&mut self) {
        let state = super::handed_over(&self.relay.state(self.now));
        let config = Config {
            own_ipv4: self.own_ipv4.iter().copied().collect(),
            ..self.config.clone()
        };
        self.relay = Relay::restore(config, [43; 32], self.now, state);
        self.drain();
    }

    pub fn pass(&mut self, duration: Duration) {
        let mut now = self.now;
        super::pass(
            self,
            &mut now,
            duration,
            |world| world.relay.poll_timeout(),
            |world, now| {
                world.now = now;
                world.relay.handle_timeout(now);
                world.drain();
            },
        );
        self.now = now;
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.relay.poll_transmit() {
            match transmit {
                Transmit::Datagram { to, payload } => self.sent(to, &payload),
                Transmit::OwnServer { bubble } => {
                    let header = Header::parse(&bubble).expect("a bubble");
                    let (source, destination) = (header.source(), header.destination());
                    assert!(header.is_bubble());
                    let server = embedded_server(&destination);
                    assert_eq!(self.config.own_server.map(|one| one.octets()), Some(server));
                    self.cookies.insert(destination, source);
                    self.count_bubble();
                    self.for_server.push(bubble.into());
                }
                Transmit::Ipv6(packet) => {
                    let header = Header::parse(&packet).expect("a packet");
                    assert_eq!(header.source(), OWN_IPV6, "R-16");
                    assert!(packet.len() <= 1280);
                    self.errors_sent += 1;
                    assert!(self.errors_sent <= self.occasions, "one for each");
                }
            }
        }
        while let Some(event) = self.relay.poll_event() {
            self.told.push(event);
            match event {
                Event::PeerTrusted {
                    address,
                    mapped,
                    last_received,
                    last_sent,
                    ..
                } => {
                    assert!(last_received <= self.now && last_sent <= self.now);
                    self.fast.insert(address.octets(), mapped);
                }
                Event::PeerForgotten { address } => drop(self.fast.remove(&address.octets())),
            }
        }
    }

    /// Checks what holds at every moment.
    pub fn check(&self) {
        let (statistics, config) = (self.relay.statistics(), &self.config);
        let peers: Vec<_> = self.relay.peers().collect();
        assert!(peers.len() <= config.max_peers, "P-06");
        assert!(
            statistics.untrusted_peers <= (config.max_peers / 8).max(1),
            "P-06"
        );
        assert_eq!(
            peers.len(),
            statistics.trusted_peers + statistics.untrusted_peers
        );
        assert!(statistics.queue_octets <= config.queue_total_bytes, "P-07");
        let queued: usize = peers.iter().map(|peer| peer.queued).sum();
        assert_eq!(queued, statistics.queue_packets);
        let mut proved = BTreeMap::new();
        for peer in &peers {
            let address = peer.address.octets();
            assert!(peer.queued <= config.queue_per_peer, "P-07");
            assert!(config.prefix.contains(&address), "R-01");
            assert!(!self.is_own(peer.mapped.ip()), "L-02");
            assert!(peer.last_received <= self.now && peer.last_sent <= self.now);
            assert!(peer.trusted || !peer.proved, "R-35");
            if peer.proved {
                assert!(self.answered.contains(&(address, peer.mapped)), "R-35");
                proved.insert(address, peer.mapped);
            }
        }
        assert_eq!(proved, self.fast, "the events tell everything");
    }

    /// Checks that everything is forgotten in the end.
    pub fn end(&mut self) {
        self.inspect();
        self.pass(Duration::from_secs(1000));
        self.check();
        assert_eq!(self.relay.peers().count(), 0);
        assert_eq!(self.relay.poll_timeout(), None);
        assert_eq!(self.relay.statistics().waiting_bubbles, 0);
    }
}

impl World {
    /// Looks at the relay as the daemon does while it serves: at its peers, their traffic and the counters; and at
    /// copies of it.
    fn inspect(&mut self) {
        let slots = self.relay.slots();
        let peers: Vec<_> = self.relay.peers_in(0..slots).collect();
        for (slot, peer) in &peers {
            let address = peer.address.octets();
            assert_eq!(self.relay.slot(&address), Some(*slot));
            assert!(peer.trusted || !self.relay.has_proved(&address));
            assert!(self.relay.unanswered(&address) < u8::MAX);
        }
        self.relay.begin_reports();
        let mut reported = 0;
        self.relay.report(0..slots, |_| reported += 1);
        assert!(reported <= peers.len());
        self.relay
            .report(0..slots, |_| panic!("nothing was forwarded since"));
        self.relay.take_removed();
        assert!(self.relay.take_removed().is_empty());
        let statistics = self.relay.statistics();
        for durations in [
            statistics.waits,
            statistics.first_waits,
            statistics.round_trips,
        ] {
            check_durations(&durations);
        }
        let known = peers.iter().take(2);
        let known: Vec<_> = known.map(|(_, peer)| peer.address.octets()).collect();
        let copy = self.relay.copy(self.now, [44; 32], &known);
        assert!(copy.peers().count() <= known.len());
        assert_eq!(copy.is_draining(), self.relay.is_draining());
        let secrets = super::handed_over(&self.relay.secrets());
        let state = State::of_secrets(secrets);
        assert_eq!(state.peers(), 0);
        let config = self.relay.config().clone();
        let successor = Relay::restore(config, [45; 32], self.now, state);
        assert_eq!(successor.cookies().0, self.relay.cookies().0);
    }
}

/// Checks that the classes of a distribution hold everything.
pub fn check_durations(durations: &Durations) {
    let counted: u64 = durations.classes().iter().map(|(_, count)| count).sum();
    assert!(counted > 0 || durations.sum().is_zero());
}

/// Whether a packet asks a client whether it is at its mapping.
fn is_echo_of_relay(packet: &[u8]) -> bool {
    packet.len() == 56
        && packet[6] == ICMPV6
        && packet[40] == ECHO_REQUEST
        && packet[44..48] == *b"Te\0\0"
}

/// Whether an address belongs to the service.
pub fn is_teredo(address: &[u8; 16]) -> bool {
    ServicePrefix::STANDARD.contains(address)
}
