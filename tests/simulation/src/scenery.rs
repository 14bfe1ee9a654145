//! Construction of worlds, and changes to the machines in them.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rand::RngExt as _;
use teredo_common::address::Endpoint;
use teredo_proto::{
    client::{self, Attached, Client, Network},
    fleet::{self, Keys},
    relay, server,
};

use super::{
    nat::{Behaviour, Kind, Nat},
    network::{GatewayId, Realm},
    node::{ClientNode, HostNode, Node, ProbeNode, RelayNode, ServerNode},
    packet,
    router::{Hashing, Router},
    stack::{Pings, Stack},
    world::{NodeId, World},
};

/// Bits of the network prefix of every link.
const PREFIX_LENGTH: u8 = 24;
/// The service port of measurements.
const SERVICE_PORT: u16 = 40_001;
/// The relays' service port.
const RELAY_PORT: u16 = 3545;
/// The port of a fleet's protocol.
const FLEET_PORT: u16 = 3546;

impl World {
    /// Adds a server to the internet, with two addresses.
    pub fn add_server(&mut self) -> NodeId {
        self.add_server_with(|_| ())
    }

    /// Adds a server with other settings.
    pub fn add_server_with(&mut self, change: impl FnOnce(&mut server::Config)) -> NodeId {
        let primary = self.network.free_address(Realm::INTERNET);
        let secondary = (primary.to_bits() + 1).into();
        let mut config = server::Config::new(primary, secondary);
        config.limits.seed = self.random.random();
        change(&mut config);
        let node = ServerNode::new(config);
        self.add(Realm::INTERNET, Node::Server(Box::new(node)))
    }

    /// The address of a server in the clients' configuration.
    ///
    /// # Panics
    ///
    /// Panics if the machine is not a server.
    #[must_use]
    pub fn server(&self, id: NodeId) -> client::ServerEndpoints {
        let [primary, ..] = self.node(id).ipv4()[..] else {
            panic!("no server");
        };
        client::ServerEndpoints::new(primary)
    }

    /// Adds a relay, to which native IPv6 routes all packets for Teredo clients from now on.
    pub fn add_relay(&mut self, realm: Realm) -> NodeId {
        self.add_relay_with(realm, |_| ())
    }

    /// Adds a relay with other settings. A host-specific relay gets only the packets of its host.
    pub fn add_relay_with(
        &mut self,
        realm: Realm,
        change: impl FnOnce(&mut relay::Config),
    ) -> NodeId {
        let address = self.network.free_address(realm);
        let mut config = relay::Config::new(Endpoint::new(address, RELAY_PORT));
        config.own_ipv4 = vec![address];
        change(&mut config);
        let (ipv6, is_router) = (self.native_address(), !config.host_specific);
        let node = RelayNode::new(config, ipv6, self.seed(), self.fast_relays);
        let id = self.add(realm, Node::Relay(Box::new(node)));
        if is_router {
            self.relay = Some(id);
        }
        id
    }

    /// Adds a fleet of relays with one address, and a router in front of it, to which native IPv6
    /// routes all packets for Teredo clients from now on. Their monotonic clocks differ.
    ///
    /// # Panics
    ///
    /// Panics if there are too many relays.
    pub fn add_fleet(&mut self, count: u8, hashing: Hashing) -> Vec<NodeId> {
        let address = self.network.free_address(Realm::INTERNET);
        let members: Vec<SocketAddr> = (1..=count)
            .map(|number| SocketAddr::from(([10, 9, 0, number], FLEET_PORT)))
            .collect();
        let keys = Keys::new(&[self.seed()]).expect("a key");
        let relays: Vec<NodeId> = members
            .iter()
            .map(|&own| {
                let mut config = relay::Config::new(Endpoint::new(address, RELAY_PORT));
                config.own_ipv4 = vec![address];
                let ipv6 = self.native_address();
                let mut node = RelayNode::new(config, ipv6, self.seed(), self.fast_relays);
                node.start_late(Duration::from_secs(self.random.random_range(0..900)));
                let config = fleet::Config::new(own, members.clone());
                node.join(self.now, config, keys.clone(), 0, self.seed());
                let id = self.add(Realm::INTERNET, Node::Relay(Box::new(node)));
                self.act(id, |node, now, output| node.handle_timeout(now, output));
                id
            })
            .collect();
        self.observer.joined_fleet(&relays);
        self.router = Some(Router {
            hashing,
            relays: relays.clone(),
        });
        relays
    }

