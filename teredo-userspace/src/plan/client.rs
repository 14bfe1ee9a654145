//! The client's part of the plan.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;
use teredo_common::{address::ServicePrefix, scope::is_global_unicast, wire::MTU};

use super::{Item, Plan, State, usual_route};
use crate::{
    condition::Kind,
    config::{self, Config},
    datapath::route::TunnelRoute,
    host::{Route, Snapshot},
    metrics::Role,
};

/// The metric of the default route beside which there is none: larger than that of any other.
const LAST: u32 = 1_000_000;
/// The metric of the default route beside others that lead nowhere: smaller than that of any other.
const FIRST: u32 = 1;

/// The address that the client has from its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnelled {
    /// The Teredo address.
    pub address: Ipv6Addr,
    /// The MTU of the tunnel, in octets.
    pub mtu: u16,
}

impl Plan {
    /// Adds the client. Without an address the tunnel has no routes, so that the host sends no packets
    /// into it.
    pub(super) fn add_client(&mut self, config: &Config, state: &State, host: &Snapshot) {
        let role = Role::Client;
        let mtu = state.client.map_or(MTU, |client| client.mtu);
        self.add_tunnel(role, mtu, host, state);
        let Some(client) = state.client else {
            return;
        };
        self.items.push(Item::Address {
            role,
            address: client.address,
        });
        let prefix = config::network(config.node.prefix);
        let name = config.client.as_ref().map_or("", |client| &client.tun);
        if let Some(foreign) = state.foreign_route(host, role, prefix, name) {
            let text = format!(
                "there is a route of {prefix} already, to {}: stop the other Teredo client or relay of this \
                 host, or remove the route with `ip -6 route del {prefix}`",
                host.end_of(foreign)
            );
            self.lacks(role, Kind::RouteDiverted, &prefix.to_string(), text);
        } else {
            self.items.push(Item::Route {
                role,
                route: usual_route(prefix),
            });
        }
        let tunnel = state.own.tunnels.get(&role).copied().unwrap_or(0);
        let is_wanted = config
            .client
            .as_ref()
            .is_some_and(|client| client.default_route);
        if is_wanted && !is_native(host, tunnel, config.node.prefix) {
            self.items.push(Item::Route {
                role,
                route: TunnelRoute {
                    metric: if has_other_default(host, tunnel) {
                        FIRST
                    } else {
                        LAST
                    },
                    ..usual_route(Ipv6Net::default())
                },
            });
        }
    }
}

fn other_defaults(host: &Snapshot, tunnel: u32) -> impl Iterator<Item = &Route> {
    let routes = host
        .routes
        .iter()
        .filter(|route| !route.is_ipv4() && route.is_default());
    routes.filter(move |route| !route.interfaces.contains(&tunnel))
}

fn has_other_default(host: &Snapshot, tunnel: u32) -> bool {
    other_defaults(host, tunnel).next().is_some()
}

/// Returns whether the host has IPv6 without Teredo: a default route beside that of the client's tunnel,
/// and an address for it. That is a global one; a unique local one suffices for a link with one other
/// end, such as a VPN, whose other end translates it.
pub fn is_native(host: &Snapshot, tunnel: u32, prefix: ServicePrefix) -> bool {
    let has_address = |interface: Option<u32>, is_usable: &dyn Fn(&[u8; 16]) -> bool| {
        host.addresses.iter().any(|one| match one.address {
            IpAddr::V6(address) => {
                one.interface != tunnel
                    && interface.is_none_or(|interface| one.interface == interface)
                    && is_usable(&address.octets())
            }
            IpAddr::V4(_) => false,
        })
    };
    let is_global = |octets: &[u8; 16]| {
        is_global_unicast(octets)
            && !prefix.contains(octets)
            && !ServicePrefix::STANDARD.contains(octets)
    };
    let mut defaults = other_defaults(host, tunnel);
    let mut interfaces = defaults.by_ref().flat_map(|route| &route.interfaces);
    interfaces.any(|&interface| {
        let is_point_to_point = host
            .link_numbered(interface)
            .is_some_and(|link| link.is_point_to_point);
        has_address(None, &is_global)
            || is_point_to_point && has_address(Some(interface), &is_unique_local)
    })
}

/// Returns whether an IPv6 address is unique local (RFC 4193), not global.
fn is_unique_local(octets: &[u8; 16]) -> bool {
    octets[0] & 0xfe == 0xfc
}
