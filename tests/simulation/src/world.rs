//! Machines, the networks between them, and time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, VecDeque},
    hash::Hash,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    time::Instant,
};
use teredo_proto::{fleet, wire::ipv6::Header};

use super::{
    network::{GatewayId, Network, Realm, Transit},
    node::{ClientNode, Node, Output, RelayNode},
    observer::Observer,
    router::Router,
    stack::Stack,
};

/// Delay from one end of the internet to the other by default.
pub const DELAY: Duration = Duration::from_millis(25);
/// Round-trip time across the internet.
pub const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Delay between two relays of a fleet.
const FLEET_DELAY: Duration = Duration::from_millis(1);
/// Delay on one link.
const LINK_DELAY: Duration = Duration::from_micros(500);
/// The start of worlds: late enough that no stamp is zero.
const BEGINNING: Instant = Instant::from_nanos(1_000_000_000_000);
/// Number of times that a node may be woken at one moment; one that is woken more often makes no
/// progress.
const WAKES: u32 = 200;

/// Number of datagrams in the memory of an eavesdropper in the internet.
const OVERHEARD: usize = 16;

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) usize);

/// The treatment of packets in the internet, of both families.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest delay of a packet.
    pub delay: Duration,
    /// The longest additional delay, with which packets overtake each other.
    pub jitter: Duration,
    /// The share of lost packets, 0 to 1.
    pub loss: f64,
    /// The share of duplicated packets, 0 to 1.
    pub duplication: f64,
}

impl Weather {
    /// Weather in which every packet arrives, in order.
    pub const FAIR: Self = Self {
        delay: DELAY,
        jitter: Duration::ZERO,
        loss: 0.0,
        duplication: 0.0,
    };
}

/// A machine and its network.
#[derive(Debug)]
struct Machine {
    node: Node,
    realm: Realm,
    /// Whether the machine is on. One that is off neither sends nor receives.
    is_up: bool,
    /// Whether the machine's cable is plugged in.
    is_connected: bool,
    deadline: Option<Instant>,
    /// Moment of the last wake-up, and the number of wake-ups at that moment.
    woken: (Instant, u32),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    /// Events are ordered by time, then by their creation.
    serial: u64,
}

#[derive(Debug)]
enum Arrival {
    Datagram(Transit, Vec<u8>),
    Multicast(Realm, Endpoint, Vec<u8>),
    Ipv6(NodeId, Vec<u8>),
    /// A packet for the relay that the router chooses.
    Routed(Vec<u8>),
    Fleet(NodeId, SocketAddr, Vec<u8>),
}

/// A world of its own, whose history depends on nothing but its seed and the calls made on it.
#[derive(Debug)]
pub struct World {
    /// The time.
    pub now: Instant,
    /// The treatment of packets in the internet; may be changed at any time.
    pub weather: Weather,
    /// The treatment of datagrams between the relays of a fleet; may be changed at any time.
    pub fleet_weather: Weather,
    /// Pairs of relays of a fleet between which nothing passes, in this direction.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Whether relays that are added have a fast path.
    pub fast_relays: bool,
    pub(super) random: StdRng,
    pub(super) network: Network,
    machines: Vec<Machine>,
    /// The owners of native addresses.
    native: HashMap<Ipv6Addr, NodeId>,
    /// The relay to which native IPv6 routes packets for Teredo clients.
    pub(super) relay: Option<NodeId>,
    /// The router in front of a fleet, which gets them instead.
    pub(super) router: Option<Router>,
    queue: BinaryHeap<Reverse<Entry>>,
    /// Packets under way, with the number of nodes that forwarded them unasked.
    under_way: HashMap<u64, (Arrival, u16)>,
    serial: u64,
    messages: u64,
    pub(super) observer: Observer,
    /// The last datagrams in the internet: source, destination and payload.
    overheard: VecDeque<(Endpoint, Endpoint, Vec<u8>)>,
}