    /// Ends a relay without notice, and withdraws it from the router.
    pub fn kill(&mut self, id: NodeId) {
        self.set_up(id, false);
    }

    /// Starts a relay that was ended, without memory.
    pub fn revive(&mut self, id: NodeId) {
        self.restart(id);
        self.set_up(id, true);
        self.act(id, |node, now, output| node.handle_timeout(now, output));
    }

    /// Sets the milliseconds by which the wall clock of a fleet's relay is ahead.
    pub fn set_ahead(&mut self, id: NodeId, ahead: i64) {
        if let Node::Relay(relay) = self.node_mut(id)
            && let Some(membership) = &mut relay.membership
        {
            membership.ahead = ahead;
        }
    }

    /// Adds a relay behind a NAT or firewall that admits only answers, so that it sends direct
    /// bubbles, or one that admits packets from everywhere.
    pub fn add_relay_behind(&mut self, realm: Realm, kind: Kind) -> NodeId {
        let is_open = matches!(kind, Kind::Public | Kind::Cone);
        self.add_relay_with(realm, |config| config.direct_bubbles = !is_open)
    }

    /// Adds a host with native IPv6.
    pub fn add_host(&mut self) -> NodeId {
        let address = self.native_address();
        let stack = Stack::new();
        self.add(Realm::INTERNET, Node::Host(HostNode { address, stack }))
    }

    fn native_address(&mut self) -> Ipv6Addr {
        let number = self.nodes().count() as u16;
        Ipv6Addr::new(0x2600, 0, 0, number, 0, 0, 0, 0xb)
    }

    /// Adds a network behind a NAT of this kind, or returns the internet itself without one.
    pub fn add_nat(&mut self, outside: Realm, kind: Kind) -> Realm {
        let behaviour = kind.behaviour(self.random.random());
        if kind == Kind::Public {
            return outside;
        }
        self.add_nat_with(outside, behaviour, kind.addresses()).0
    }

    /// Adds a network behind a NAT with this number of addresses.
    pub fn add_nat_with(
        &mut self,
        outside: Realm,
        behaviour: Behaviour,
        addresses: usize,
    ) -> (Realm, GatewayId) {
        let addresses = (0..addresses).map(|_| self.network.free_address(outside));
        let addresses = addresses.collect();
        let nat = Nat::new(behaviour, addresses, self.random.random());
        self.network.add_realm(outside, nat)
    }

    /// A NAT.
    pub fn nat(&mut self, gateway: GatewayId) -> &mut Nat {
        self.network.nat(gateway)
    }

    /// Gives a NAT other addresses; all its mappings are lost.
    pub fn renumber(&mut self, gateway: GatewayId) {
        self.network.renumber(gateway);
    }

    /// Adds a client of the server without starting it.
    pub fn add_client(&mut self, realm: Realm, server: NodeId) -> NodeId {
        self.add_client_with(realm, server, |_| ())
    }

    /// Adds a client with other settings.
    pub fn add_client_with(
        &mut self,
        realm: Realm,
        server: NodeId,
        change: impl FnOnce(&mut client::Config),
    ) -> NodeId {
        let ipv4 = self.network.free_address(realm);
        let port = self.random.random_range(1024..49_152);
        let mut config = client::Config::new(vec![self.server(server)], port);
        change(&mut config);
        let node = ClientNode::new(config, ipv4, self.seed());
        self.add(realm, Node::Client(Box::new(node)))
    }

    /// Adds a host that measures its NAT with the help of the server, and starts the measurement.
    pub fn add_probe(&mut self, realm: Realm, server: NodeId) -> NodeId {
        let ipv4 = self.network.free_address(realm);
        let node = self.measurement(server, ipv4);
        let id = self.add(realm, node);
        self.act(id, |node, now, output| node.handle_timeout(now, output));
        id
    }

    /// Measures anew on the host of a measurement, with the same service port.
    pub fn measure_again(&mut self, id: NodeId, server: NodeId) {
        let [ipv4, ..] = self.node(id).ipv4()[..] else {
            return;
        };
        let measurement = self.measurement(server, ipv4);
        self.act(id, |node, now, output| {
            *node = measurement;
            node.handle_timeout(now, output);
        });
    }

