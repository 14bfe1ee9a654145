//! How worlds are furnished, and what can be done to what is in them.

use std::{net::Ipv6Addr, time::Duration};

use rand::RngExt as _;
use teredo_common::address::Endpoint;
use teredo_proto::{
    client::{self, Attached, Client, Network},
    relay, server,
};

use super::{
    nat::{Behaviour, Kind, Nat},
    network::{GatewayId, Realm},
    node::{ClientNode, HostNode, Node, RelayNode, ServerNode},
    packet,
    stack::{Pings, Stack},
    world::{NodeId, World},
};

/// Bits of the network prefix of every link.
const PREFIX_LENGTH: u8 = 24;
/// The relays' service port.
const RELAY_PORT: u16 = 3545;

impl World {
    /// A server in the internet, with two addresses.
    pub fn add_server(&mut self) -> NodeId {
        self.add_server_with(|_| ())
    }

    /// The same, with other settings.
    pub fn add_server_with(&mut self, change: impl FnOnce(&mut server::Config)) -> NodeId {
        let primary = self.network.free_address(Realm::INTERNET);
        let secondary = (primary.to_bits() + 1).into();
        let mut config = server::Config::new(primary, secondary);
        config.limits.seed = self.random.random();
        change(&mut config);
        let node = ServerNode::new(config);
        self.add(Realm::INTERNET, Node::Server(Box::new(node)))
    }

    /// Where clients find a server.
    ///
    /// # Panics
    ///
    /// If the machine is none.
    #[must_use]
    pub fn server(&self, id: NodeId) -> client::ServerEndpoints {
        let [primary, ..] = self.node(id).ipv4()[..] else {
            panic!("no server");
        };
        client::ServerEndpoints::new(primary)
    }

    /// A relay, to which native IPv6 routes all packets for Teredo clients from now on.
    pub fn add_relay(&mut self, realm: Realm) -> NodeId {
        self.add_relay_with(realm, |_| ())
    }

    /// The same, with other settings. A host-specific one gets only what its host sends.
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
        let node = RelayNode::new(config, ipv6, self.seed());
        let id = self.add(realm, Node::Relay(Box::new(node)));
        if is_router {
            self.relay = Some(id);
        }
        id
    }

    /// A relay behind a NAT or firewall that lets in only answers, so that it sends direct bubbles
    /// or one that everybody's packets come to.
    pub fn add_relay_behind(&mut self, realm: Realm, kind: Kind) -> NodeId {
        let is_open = matches!(kind, Kind::Public | Kind::Cone);
        self.add_relay_with(realm, |config| config.direct_bubbles = !is_open)
    }

    /// A host with native IPv6.
    pub fn add_host(&mut self) -> NodeId {
        let address = self.native_address();
        let stack = Stack::new();
        self.add(Realm::INTERNET, Node::Host(HostNode { address, stack }))
    }

    fn native_address(&mut self) -> Ipv6Addr {
        let number = self.nodes().count() as u16;
        Ipv6Addr::new(0x2600, 0, 0, number, 0, 0, 0, 0xb)
    }

    /// A network behind a NAT of this kind; the internet itself if there is to be none.
    pub fn add_nat(&mut self, outside: Realm, kind: Kind) -> Realm {
        let behaviour = kind.behaviour(self.random.random());
        if kind == Kind::Public {
            return outside;
        }
        self.add_nat_with(outside, behaviour, kind.addresses()).0
    }

    /// A network behind a NAT with as many addresses.
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

    /// A client of the server, which was not started.
    pub fn add_client(&mut self, realm: Realm, server: NodeId) -> NodeId {
        self.add_client_with(realm, server, |_| ())
    }

    /// The same, with other settings.
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

    /// Has something done to a client.
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

    /// Tells a client what its network is like now.
    pub fn tell_network(&mut self, id: NodeId, change: impl FnOnce(&mut Network)) {
        let node = self.client_mut(id);
        change(&mut node.network);
        let network = node.network.clone();
        self.with_client(id, |client, now| client.set_network(now, network));
    }

    /// Tells a client of the network that it is in, and starts it.
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

    /// Has the innermost NAT map a client's service port, and tells the client.
    pub fn map_port(&mut self, id: NodeId) {
        let (internal, gateway) = (self.client(id).endpoint(), self.gateway(id));
        let mapped = gateway.and_then(|gateway| self.nat(gateway).map_port(internal));
        self.tell_network(id, |network| network.port_mapping = mapped);
    }

    /// Puts a client into another network, and tells it.
    pub fn relocate(&mut self, id: NodeId, realm: Realm) {
        let ipv4 = self.network.free_address(realm);
        self.move_to(id, realm, ipv4);
        self.client_mut(id).ipv4 = ipv4;
        self.start(id);
    }

    /// Suspends a client's host for so long; afterwards the client is told.
    pub fn suspend(&mut self, id: NodeId, duration: Duration) {
        self.set_up(id, false);
        self.run(duration);
        self.client_mut(id).fall_behind(duration);
        self.set_up(id, true);
        self.with_client(id, Client::recheck_mapping);
    }

    /// What a host does when it is pinged.
    pub fn set_pings(&mut self, id: NodeId, pings: Pings) {
        match self.node_mut(id) {
            Node::Host(host) => host.stack.pings = pings,
            Node::Client(client) => client.stack.pings = pings,
            Node::Server(_) | Node::Relay(_) => (),
        }
    }

    /// Sends a request from a machine's applications to an address. Gives its number.
    pub fn send_to(&mut self, from: NodeId, to: Ipv6Addr) -> u64 {
        let number = self.next_message();
        if let Some(source) = self.address(from) {
            let packet = packet::numbered(source, to, false, number);
            self.send_packet(from, packet);
        }
        number
    }

    /// Sends a request from one machine to the other, which has an address. Gives its number.
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
