//! Relays of a fleet, and the network between them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::{Endpoint, TeredoAddress, embedded_mapping},
    time::Instant,
    wire::{NO_NEXT_HEADER, SERVER_PORT},
};

use crate::{
    Pace,
    fleet::{Clocks, Config, Fleet, Keys},
    relay::{self, PeerInfo, Relay, Transmit},
    testing::{address, bubble, endpoint, ipv6},
    wire::{ipv6::Header, trailer::Trailer},
};

pub const HOST: &str = "2000::b";
/// Time since 1970 when the simulation begins.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);
const SERVICE: &str = "5.6.7.8:3545";
const SERVER: [u8; 4] = [1, 2, 3, 4];

/// One relay.
pub struct Node {
    pub relay: Relay,
    pub fleet: Fleet,
    pub address: SocketAddr,
    pub is_up: bool,
    /// Milliseconds by which its wall clock is ahead.
    pub ahead: i64,
    /// Time since its host started, when the simulation began.
    uptime: Duration,
}

/// A datagram of one relay to another.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub at: Duration,
    pub from: usize,
    pub to: usize,
    pub payload: Vec<u8>,
}

/// All relays, and the network between them.
pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Duration,
    pub loss: f64,
    pub duplication: f64,
    pub delay: Duration,
    pub jitter: Duration,
    /// Pairs of sender and receiver between which nothing passes.
    pub cut: BTreeSet<(usize, usize)>,
    /// Datagrams and octets that left each node for others.
    pub sent: Vec<(u64, u64)>,
    /// The datagrams that left, if they are recorded.
    pub tape: Option<Vec<Recorded>>,
    /// The last cookie that went to each peer by its server.
    pub cookies: BTreeMap<[u8; 16], [u8; 16]>,
    /// The last cookie that went to each mapping.
    pub questions: BTreeMap<([u8; 16], Endpoint), [u8; 16]>,
    /// Peers and endpoints that brought a cookie back to any relay.
    pub proved: BTreeSet<([u8; 16], Endpoint)>,
    /// The packets for clients that left, with their destination.
    pub packets: Vec<(usize, Endpoint, [u8; 16])>,
    /// Bubbles that left each node for servers.
    pub bubbles: usize,
    pub random: StdRng,
    under_way: BinaryHeap<Reverse<(Duration, u64, usize, usize)>>,
    payloads: BTreeMap<u64, Vec<u8>>,
    serial: u64,
    change: fn(&mut relay::Config),
}

/// The address of the client with this number.
pub fn client(number: u16) -> [u8; 16] {
    TeredoAddress::new(SERVER.into(), mapping(number))
        .encode()
        .octets()
}

/// The endpoint in its address.
pub fn mapping(number: u16) -> Endpoint {
    let [high, low] = number.to_be_bytes();
    Endpoint::new([9, high, low, 1].into(), 4096)
}

pub fn keys(number: u8) -> Keys {
    Keys::new(&[[number; 32]]).expect("a key")
}

pub fn member(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 3546))
}

impl Net {
    /// A fleet that has begun, on a fair network.
    pub fn new(count: usize) -> Self {
        let mut net = Self::starting(count, |_| ());
        net.run(3_000);
        assert!(net.nodes.iter().all(|node| node.fleet.has_joined()));
        net
    }

    /// A fleet whose relays have just started.
    pub fn starting(count: usize, change: fn(&mut relay::Config)) -> Self {
        let mut net = Self {
            nodes: Vec::new(),
            now: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            cut: BTreeSet::new(),
            sent: vec![(0, 0); count],
            tape: None,
            cookies: BTreeMap::new(),
            questions: BTreeMap::new(),
            proved: BTreeSet::new(),
            packets: Vec::new(),
            bubbles: 0,
            random: StdRng::seed_from_u64(1),
            under_way: BinaryHeap::new(),
            payloads: BTreeMap::new(),
            serial: 0,
            change,
        };
        for number in 0..count {
            let node = net.node(number, count);
            net.nodes.push(node);
        }
        net
    }