    fn measurement(&mut self, server: NodeId, ipv4: Ipv4Addr) -> Node {
        // Ports that are not close to each other.
        let other = self.random.random_range(1024..20_000);
        let ports = [SERVICE_PORT, other, other + 3000];
        let (server, seed) = (self.server(server), self.seed());
        Node::Probe(Box::new(ProbeNode::new(
            server, ipv4, ports, seed, self.now,
        )))
    }

    /// Applies an action to a client.
    pub fn with_client(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Client, teredo_common::time::Instant),
    ) {
        self.act(id, |node, now, output| {
            if let Node::Client(client) = node {
                client.act(now, act, output);
            }
        });
    }

    /// Notifies a client of the present state of its network.
    pub fn tell_network(&mut self, id: NodeId, change: impl FnOnce(&mut Network)) {
        let node = self.client_mut(id);
        change(&mut node.network);
        let network = node.network.clone();
        self.with_client(id, |client, now| client.set_network(now, network));
    }

    /// Notifies a client of its network and starts it.
    pub fn start(&mut self, id: NodeId) {
        let ipv4 = self.client(id).ipv4;
        self.tell_network(id, |network| {
            network.source = Some(ipv4);
            network.attached = vec![Attached {
                address: ipv4,
                prefix_length: PREFIX_LENGTH,
            }];
        });
        self.with_client(id, Client::start);
    }

    /// Has the innermost NAT map a client's service port, and notifies the client.
    pub fn map_port(&mut self, id: NodeId) {
        let (internal, gateway) = (self.client(id).endpoint(), self.gateway(id));
        let mapped = gateway.and_then(|gateway| self.nat(gateway).map_port(internal));
        self.tell_network(id, |network| network.port_mapping = mapped);
    }

    /// Moves a client into another network, and notifies it.
    pub fn relocate(&mut self, id: NodeId, realm: Realm) {
        let ipv4 = self.network.free_address(realm);
        self.move_to(id, realm, ipv4);
        self.client_mut(id).ipv4 = ipv4;
        self.start(id);
    }

    /// Suspends the host of a client or a relay for this time, then notifies it.
    pub fn suspend(&mut self, id: NodeId, duration: Duration) {
        self.set_up(id, false);
        self.run(duration);
        self.set_up(id, true);
        self.act(id, |node, now, output| match node {
            Node::Client(client) => {
                client.fall_behind(duration);
                let resume = |client: &mut Client, now| client.handle_suspension(now, duration);
                client.act(now, resume, output);
            }
            Node::Relay(relay) => relay.resume(now, duration, output),
            Node::Server(_) | Node::Host(_) | Node::Probe(_) => (),
        });
    }

    /// Ends the client or relay on a machine and starts it anew, with the same configuration and no
    /// memory.
    pub fn restart(&mut self, id: NodeId) {
        let seed = self.seed();
        self.observer.restarted(id);
        let now = self.now;
        match self.node_mut(id) {
            Node::Client(client) => {
                client.restart(seed);
                self.start(id);
            }
            Node::Relay(relay) => relay.restart(now, seed),
            Node::Server(_) | Node::Host(_) | Node::Probe(_) => (),
        }
    }

    /// Sets a host's reaction to pings.
    pub fn set_pings(&mut self, id: NodeId, pings: Pings) {
        match self.node_mut(id) {
            Node::Host(host) => host.stack.pings = pings,
            Node::Client(client) => client.stack.pings = pings,
            Node::Server(_) | Node::Relay(_) | Node::Probe(_) => (),
        }
    }

    /// Sends a request from a machine's applications to an address and returns its number.
    pub fn send_to(&mut self, from: NodeId, to: Ipv6Addr) -> u64 {
        let number = self.next_message();
        if let Some(source) = self.address(from) {
            let packet = packet::numbered(source, to, false, number);
            self.send_packet(from, packet);
        }
        number
    }

    /// Sends a request from one machine to another, which has an address, and returns its number.
    pub fn request(&mut self, from: NodeId, to: NodeId) -> u64 {
        let to = self.address(to).unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.send_to(from, to)
    }

    /// Sends a packet of a machine's applications.
    pub fn send_packet(&mut self, from: NodeId, packet: Vec<u8>) {
        let native = self.act(from, |node, now, output| match node {
            Node::Client(client) => {
                client.send(now, packet, output);
                None
            }
            Node::Relay(relay) if relay.config.host_specific => {
                relay.send(now, packet, output);
                None
            }
            _ => Some(packet),
        });
        if let Some(packet) = native {
            self.route_ipv6(packet, 0);
        }
    }
}
