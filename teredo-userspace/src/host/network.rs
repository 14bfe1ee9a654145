//! The host's addresses and default routes, as a Teredo client needs to know them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use teredo_common::address::ServicePrefix;
use teredo_proto::client::{Attached, Network, ServerEndpoints};

use super::Snapshot;
use crate::{
    datapath::{route::HostAddress, udp::source_towards},
    plan,
};

/// The host's network as the client's protocol sees it.
#[derive(Debug, Default)]
pub struct HostNetwork {
    /// Input of the protocol, without the port mapping.
    pub network: Network,
    /// IPv4 addresses by interface index.
    pub links: BTreeMap<u32, Vec<Attached>>,
    /// The gateway of the IPv4 default route.
    pub gateway: Option<Ipv4Addr>,
}

impl HostNetwork {
    /// Returns the network of a snapshot. `tunnel` is the index of the client's own interface, 0 if there
    /// is none; `servers` are the servers towards which the kernel chooses the source address.
    pub fn of(
        snapshot: &Snapshot,
        tunnel: u32,
        prefix: ServicePrefix,
        servers: &[ServerEndpoints],
    ) -> Self {
        let mut links = BTreeMap::<u32, Vec<Attached>>::new();
        for (interface, attached) in snapshot.addresses.iter().filter_map(attached) {
            links.entry(interface).or_default().push(attached);
        }
        let towards = servers.iter().map(|server| server.primary().into());
        let mut source = towards.filter_map(source_towards).next();
        if source.is_none() {
            source = snapshot.default_ipv4_address();
        }
        let gateway = snapshot.best_default(true).and_then(|route| route.gateway);
        Self {
            network: Network {
                source,
                attached: links.values().flatten().copied().collect(),
                native_ipv6: plan::is_native(snapshot, tunnel, prefix),
                port_mapping: None,
            },
            links,
            gateway: match gateway {
                Some(IpAddr::V4(gateway)) => Some(gateway),
                _ => None,
            },
        }
    }

    /// Returns the index of the interface that has the address.
    pub fn interface_with(&self, address: Ipv4Addr) -> Option<u32> {
        let mut links = self.links.iter();
        links
            .find(|(_, attached)| attached.iter().any(|local| local.address == address))
            .map(|(&interface, _)| interface)
    }
}

fn attached(host: &HostAddress) -> Option<(u32, Attached)> {
    match host.address {
        IpAddr::V4(address) if !address.is_loopback() => Some((
            host.interface,
            Attached {
                address,
                prefix_length: host.prefix_length,
            },
        )),
        _ => None,
    }
}
