//! Making the roles, for which the host has to have their addresses.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, Result};
use teredo_common::maps::Settings;
use teredo_proto::{
    dual::SharedPort,
    fleet::Keys,
    relay::Relay,
    server::{Buckets, RegisteredClient, SavedServer, Server},
};

use super::{
    clock,
    fleet::FleetRole,
    keeper::Keeper,
    parameters::{random, relay_config, server_config, settings},
    relay::RelayRole,
    server::{ServerRole, Socket},
    tunnel::{self, Lifetime, Tunnel},
};
use crate::{
    api::Handle,
    config::{Config, RelaySection},
    datapath::{
        route::OwnAddresses,
        tun,
        udp::{BindError, UdpSocket},
    },
    handover::{Inheritance, Journal},
    metrics::Role,
};

/// The relay and the server, as far as they run.
#[derive(Debug, Default)]
pub struct Roles {
    pub relay: Option<RelayRole>,
    pub server: Option<ServerRole>,
}

/// The addresses at which the relay and the server shall run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The relay's; `None` if the host does not have it.
    pub relay: Option<Ipv4Addr>,
    /// Whether the host has both of the server's.
    pub server: bool,
}

impl Roles {
    /// Gives packets to those that capture with this handle.
    pub fn set_tap(&mut self, handle: &Handle) {
        if let Some(relay) = &mut self.relay {
            relay.set_tap(handle.tap(Role::Relay));
        }
        if let Some(server) = &mut self.server {
            server.set_tap(handle.tap(Role::Server));
        }
    }

    /// Returns whether roles have to be made for these addresses. A role that has lost its address
    /// stays as it is, for the case that the address comes back.
    pub fn are_due(&self, config: &Config, addresses: Addresses) -> bool {
        let relay = match (&config.relay, addresses.relay) {
            (Some(_), Some(address)) => self
                .relay
                .as_ref()
                .is_none_or(|role| *role.endpoint().ip() != address),
            _ => false,
        };
        relay || config.server.is_some() && addresses.server && self.server.is_none()
    }

