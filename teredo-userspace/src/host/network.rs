//! The host's addresses and default routes, as a Teredo client needs to know them.

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

/// A snapshot of the host's network.
#[derive(Debug, Default)]
pub struct HostNetwork {
    /// Input of the protocol, without the port mapping.
    pub network: Network,
    /// IPv4 addresses by interface index.
    pub links: BTreeMap<u32, Vec<Attached>>,
    /// The gateway of the IPv4 default route.
    pub gateway: Option<Ipv4Addr>,
    /// Whether an IPv6 default route leads elsewhere than into the tunnel.
    pub has_ipv6_default: bool,
}

impl HostNetwork {
    /// Asks the kernel. `tunnel` is the index of the client's own interface, 0 if there is none;
    /// `servers` are the servers towards which the source address is chosen.
    ///
    /// # Errors
    ///
    /// When the kernel does not list its addresses or routes.
    pub async fn read(
        routes: &Routes,
        tunnel: u32,
        prefix: ServicePrefix,
        servers: &[ServerEndpoints],
    ) -> Result<Self> {
        let addresses = routes.host_addresses().await?;
        let defaults = routes.default_ipv6_routes().await?;
        let has_ipv6_default = defaults.iter().any(|&(interface, _)| interface != tunnel);
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
            |host: &HostAddress| host.interface != tunnel && is_native(host.address, prefix);
        Ok(Self {
            network: Network {
                source,
                attached: links.values().flatten().copied().collect(),
                native_ipv6: has_ipv6_default && addresses.iter().any(is_native),
                port_mapping: None,
            },
            links,
            gateway: routes.default_ipv4_gateway().await?,
            has_ipv6_default,
        })
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

/// Returns whether an address is global unicast IPv6 and not a Teredo address.
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
    fn z02_only_global_addresses_outside_teredo_are_native() {
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
