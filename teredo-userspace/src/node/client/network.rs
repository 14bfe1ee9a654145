//! What the host's network is like.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Result;
use teredo_common::{address::ServicePrefix, scope::is_global_unicast};
use teredo_proto::client::{Attached, Network, ServerEndpoints};

use crate::datapath::{
    route::{HostAddress, Routes},
    udp::source_towards,
};

/// The host's network at one moment.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// What the protocol is told, but for the port mapping.
    pub network: Network,
    /// The IPv4 addresses of each interface, by its index.
    pub links: BTreeMap<u32, Vec<Attached>>,
    /// The gateway of the IPv4 default route.
    pub gateway: Option<Ipv4Addr>,
    /// Whether an IPv6 default route leads elsewhere than into the tunnel.
    pub has_default: bool,
}

impl Surroundings {
    /// Looks around. `tunnel` is the index of the client's own interface.
    pub async fn read(
        routes: &Routes,
        tunnel: u32,
        prefix: ServicePrefix,
        servers: &[ServerEndpoints],
    ) -> Result<Self> {
        let addresses = routes.host_addresses().await?;
        let defaults = routes.default_ipv6_routes().await?;
        let has_default = defaults.iter().any(|&(interface, _)| interface != tunnel);
        let mut links = BTreeMap::<u32, Vec<Attached>>::new();
        for (interface, attached) in addresses.iter().filter_map(attached) {
            links.entry(interface).or_default().push(attached);
        }
        let towards = servers.iter().map(|server| server.primary().into());
        let mut source = towards.filter_map(source_towards).next();
        if source.is_none() {
            source = routes.default_ipv4_address().await?;
        }
        let is_native =
            |one: &HostAddress| one.interface != tunnel && is_native(one.address, prefix);
        Ok(Self {
            network: Network {
                source,
                attached: links.values().flatten().copied().collect(),
                native_ipv6: has_default && addresses.iter().any(is_native),
                port_mapping: None,
            },
            links,
            gateway: routes.default_ipv4_gateway().await?,
            has_default,
        })
    }

    /// The index of the interface that has an address.
    pub fn interface_with(&self, address: Ipv4Addr) -> Option<u32> {
        let mut links = self.links.iter();
        links
            .find(|(_, attached)| attached.iter().any(|one| one.address == address))
            .map(|(&interface, _)| interface)
    }
}

fn attached(one: &HostAddress) -> Option<(u32, Attached)> {
    match one.address {
        IpAddr::V4(address) if !address.is_loopback() => Some((
            one.interface,
            Attached {
                address,
                prefix_length: one.prefix_length,
            },
        )),
        _ => None,
    }
}

/// Whether an address can be used in the IPv6 internet, and is none of Teredo.
fn is_native(address: IpAddr, prefix: ServicePrefix) -> bool {
    match address {
        IpAddr::V6(address) => {
            let octets = address.octets();
            is_global_unicast(&octets)
                && !prefix.contains(&octets)
                && !ServicePrefix::STANDARD.contains(&octets)
        }
        IpAddr::V4(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z02_what_is_better_than_teredo_is_native_ipv6() {
        for (address, expected) in [
            ("2001:db8::1", true),
            ("2400:cb00::1", true),
            // 6to4.
            ("2002:900:1::1", true),
            ("2001:0:900:1::1", false),
            ("3ffe:831f:900:1::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
            ("9.0.0.1", false),
        ] {
            let prefix = ServicePrefix([0x3f, 0xfe, 0x83, 0x1f]);
            let found = is_native(address.parse().unwrap(), prefix);
            assert_eq!(found, expected, "{address}");
        }
    }
}
