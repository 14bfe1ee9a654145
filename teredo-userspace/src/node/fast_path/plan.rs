//! The parts of the roles on this host in the XDP program.

use bytemuck::Zeroable as _;
use ipnet::Ipv6Net;
use teredo_common::{address::Endpoint, maps::Settings};
use teredo_proto::server;

use crate::{
    config::{self, OuterChecksum},
    datapath::xdp::{self, VlanOptions},
    host::Snapshot,
    plan::FastPathItem,
};

/// Entries of the map of peers without a relay: the permitted minimum.
const NO_PEERS: u32 = *config::MAX_PEERS.start() as u32;

/// The configured roles.
#[derive(Clone, Copy, Debug, Default)]
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
    /// Those of them whose frames without VLAN tags are not for the program.
    pub trunks: Vec<String>,
    /// The VLAN interfaces above them.
    pub vlans: Vec<VlanOptions>,
    /// The relay's constants; zeros without a relay.
    pub settings: Settings,
    /// The native prefixes that the relay serves.
    pub served: Vec<Ipv6Net>,
    /// The server's part, if it has one.
    pub server: Option<xdp::ServerParameters>,
    /// Whether the program gets the relay's peers.
    pub relays: bool,
    /// Entries of the map of peers.
    pub max_peers: u32,
    /// Whether the program counts the traffic of each peer.
    pub accounting: bool,
}

impl ProgramPlan {
    /// Returns the parameters of a planned program.
    pub fn of(item: &FastPathItem, host: &Snapshot, roles: &Roles<'_>) -> Self {
        let name = |index| Some(host.link_numbered(index)?.name.clone());
        let ports = item.interfaces.iter();
        let trunks = ports.clone().filter(|port| !port.is_served);
        let vlans = item.vlans.iter().filter_map(|vlan| {
            Some(VlanOptions {
                name: name(vlan.index)?,
                trunk: vlan.trunk,
            })
        });
        let mut plan = Self {
            interfaces: ports.filter_map(|port| name(port.index)).collect(),
            trunks: trunks.filter_map(|port| name(port.index)).collect(),
            vlans: vlans.collect(),
            settings: Settings::zeroed(),
            served: vec![Ipv6Net::default()],
            server: None,
            relays: false,
            max_peers: NO_PEERS,
            accounting: false,
        };
        if let Some((relay, settings)) = &roles.relay {
            plan.served.clone_from(&relay.serve);
            if item.relay.is_some() {
                plan.settings = *settings;
                plan.relays = true;
                plan.max_peers = relay.max_peers as u32;
                plan.accounting = relay.accounting;
            }
        }
        if let (Some([primary, secondary]), Some(server)) = (item.server, roles.server) {
            plan.server = Some(xdp::ServerParameters {
                constants: server.fast_path(primary == secondary),
                allowed: server.allow.clone(),
            });
            if let Some((_, settings)) = &roles.relay
                && settings.relay == Endpoint::new(server.primary, server.port)
            {
                // The relay has the same port, so the program must tell their packets apart.
                plan.settings = *settings;
            }
        }
        plan
    }
}

/// Returns the program's flags for the configured checksum.
pub fn flags(checksum: OuterChecksum) -> u32 {
    match checksum {
        OuterChecksum::Auto => Settings::ALLOW_ZERO_CHECKSUM,
        OuterChecksum::Zero => Settings::ALWAYS_ZERO_CHECKSUM,
    }
}