    /// Makes the roles at these addresses anew.
    ///
    /// # Errors
    ///
    /// When a socket or a TUN interface cannot be opened: a sentence with the reason and the remedy.
    pub fn make(
        config: &Config,
        addresses: Addresses,
        clients: &[RegisteredClient],
        fleet: Option<&Keys>,
        own: &OwnAddresses,
        keeper: &mut Keeper,
    ) -> Result<Self> {
        let now = clock::now();
        let lifetime = keeper.lifetime();
        let left = &mut keeper.inheritance;
        let mut roles = Self::default();
        let relay = config.relay.as_ref().zip(addresses.relay);
        let server = config.server.as_ref().filter(|_| addresses.server);
        let is_shared = is_shared(config, addresses.relay);
        let mut udp = match relay {
            Some((relay, address)) => {
                let local = SocketAddrV4::new(address, relay.port);
                let further = match is_shared {
                    // One receiver tells the datagrams of the two apart.
                    true => Vec::new(),
                    false => left.take_further_udp(local),
                };
                Some(open(local, further, left)?)
            }
            None => None,
        };
        if let Some(section) = server {
            let [primary, secondary] = section
                .ipv4
                .map(|address| SocketAddrV4::new(address, section.port));
            let primary = match &mut udp {
                Some(udp) if is_shared => Socket::Shared(udp.sender.try_clone()?),
                _ => Socket::Own(open(primary, Vec::new(), left)?),
            };
            let sockets = [primary, Socket::Own(open(secondary, Vec::new(), left)?)];
            let relay = udp.as_ref().map(|udp| udp.local);
            let saved = left.state.server.take();
            let seed = saved.as_ref().map(SavedServer::seed);
            let protocol = server_config(config, section, relay, own, clients.to_vec(), seed)?;
            let mut server = Server::new(protocol.clone(), Buckets::new());
            if let Some(saved) = &saved {
                server.restore(saved);
            }
            let tunnel = section.has_tunnel_service().then(|| {
                let tun = left.take_tun(&section.tun);
                Tunnel::open(tunnel(Role::Server, &section.tun, lifetime, 1), tun)
            });
            let tunnel = tunnel.transpose()?;
            roles.server = Some(ServerRole::new(section, protocol, server, sockets, tunnel)?);
        }
        if let (Some((section, _)), Some(mut udp)) = (relay, udp) {
            let protocol = relay_config(config, section, udp.local, own);
            let shared_port = server.filter(|_| is_shared).map(|server| {
                let prefixes = config.service_prefixes().collect();
                SharedPort::new(server.primary(), server.port, prefixes)
            });
            let peer_lifetime = protocol.peer_lifetime;
            let saved = left.state.relay.take();
            let saved = saved.filter(|saved| saved.endpoint == udp.local);
            let goes_on = saved.is_some();
            let mut relay = match saved {
                Some(saved) => Relay::restore(protocol, random()?, now, saved.relay),
                None => Relay::new(protocol, random()?),
            };
            if let Some(journal) = left.take_journal() {
                for (address, peer) in Journal::read(journal, udp.local) {
                    relay.adopt_peer(now, address.into(), &peer);
                }
            }
            let fleet = match (section.fleet.listen, fleet) {
                (Some(listen), Some(keys)) => {
                    // Without the peers, it has to get them from others.
                    let state = left.state.fleet.take().filter(|_| goes_on);
                    let (fleet, keys) = (&section.fleet, keys.clone());
                    Some(FleetRole::open(listen, fleet, keys, state, &mut relay)?)
                }
                _ => None,
            };
            let tun = left.take_tun(&section.tun);
            let threads = match shared_port {
                Some(_) => 1,
                None => section.thread_count(),
            };
            if let Some((program, number)) = left.take_queue_program() {
                tun::adopt_queue_program(program, number);
            }
            let options = tunnel(Role::Relay, &section.tun, lifetime, threads);
            let tunnel = Tunnel::open(options, tun)?;
            let local = udp.local;
            udp.divide(threads);
            let mut role = RelayRole::new(
                section,
                relay,
                peer_lifetime,
                udp,
                tunnel,
                shared_port,
                threads,
            )?;
            if let Some(fleet) = fleet {
                role.join_fleet(fleet);
            }
            if keeper.store.is_some() {
                let journal = Journal::new(local, section.max_peers);
                role.keep_journal(journal.context("no memory for the journal of peers")?);
            }
            roles.relay = Some(role);
        }
        Ok(roles)
    }

    /// Returns the parts of the roles in the XDP program.
    pub fn in_program<'a>(&'a self, config: &'a Config) -> super::fast_path::Roles<'a> {
        let relay = self.relay.as_ref().zip(config.relay.as_ref());
        super::fast_path::Roles {
            relay: relay.map(|(role, section)| (section, relay_settings(config, section, role))),
            server: self.server.as_ref().map(ServerRole::parameters),
        }
    }
}

/// Goes on with a port of an earlier process, which had divided it among `further` sockets, too, or opens it.
fn open(
    local: SocketAddrV4,
    further: Vec<OwnedFd>,
    left: &mut Inheritance,
) -> Result<UdpSocket, BindError> {
    match left.take_udp(local) {
        Some(sockets) => Ok(UdpSocket::inherited(local, sockets, further)),
        None => {
            // They have the port.
            drop(further);
            UdpSocket::bind(local)
        }
    }
}

/// Returns the properties of the tunnel interface of a relay or a server.
fn tunnel(role: Role, name: &str, lifetime: Lifetime, threads: usize) -> tunnel::Options {
    tunnel::Options {
        role,
        name: name.to_owned(),
        lifetime,
        ends_here: false,
        is_offloaded: false,
        threads,
    }
}

fn relay_settings(config: &Config, section: &RelaySection, role: &RelayRole) -> Settings {
    let tunnel = role.tunnel.index().unwrap_or(0);
    settings(
        config,
        section,
        role.endpoint(),
        role.peer_lifetime(),
        tunnel,
    )
}

/// Returns whether the relay and the server share one port (S-30).
fn is_shared(config: &Config, relay_address: Option<Ipv4Addr>) -> bool {
    let (Some(relay), Some(server)) = (&config.relay, &config.server) else {
        return false;
    };
    relay_address == Some(server.primary()) && relay.port == server.port
}
