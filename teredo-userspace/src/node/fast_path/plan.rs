//! The parts of the roles on this host in the XDP program.

use anyhow::Result;
use bytemuck::Zeroable as _;
use nix::net::if_::if_indextoname;
use teredo_common::{address::Endpoint, maps::Settings};
use teredo_proto::server;

use crate::{
    config::{self, FastPathRequest, OuterChecksum},
    datapath::{route::Routes, xdp},
};

/// Entries of the map of peers without a relay: the permitted minimum.
const NO_PEERS: u32 = *config::MAX_PEERS.start() as u32;

/// The configured roles.
#[derive(Debug)]
pub struct Roles<'a> {
    /// The relay and its constants in the program.
    pub relay: Option<(&'a config::RelaySection, Settings)>,
    /// The server.
    pub server: Option<&'a server::Config>,
}

/// The interfaces and parameters of the program.
#[derive(Debug)]
pub struct ProgramPlan {
    /// The names of the interfaces to attach to.
    pub interfaces: Vec<String>,
    /// The relay's constants; zeros without a relay.
    pub settings: Settings,
    /// The server's part, if it has one.
    pub server: Option<xdp::ServerParameters>,
    /// Whether the program gets the relay's peers.
    pub relays: bool,
    /// Entries of the map of peers.
    pub max_peers: u32,
    /// Why the relay has no part although it is configured to; a clause for the user.
    pub refusal: Option<&'static str>,
}

impl ProgramPlan {
    /// Plans the program from the configuration and the interfaces of this host.
    pub async fn make(
        wanted: &FastPathRequest<'_>,
        roles: &Roles<'_>,
        routes: &Routes,
    ) -> Result<Self> {
        let mut plan = Self {
            interfaces: Vec::new(),
            settings: Settings::zeroed(),
            server: None,
            relays: false,
            max_peers: NO_PEERS,
            refusal: None,
        };
        if let (Some(names), Some((relay, settings))) = (wanted.relay, &roles.relay) {
            plan.add_relay(names, relay, *settings, routes).await?;
        }
        if let (Some(names), Some(server)) = (wanted.server, roles.server) {
            plan.add_server(names, server, routes).await?;
            if let Some((_, settings)) = &roles.relay
                && settings.relay == Endpoint::new(server.primary, server.port)
            {
                // The relay has the same port, so the program must tell their packets apart.
                plan.settings = *settings;
            }
        }
        Ok(plan)
    }

    async fn add_relay(
        &mut self,
        names: &[String],
        relay: &config::RelaySection,
        settings: Settings,
        routes: &Routes,
    ) -> Result<()> {
        let interfaces = if names.is_empty() {
            let indices = routes.default_interfaces().await?;
            indices.into_iter().filter_map(name_of).collect()
        } else {
            names.to_vec()
        };
        self.refusal = if interfaces.is_empty() {
            Some(
                "relay.xdp.interfaces is empty and there is no default route to find them: name the \
                 interfaces towards the IPv4 and the IPv6 internet",
            )
        } else if relay.host_specific {
            Some("relay.host-specific is set: all packets are this host's own")
        } else {
            None
        };
        self.interfaces = interfaces;
        if self.refusal.is_none() {
            self.settings = settings;
            self.relays = true;
            self.max_peers = relay.max_peers as u32;
        }
        Ok(())
    }

    async fn add_server(
        &mut self,
        names: &[String],
        server: &server::Config,
        routes: &Routes,
    ) -> Result<()> {
        let primary = routes.interface_with(server.primary).await?;
        let secondary = routes.interface_with(server.secondary).await?;
        if self.refusal.is_some() {
            // The relay's interfaces are not needed.
            self.interfaces.clear();
        }
        let mut interfaces = names.to_vec();
        if names.is_empty() {
            interfaces.extend(
                [primary, secondary]
                    .into_iter()
                    .flatten()
                    .filter_map(name_of),
            );
        }
        for interface in interfaces {
            if !self.interfaces.contains(&interface) {
                self.interfaces.push(interface);
            }
        }
        self.server = Some(xdp::ServerParameters {
            constants: server.fast_path(primary.is_some() && primary == secondary),
            allowed: server.allow.clone(),
        });
        Ok(())
    }
}

fn name_of(interface: u32) -> Option<String> {
    if_indextoname(interface).ok()?.into_string().ok()
}

/// Returns the program's flags for the configured checksum.
pub fn flags(checksum: OuterChecksum) -> u32 {
    match checksum {
        OuterChecksum::Auto => Settings::ALLOW_ZERO_CHECKSUM,
        OuterChecksum::Zero => Settings::ALWAYS_ZERO_CHECKSUM,
    }
}