    fn config(&self) -> relay::Config {
        let mut config = relay::Config::new(endpoint(SERVICE));
        config.own_ipv6 = vec!["2001:db8::1".parse().expect("an address")];
        // All clients have the same server.
        config.server_pace = Pace {
            first: 100_000,
            network: 100_000,
            total: 400_000,
            ..Pace::DEFAULT
        };
        (self.change)(&mut config);
        config
    }

    fn node(&mut self, number: usize, count: usize) -> Node {
        let config = self.config();
        let members = (0..count).map(member).collect();
        let uptime = Duration::from_secs(1_000 + 7_777 * number as u64);
        let clocks = clocks(self.now, uptime, 0);
        let config_of_fleet = Config::new(member(number), members);
        let mut node = Node {
            relay: Relay::new(config, self.random.random()),
            fleet: Fleet::new(config_of_fleet, keys(1), self.random.random(), clocks),
            address: member(number),
            is_up: true,
            ahead: 0,
            uptime,
        };
        node.fleet.enlist(clocks, &mut node.relay);
        node
    }

    pub fn clocks(&self, number: usize) -> Clocks {
        let node = &self.nodes[number];
        clocks(self.now, node.uptime, node.ahead)
    }

    /// Tells a relay of the others.
    pub fn set_members(&mut self, number: usize, members: &[SocketAddr]) {
        let clocks = self.clocks(number);
        let Node { relay, fleet, .. } = &mut self.nodes[number];
        fleet.set_members(clocks, members, relay);
    }

    /// Changes the configuration of relays that start from now on.
    pub fn set_change(&mut self, change: fn(&mut relay::Config)) {
        self.change = change;
    }

    /// Starts a relay anew, with an empty table.
    pub fn restart(&mut self, number: usize) {
        let ahead = self.nodes[number].ahead;
        let config = self.nodes[number].fleet.config.clone();
        // Milliseconds count as runs.
        self.now += Duration::from_millis(1);
        let node = self.node(number, self.nodes.len());
        self.nodes[number] = Node { ahead, ..node };
        let clocks = self.clocks(number);
        let Node { relay, fleet, .. } = &mut self.nodes[number];
        *fleet = Fleet::new(config, keys(1), [9; 32], clocks);
        fleet.enlist(clocks, relay);
    }

    /// Lets another process go on from the state of a relay.
    pub fn hand_over(&mut self, number: usize) {
        let (clocks, config) = (self.clocks(number), self.config());
        let Node { relay, fleet, .. } = &mut self.nodes[number];
        let state = rmp_serde::to_vec_named(&(relay.state(clocks.now), fleet.state(clocks.now)));
        let (of_relay, of_fleet) = rmp_serde::from_slice(&state.expect("octets")).expect("a state");
        *relay = Relay::restore(config, [7; 32], clocks.now, of_relay);
        *fleet = Fleet::restore(fleet.config.clone(), keys(1), [8; 32], clocks, of_fleet);
        fleet.enlist(clocks, relay);
        self.drain(number);
    }

    /// A native host sends to a client through this relay. Returns whether the packet left at once.
    pub fn send(&mut self, number: usize, to: &[u8; 16]) -> bool {
        let mut packet = ipv6(6, 64, &address(HOST), to, &[0; 40]);
        let clocks = self.clocks(number);
        let sent = self.nodes[number]
            .relay
            .handle_ipv6(clocks.now, &mut packet);
        let sent = sent.map(|(mapped, _)| mapped);
        self.packets
            .extend(sent.map(|mapped| (number, mapped, *to)));
        self.after(number);
        sent.is_some()
    }

