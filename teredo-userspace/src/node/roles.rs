//! Making the roles, for which the host has to have their addresses.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use teredo_common::maps::Settings;
use teredo_proto::{
    dual::SharedPort,
    server::{Buckets, RegisteredClient, Server},
};

use super::{
    parameters::{random, relay_config, server_config, settings},
    relay::RelayRole,
    server::{ServerRole, Socket},
};
use crate::{
    config::{Config, RelaySection},
    datapath::{route::OwnAddresses, udp::UdpSocket},
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
        own: &OwnAddresses,
    ) -> Result<Self> {
        let mut roles = Self::default();
        let relay = config.relay.as_ref().zip(addresses.relay);
        let mut udp = match relay {
            Some((relay, address)) => {
                Some(UdpSocket::bind(SocketAddrV4::new(address, relay.port))?)
            }
            None => None,
        };
        let server = config.server.as_ref().filter(|_| addresses.server);
        let is_shared = is_shared(config, addresses.relay);
        if let Some(section) = server {
            let [primary, secondary] = section
                .ipv4
                .map(|address| SocketAddrV4::new(address, section.port));
            let primary = match &mut udp {
                Some(udp) if is_shared => Socket::Shared(udp.sender.try_clone()?),
                _ => Socket::Own(UdpSocket::bind(primary)?),
            };
            let sockets = [primary, Socket::Own(UdpSocket::bind(secondary)?)];
            let relay = udp.as_ref().map(|udp| udp.local);
            let protocol = server_config(config, section, relay, own, clients.to_vec())?;
            let server = Server::new(protocol.clone(), Buckets::new());
            roles.server = Some(ServerRole::new(section, protocol, server, sockets)?);
        }
        if let (Some((section, _)), Some(udp)) = (relay, udp) {
            let protocol = relay_config(config, section, udp.local, own);
            let shared_port = server.filter(|_| is_shared).map(|server| {
                let prefixes = config.service_prefixes().collect();
                SharedPort::new(server.primary(), server.port, prefixes)
            });
            roles.relay = Some(RelayRole::new(
                section,
                protocol,
                random()?,
                udp,
                shared_port,
            )?);
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