impl World {
    /// Makes an empty world in fair weather.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: BEGINNING,
            weather: Weather::FAIR,
            fleet_weather: Weather {
                delay: FLEET_DELAY,
                ..Weather::FAIR
            },
            cut: BTreeSet::new(),
            fast_relays: true,
            random: StdRng::seed_from_u64(seed),
            network: Network::new(),
            machines: Vec::new(),
            native: HashMap::new(),
            relay: None,
            router: None,
            queue: BinaryHeap::new(),
            under_way: HashMap::new(),
            serial: 0,
            messages: 0,
            observer: Observer::default(),
            overheard: VecDeque::new(),
        }
    }

    /// Random octets for a node's seed.
    pub(super) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        seed
    }

    /// Puts a machine into a network.
    pub(super) fn add(&mut self, realm: Realm, node: Node) -> NodeId {
        let id = NodeId(self.machines.len());
        for address in node.ipv4() {
            self.network.attach(realm, address, id);
        }
        self.native.extend(node.ipv6().map(|address| (address, id)));
        self.machines.push(Machine {
            node,
            realm,
            is_up: true,
            is_connected: true,
            deadline: None,
            woken: (Instant::ZERO, 0),
        });
        id
    }

    /// The node on a machine.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.machines[id.0].node
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.machines[id.0].node
    }

    /// All machines.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let machines = self.machines.iter().enumerate();
        machines.map(|(index, machine)| (NodeId(index), &machine.node))
    }

    /// The client on a machine.
    ///
    /// # Panics
    ///
    /// Panics if the machine has none.
    #[must_use]
    pub fn client(&self, id: NodeId) -> &ClientNode {
        match self.node(id) {
            Node::Client(client) => client,
            other => panic!("no client but {other:?}"),
        }
    }

    /// The relay on a machine.
    ///
    /// # Panics
    ///
    /// Panics if the machine has none.
    #[must_use]
    pub fn relay(&self, id: NodeId) -> &RelayNode {
        match self.node(id) {
            Node::Relay(relay) => relay,
            other => panic!("no relay but {other:?}"),
        }
    }

    pub(super) fn client_mut(&mut self, id: NodeId) -> &mut ClientNode {
        match self.node_mut(id) {
            Node::Client(client) => client,
            other => panic!("no client but {other:?}"),
        }
    }

    /// The packets that a machine's applications have received.
    ///
    /// # Panics
    ///
    /// Panics if the machine has no applications.
    #[must_use]
    pub fn stack(&self, id: NodeId) -> &Stack {
        let stack = self.node(id).stack();
        stack.unwrap_or_else(|| panic!("no applications on {id:?}"))
    }

    /// The network that a machine is in.
    #[must_use]
    pub fn realm(&self, id: NodeId) -> Realm {
        self.machines[id.0].realm
    }

    /// The NAT between a machine and the internet, the innermost one if there are several.
    #[must_use]
    pub fn gateway(&self, id: NodeId) -> Option<GatewayId> {
        self.network.gateway(self.realm(id))
    }

    /// The IPv6 address of a machine.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<Ipv6Addr> {
        match self.node(id) {
            Node::Client(client) => client.address,
            other => other.ipv6(),
        }
    }

    /// Whether a machine is on.
    #[must_use]
    pub fn is_up(&self, id: NodeId) -> bool {
        self.machines[id.0].is_up
    }

    /// Switches a machine off or on. Its memory is kept.
    pub fn set_up(&mut self, id: NodeId, is_up: bool) {
        self.machines[id.0].is_up = is_up;
    }

    /// Unplugs a machine's cable, or plugs it in again; the machine keeps running and is not
    /// notified.
    pub fn set_connected(&mut self, id: NodeId, is_connected: bool) {
        self.machines[id.0].is_connected = is_connected;
    }

    pub(super) fn move_to(&mut self, id: NodeId, realm: Realm, address: Ipv4Addr) {
        let old = self.machines[id.0].realm;
        for address in self.node(id).ipv4() {
            self.network.detach(old, address);
        }
        self.machines[id.0].realm = realm;
        self.network.attach(realm, address, id);
    }

    /// A number that no other message has.
    pub(super) fn next_message(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    /// Applies an action to a machine now, and sends the resulting packets.
    pub(super) fn act<Return>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Node, Instant, &mut Vec<Output>) -> Return,
    ) -> Return {
        self.act_at_depth(id, 0, act)
    }

    fn act_at_depth<Return>(
        &mut self,
        id: NodeId,
        depth: u16,
        act: impl FnOnce(&mut Node, Instant, &mut Vec<Output>) -> Return,
    ) -> Return {
        let mut output = Vec::new();
        let machine = &mut self.machines[id.0];
        let returned = act(&mut machine.node, self.now, &mut output);
        machine.deadline = machine.node.poll_timeout();
        self.observer
            .acted(self.now, id, &machine.node, depth, &output);
        for output in output {
            self.send(id, output, depth);
        }
        returned
    }

    /// Sends the packets that a node put on the wire.
    fn send(&mut self, id: NodeId, output: Output, depth: u16) {
        let machine = &self.machines[id.0];
        let realm = machine.realm;
        if !machine.is_connected {
            return;
        }
        match output {
            Output::Datagram { from, to, payload } => {
                let transit = Transit { realm, from, to };
                self.transmit(transit, payload, depth);
            }
            Output::Multicast { from, payload } => {
                let arrival = Arrival::Multicast(realm, from, payload);
                self.schedule(LINK_DELAY, arrival, depth);
            }
            Output::Ipv6(packet) => self.route_ipv6(packet, depth),
            Output::Fleet(transmit) => self.send_to_fleet(id, transmit, depth),
        }
    }

    /// Sends a datagram from an attacker in this network, who may forge any source.
    pub fn inject(&mut self, realm: Realm, from: Endpoint, to: Endpoint, payload: Vec<u8>) {
        let transit = Transit { realm, from, to };
        self.transmit(transit, payload, 0);
    }

    /// The last events, for a reader.
    #[must_use]
    pub fn recent(&self) -> String {
        self.observer.recent()
    }

    /// The last datagrams in the internet, oldest first: source, destination and payload.
    pub fn overheard(&self) -> impl ExactSizeIterator<Item = &(Endpoint, Endpoint, Vec<u8>)> {
        self.overheard.iter()
    }

    /// Multicasts a discovery bubble from an attacker in this network.
    pub fn inject_multicast(&mut self, realm: Realm, from: Endpoint, payload: Vec<u8>) {
        self.schedule(LINK_DELAY, Arrival::Multicast(realm, from, payload), 0);
    }

    fn transmit(&mut self, transit: Transit, payload: Vec<u8>, depth: u16) {
        let Some(transit) = self.network.leave(self.now, transit) else {
            return;
        };
        if transit.realm == Realm::INTERNET {
            if self.overheard.len() == OVERHEARD {
                self.overheard.pop_front();
            }
            let Transit { from, to, .. } = transit;
            self.overheard.push_back((from, to, payload.clone()));
            for delay in self.fates(self.weather) {
                let arrival = Arrival::Datagram(transit, payload.clone());
                self.schedule(delay, arrival, depth);
            }
        } else {
            let arrival = Arrival::Datagram(transit, payload);
            self.schedule(LINK_DELAY, arrival, depth);
        }
    }

    /// Sends a datagram to another relay of the fleet.
    fn send_to_fleet(&mut self, id: NodeId, transmit: fleet::Transmit, depth: u16) {
        let relays = self.router.as_ref().map(|router| router.relays.clone());
        let relays = relays.unwrap_or_default();
        let address = |id| match self.node(id) {
            Node::Relay(relay) => {
                let membership = relay.membership.as_ref();
                membership.map(|membership| membership.config.address)
            }
            _ => None,
        };
        let to = relays
            .into_iter()
            .find(|&id| address(id) == Some(transmit.to));
        let (Some(to), Some(from)) = (to, address(id)) else {
            return;
        };
        if self.cut.contains(&(id, to)) {
            return;
        }
        for delay in self.fates(self.fleet_weather) {
            let arrival = Arrival::Fleet(to, from, transmit.payload.clone());
            self.schedule(delay, arrival, depth);
        }
    }

    /// Chooses the relay for a packet, if the router has any.
    fn choose(
        &self,
        seed: u64,
        destination: impl Hash,
        flow: impl Hash,
        whole: impl Hash,
    ) -> Option<NodeId> {
        let router = self.router.as_ref()?;
        let announced: Vec<NodeId> = (router.relays.iter().copied())
            .filter(|&id| self.is_reachable(id) && self.relay(id).is_ready())
            .collect();
        router.choose(seed, &announced, destination, flow, whole)
    }

    /// Sends a packet by native IPv6.
    pub(super) fn route_ipv6(&mut self, packet: Vec<u8>, depth: u16) {
        let Ok(header) = Header::parse(&packet) else {
            return;
        };
        let destination = header.destination();
        let is_teredo = ServicePrefix::STANDARD.contains(&destination);
        if is_teredo && self.router.is_some() {
            for delay in self.fates(self.weather) {
                self.schedule(delay, Arrival::Routed(packet.clone()), depth);
            }
            return;
        }
        let node = if ServicePrefix::STANDARD.contains(&destination) {
            self.relay
        } else {
            self.native.get(&destination.into()).copied()
        };
        let Some(node) = node else { return };
        for delay in self.fates(self.weather) {
            let arrival = Arrival::Ipv6(node, packet.clone());
            self.schedule(delay, arrival, depth);
        }
    }

    /// The times at which the copies of a packet arrive.
    fn fates(&mut self, weather: Weather) -> Vec<Duration> {
        let Weather {
            delay,
            jitter,
            loss,
            duplication,
        } = weather;
        if self.random.random_bool(loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.random.random_bool(duplication));
        let mut fate = || delay + jitter.mul_f64(self.random.random());
        (0..copies).map(|_| fate()).collect()
    }

    fn schedule(&mut self, delay: Duration, arrival: Arrival, depth: u16) {
        self.serial += 1;
        self.under_way.insert(self.serial, (arrival, depth));
        self.queue.push(Reverse(Entry {
            at: self.now + delay,
            serial: self.serial,
        }));
    }

    /// The next machine to wake, and the time.
    fn next_deadline(&self) -> Option<(Instant, usize)> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| machine.is_up)
            .filter_map(|(index, machine)| Some((machine.deadline?, index)))
            .min()
    }

    /// Processes the next event if it is due by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let deadline = self.next_deadline();
        let arrival = self.queue.peek().map(|Reverse(entry)| entry.at);
        match (deadline, arrival) {
            (Some((at, index)), _) if at <= end && arrival.is_none_or(|other| at <= other) => {
                self.now = self.now.max(at);
                self.wake(index);
                true
            }
            (_, Some(at)) if at <= end => {
                self.now = self.now.max(at);
                if let Some(Reverse(entry)) = self.queue.pop()
                    && let Some((arrival, depth)) = self.under_way.remove(&entry.serial)
                {
                    self.deliver(arrival, depth);
                }
                true
            }
            _ => false,
        }
    }

    fn wake(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let times = if machine.woken.0 == self.now {
            machine.woken.1 + 1
        } else {
            0
        };
        machine.woken = (self.now, times);
        assert!(times < WAKES, "woken again and again: {:?}", machine.node);
        self.act(NodeId(index), |node, now, output| {
            node.handle_timeout(now, output);
        });
    }

    fn deliver(&mut self, arrival: Arrival, depth: u16) {
        match arrival {
            Arrival::Datagram(transit, payload) => {
                let Some((id, transit)) = self.network.arrive(self.now, transit) else {
                    return;
                };
                let router = self.router.as_ref();
                let is_routed = router.is_some_and(|router| router.relays.contains(&id));
                let id = if is_routed {
                    let Transit { from, to, .. } = transit;
                    let chosen = self.choose(4, to, (from, to), (from, &payload));
                    let Some(chosen) = chosen else { return };
                    chosen
                } else {
                    id
                };
                if !self.is_reachable(id) {
                    return;
                }
                let Transit { from, to, .. } = transit;
                self.observer
                    .arrived(self.now, id, &self.machines[id.0].node, from, to, &payload);
                self.act_at_depth(id, depth + 1, |node, now, output| {
                    node.handle_datagram(now, from, to, payload, output);
                });
            }
            Arrival::Multicast(realm, from, payload) => {
                for index in 0..self.machines.len() {
                    let id = NodeId(index);
                    let is_own = self.node(id).ipv4().contains(&from.ip());
                    if self.realm(id) != realm || is_own || !self.is_reachable(id) {
                        continue;
                    }
                    self.observer.discovered(self.now, id, from, &payload);
                    self.act_at_depth(id, depth + 1, |node, now, output| {
                        node.handle_multicast(now, from, &payload, output);
                    });
                }
            }
            Arrival::Ipv6(id, packet) if self.is_reachable(id) => {
                self.observer.arrived_ipv6(self.now, id, &packet);
                self.act_at_depth(id, depth + 1, |node, now, output| {
                    node.handle_ipv6(now, packet, output);
                });
            }
            Arrival::Ipv6(..) => (),
            Arrival::Routed(packet) => {
                let addresses = packet.get(8..40).unwrap_or_default();
                let destination = addresses.get(16..).unwrap_or_default();
                // Addresses and ports.
                let flow = packet.get(6..44).unwrap_or_default();
                if let Some(id) = self.choose(6, destination, flow, &packet) {
                    self.deliver(Arrival::Ipv6(id, packet), depth);
                }
            }
            Arrival::Fleet(id, from, payload) => {
                if self.is_reachable(id) {
                    // Relays of a fleet talk for ever; nobody's packets are behind that.
                    self.act(id, |node, now, output| {
                        if let Node::Relay(relay) = node {
                            relay.handle_fleet(now, from, &payload, output);
                        }
                    });
                }
            }
        }
    }

    fn is_reachable(&self, id: NodeId) -> bool {
        self.machines[id.0].is_up && self.machines[id.0].is_connected
    }

    /// Advances the time.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Advances the time until a condition holds or this much has passed. Returns whether it holds.
    pub fn run_until(&mut self, limit: Duration, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if is_so(self) {
                return true;
            }
            if !self.step(end) {
                self.now = end;
                return is_so(self);
            }
        }
    }
}