    /// A datagram of a client arrives at this relay. Returns whether there is a packet to forward.
    pub fn arrive(&mut self, number: usize, from: Endpoint, payload: &[u8]) -> bool {
        let mut payload = payload.to_vec();
        if let Ok(header) = Header::parse(&payload) {
            let (source, destination) = (header.source(), header.destination());
            let indirect = self.cookies.get(&source) == Some(&destination);
            let question = self.questions.get(&(source, from)) == Some(&destination);
            if indirect || question {
                self.proved.insert((source, from));
            }
        }
        let clocks = self.clocks(number);
        let relay = &mut self.nodes[number].relay;
        let is_packet = relay
            .handle_datagram(clocks.now, from, 0, &mut payload)
            .is_some();
        self.after(number);
        is_packet
    }

    /// A client sends to the native host.
    pub fn client_sends(&mut self, number: usize, from: Endpoint, source: &[u8; 16]) -> bool {
        let packet = ipv6(6, 64, source, &address(HOST), &[0; 40]);
        self.arrive(number, from, &packet)
    }

    /// A client answers the last cookie that came by its server.
    pub fn answer(&mut self, number: usize, from: Endpoint, source: &[u8; 16]) {
        if let Some(&cookie) = self.cookies.get(source) {
            self.arrive(number, from, &bubble(source, &cookie));
        }
    }

    /// A client answers the last cookie that came directly.
    pub fn prove(&mut self, number: usize, from: Endpoint, source: &[u8; 16]) {
        if let Some(&cookie) = self.questions.get(&(*source, from)) {
            self.arrive(number, from, &bubble(source, &cookie));
        }
    }

    /// Makes a client known and proved at a relay, by all that it takes.
    pub fn introduce(&mut self, number: usize, mapped: Endpoint, source: &[u8; 16]) {
        self.send(number, source);
        self.answer(number, mapped, source);
        self.prove(number, mapped, source);
    }

    pub fn peer(&self, number: usize, address: &[u8; 16]) -> Option<PeerInfo> {
        let peers = &mut self.nodes[number].relay.peers();
        peers.find(|peer| peer.address.octets() == *address)
    }

    pub fn is_usable(&self, number: usize, address: &[u8; 16]) -> bool {
        let now = self.clocks(number).now;
        self.nodes[number].relay.is_usable(now, address)
    }

    /// The usable peers of a relay, with their mappings.
    pub fn usable(&self, number: usize) -> BTreeSet<([u8; 16], Endpoint)> {
        let peers = self.nodes[number].relay.peers();
        let usable = peers.filter(|peer| self.is_usable(number, &peer.address.octets()));
        usable
            .map(|peer| (peer.address.octets(), peer.mapped))
            .collect()
    }

