//! The start of a node.

use std::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use teredo_proto::{
    dual::SharedPort,
    server::{self, Server},
};

use super::{
    Node,
    calendar::Calendar,
    client::ClientRole,
    clock,
    fast_path::{FastPath, Roles},
    parameters::{random, relay_config, server_config, settings},
    relay::RelayRole,
    server::{ServerRole, Socket},
};
use crate::{
    api::Handle,
    config::{self, Config, Ipv4Choice, secrets::Secrets},
    datapath::{
        route::{OwnAddresses, Routes},
        udp::UdpSocket,
        watch::Watch,
    },
};

/// The parts that are prepared before anything on the host is changed.
struct Prepared {
    own: OwnAddresses,
    relay_lifetime: Duration,
    server: Option<(server::Config, [Socket; 2])>,
}

pub async fn start(config: Config, secrets: Secrets) -> Result<Node> {
    config.node.udp_segmentation.apply();
    let watch = Watch::open().context("cannot watch the kernel's routing")?;
    let routes = Routes::open()?;
    let own = routes.addresses().await?;
    let relay_address = match &config.relay {
        Some(relay) => Some(outer_address(relay, &routes).await?),
        None => None,
    };
    let shared = is_shared(&config, relay_address);
    let mut prepared = Prepared {
        own,
        relay_lifetime: Duration::ZERO,
        server: None,
    };
    let mut relay_udp = match (&config.relay, relay_address) {
        (Some(relay), Some(address)) => {
            Some(UdpSocket::bind(SocketAddrV4::new(address, relay.port))?)
        }
        _ => None,
    };
    if let Some(server) = &config.server {
        let [primary, secondary] = server
            .ipv4
            .map(|address| SocketAddrV4::new(address, server.port));
        let primary = match &mut relay_udp {
            Some(udp) if shared => Socket::Shared(udp.local, udp.sender.try_clone()?),
            _ => Socket::Own(UdpSocket::bind(primary)?),
        };
        let sockets = [primary, Socket::Own(UdpSocket::bind(secondary)?)];
        let relay = relay_udp.as_ref().map(|udp| udp.local);
        let protocol = server_config(&config, server, relay, &prepared.own, secrets.clients)?;
        prepared.server = Some((protocol, sockets));
    }
    let mut relay = None;
    if let (Some(section), Some(udp)) = (&config.relay, relay_udp) {
        let protocol = relay_config(&config, section, udp.local, &prepared.own);
        prepared.relay_lifetime = protocol.peer_lifetime;
        let shared = config.server.as_ref().filter(|_| shared);
        let shared_port = shared.map(|server| {
            SharedPort::new(
                server.primary(),
                server.port,
                config.service_prefixes().collect(),
            )
        });
        relay = Some(RelayRole::new(
            section.clone(),
            protocol,
            random()?,
            udp,
            shared_port,
        )?);
    }
    let client = match &config.client {
        Some(client) => {
            let (node, credentials) = (&config.node, secrets.credentials);
            Some(ClientRole::new(
                client.clone(),
                node,
                credentials,
                random()?,
            )?)
        }
        None => None,
    };
    let (handle, requests) = Handle::new();
    let mut node = Node {
        config: config.node.clone(),
        started: Instant::now(),
        relay,
        server: None,
        client,
        calendar: Calendar::new(&config),
        fast_path: FastPath::default(),
        routes,
        watch,
        requests,
        handle,
    };
    match node.set_up(&config, prepared).await {
        Ok(()) => Ok(node),
        Err(error) => {
            node.abandon().await;
            Err(error)
        }
    }
}

impl Node {
    /// Brings up the TUN interfaces, starts the fast path, and finally adds the routes.
    async fn set_up(&mut self, config: &Config, prepared: Prepared) -> Result<()> {
        let mut relay = None;
        if let Some(role) = &self.relay {
            role.bring_up(&self.routes).await?;
            let lifetime = prepared.relay_lifetime;
            let tunnel = role.tun().index();
            let settings = settings(config, &role.config, role.endpoint(), lifetime, tunnel);
            relay = Some((&role.config, settings));
        }
        let server = prepared.server.as_ref().map(|(protocol, _)| protocol);
        let (roles, own) = (Roles { relay, server }, &prepared.own.ipv4);
        self.fast_path = FastPath::start(config, roles, &self.routes, own).await?;
        if let Some(relay) = &mut self.relay {
            self.fast_path.hand_over(&mut relay.relay, clock::now())?;
            relay.update_route(&self.routes).await?;
        }
        if let (Some(section), Some((protocol, sockets))) = (&config.server, prepared.server) {
            let routed = protocol
                .clients
                .iter()
                .filter_map(|client| client.prefix)
                .collect();
            let server = Server::new(protocol, self.fast_path.buckets()?);
            let prefix = config.node.prefix;
            let role = ServerRole::new(section, prefix, server, sockets, routed)?;
            self.server.insert(role).bring_up(&self.routes).await?;
        }
        if let Some(client) = &mut self.client {
            client.bring_up(&self.routes).await?;
        }
        Ok(())
    }

    /// Undoes the changes that [`Self::set_up`] made before it failed. Interfaces and pins of an
    /// earlier run stay for the next start.
    async fn abandon(&mut self) {
        if let Err(error) = mem::take(&mut self.fast_path).abandon() {
            tracing::warn!("{error}");
        }
        for (interface, is_taken_over) in self.interfaces() {
            if !is_taken_over && let Err(error) = self.routes.remove_link(interface).await {
                tracing::warn!("{error}");
            }
        }
    }
}

/// Returns the relay's own IPv4 address.
async fn outer_address(relay: &config::RelaySection, routes: &Routes) -> Result<Ipv4Addr> {
    match relay.ipv4 {
        Ipv4Choice::Address(address) => Ok(address),
        Ipv4Choice::Auto => routes.default_ipv4_address().await?.context(
            "relay.ipv4 is \"auto\" but there is no IPv4 default route to derive the address from: add \
             the route, or set relay.ipv4 to an address of this host",
        ),
    }
}

/// Returns whether the relay and the server share one port (S-30).
fn is_shared(config: &Config, relay_address: Option<Ipv4Addr>) -> bool {
    let (Some(relay), Some(server)) = (&config.relay, &config.server) else {
        return false;
    };
    relay_address == Some(server.primary()) && relay.port == server.port
}