    /// Advances the time by milliseconds.
    pub fn run(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        loop {
            let deadline = (0..self.nodes.len())
                .filter(|&number| self.nodes[number].is_up)
                .map(|number| (self.deadline(number), number))
                .min();
            let arrival = self.under_way.peek().map(|Reverse(next)| next.0);
            match (deadline, arrival) {
                (_, Some(at)) if at <= end && deadline.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    self.deliver();
                }
                (Some((due, number)), _) if due <= end => {
                    self.now = self.now.max(due);
                    self.wake(number);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn deadline(&self, number: usize) -> Duration {
        let node = &self.nodes[number];
        let fleet = node.fleet.poll_timeout();
        let first = node
            .relay
            .poll_timeout()
            .map_or(fleet, |relay| relay.min(fleet));
        Duration::from_nanos(first.as_nanos()).saturating_sub(node.uptime)
    }

    fn wake(&mut self, number: usize) {
        let clocks = self.clocks(number);
        let Node { relay, fleet, .. } = &mut self.nodes[number];
        relay.handle_timeout(clocks.now);
        fleet.handle_timeout(clocks, relay);
        self.drain(number);
    }

    fn deliver(&mut self) {
        let Some(Reverse((_, serial, from, to))) = self.under_way.pop() else {
            return;
        };
        let payload = self.payloads.remove(&serial).expect("a payload");
        self.receive(from, to, &payload);
    }

    /// A datagram of one node arrives at another.
    pub fn receive(&mut self, from: usize, to: usize, payload: &[u8]) {
        if !self.nodes[to].is_up {
            return;
        }
        let clocks = self.clocks(to);
        let Node { relay, fleet, .. } = &mut self.nodes[to];
        fleet.handle_datagram(clocks, member(from), payload, relay);
        self.drain(to);
    }

    fn after(&mut self, number: usize) {
        let clocks = self.clocks(number);
        let Node { relay, fleet, .. } = &mut self.nodes[number];
        fleet.flush(clocks, relay);
        self.drain(number);
    }

    /// Sends what a node has to send.
    pub fn drain(&mut self, number: usize) {
        while let Some(transmit) = self.nodes[number].relay.poll_transmit() {
            if let Transmit::Datagram { to, payload } = transmit {
                self.note(number, to, &payload);
            }
        }
        while self.nodes[number].relay.poll_event().is_some() {}
        while let Some(transmit) = self.nodes[number].fleet.poll_transmit() {
            let (datagrams, octets) = &mut self.sent[number];
            (*datagrams, *octets) = (*datagrams + 1, *octets + transmit.payload.len() as u64);
            let nodes = &mut self.nodes.iter();
            let to = nodes
                .position(|node| node.address == transmit.to)
                .expect("a member");
            if let Some(tape) = &mut self.tape {
                tape.push(Recorded {
                    at: self.now,
                    from: number,
                    to,
                    payload: transmit.payload.clone(),
                });
            }
            let is_lost = self.random.random_bool(self.loss);
            if is_lost || self.cut.contains(&(number, to)) {
                continue;
            }
            let copies = 1 + usize::from(self.random.random_bool(self.duplication));
            for _ in 0..copies {
                let delay = self.delay + self.jitter.mul_f64(self.random.random());
                self.serial += 1;
                self.payloads.insert(self.serial, transmit.payload.clone());
                let entry = (self.now + delay, self.serial, number, to);
                self.under_way.push(Reverse(entry));
            }
        }
    }

    fn note(&mut self, number: usize, to: Endpoint, payload: &[u8]) {
        let header = Header::parse(payload).expect("a packet");
        let (source, destination) = (header.source(), header.destination());
        let mut question = vec![];
        Trailer::NeighborSolicitation.write(&mut question);
        let is_question = payload[6] == NO_NEXT_HEADER && payload[40..] == question;
        if is_question {
            self.questions.insert((destination, to), source);
        } else if payload[6] == NO_NEXT_HEADER {
            assert_eq!(to, Endpoint::new(SERVER.into(), SERVER_PORT));
            self.cookies.insert(destination, source);
            self.bubbles += 1;
        } else if payload[6] == 6 {
            self.packets.push((number, to, destination));
        }
    }

    /// No relay trusts a peer that did not prove where it is, unless that is in its address.
    pub fn assert_proved(&self) {
        for number in 0..self.nodes.len() {
            for peer in self.nodes[number].relay.peers().filter(|peer| peer.trusted) {
                let key = (peer.address.octets(), peer.mapped);
                let is_embedded = peer.mapped == embedded_mapping(&key.0) && !peer.proved;
                let is_proved = is_embedded || self.proved.contains(&key);
                assert!(is_proved, "relay {number}: {peer:?}");
            }
        }
    }
}

fn clocks(now: Duration, uptime: Duration, ahead: i64) -> Clocks {
    let ahead = |wall: Duration| match u64::try_from(ahead) {
        Ok(ahead) => wall + Duration::from_millis(ahead),
        Err(_) => wall - Duration::from_millis(ahead.unsigned_abs()),
    };
    Clocks {
        now: Instant::from_nanos((now + uptime).as_nanos() as u64),
        wall: ahead(EPOCH + now),
    }
}
