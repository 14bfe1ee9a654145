//! The relay's part of the plan.

use std::net::Ipv4Addr;

use ipnet::Ipv6Net;
use teredo_common::scope::is_global_unicast;

use super::{Item, Plan, State, usual_route};
use crate::{
    condition::Kind,
    config::{self, Config, Ipv4Choice, RelaySection},
    datapath::route::{Table, TunnelRoute},
    host::{Link, Setting, Snapshot},
    metrics::Role,
};

/// Returns the route of the Teredo prefix. One that is withdrawn is not where routing daemons read.
pub(super) fn relay_route(config: &Config, is_withdrawn: bool) -> TunnelRoute {
    TunnelRoute {
        table: if is_withdrawn {
            Table::Local
        } else {
            Table::Main
        },
        ..usual_route(config::network(config.node.prefix))
    }
}

/// The command that switches forwarding on.
const FORWARD: &str = "sysctl -w net.ipv6.conf.all.forwarding=1";

impl Plan {
    /// Adds the relay, and returns whether it can serve.
    pub(super) fn add_relay(
        &mut self,
        config: &Config,
        relay: &RelaySection,
        host: &Snapshot,
        state: &State,
    ) -> bool {
        match relay_address(relay, host) {
            Ok(address) => self.relay_address = Some(address),
            Err(text) => self.lacks(Role::Relay, Kind::AddressMissing, "", text),
        }
        // A relay that has lost its address keeps its tunnel.
        if self.relay_address.is_some() || state.own.tunnels.contains_key(&Role::Relay) {
            self.add_tunnel(Role::Relay, relay.mtu, host, state);
            if !relay.host_specific {
                self.add_forwarding(Role::Relay, host, state);
            }
        }
        if relay.route {
            // A run that crashed may have left either.
            self.unwanted
                .extend([false, true].map(|is_withdrawn| Item::Route {
                    role: Role::Relay,
                    route: relay_route(config, is_withdrawn),
                }));
        }
        if let Some(text) = &state.fleet_trouble {
            self.lacks(Role::Relay, Kind::FleetOutOfStep, "", text.clone());
        }
        if relay.host_specific {
            if native_address(config, host).is_none() {
                self.lacks(
                    Role::Relay,
                    Kind::NoNetwork,
                    "",
                    "this host has no native IPv6 address, which relay.host-specific = true is there to \
                     serve: give it one, or do not run a relay",
                );
            }
        } else {
            let or = "set relay.host-specific = true to serve this host alone";
            self.expect_forwarding(Role::Relay, host, or);
        }
        let prefix = config::network(config.node.prefix);
        if relay.route
            && let Some(text) = diverted(host, prefix, relay, state)
        {
            self.lacks(Role::Relay, Kind::RouteDiverted, &prefix.to_string(), text);
        }
        !self.is_down(Role::Relay)
    }

    /// Adds the route of the Teredo prefix, which announces that the relay serves. A relay that is
    /// withdrawn serves what still comes: its peers, and, if it drains, errors for others. So does one
    /// that has not joined its fleet (F-19).
    pub(super) fn announce(&mut self, config: &Config, relay: &RelaySection, state: &State) {
        if relay.route {
            self.items.push(Item::Route {
                role: Role::Relay,
                route: relay_route(config, state.is_withdrawn || state.waits_for_fleet),
            });
        }
    }

    /// Makes a tunnel forward the packets of both families.
    pub(super) fn add_forwarding(&mut self, role: Role, host: &Snapshot, state: &State) {
        let index = state.own.tunnels.get(&role);
        let Some(link) = index.and_then(|index| host.link_numbered(*index)) else {
            return;
        };
        for setting in [
            Setting::ipv4_forwarding(&link.name),
            Setting::ipv6_forwarding(&link.name),
        ] {
            self.items.push(Item::Setting {
                role,
                setting,
                value: "1",
            });
        }
    }

    /// Requires that the host forwards IPv6; `or` is an alternative remedy.
    pub(super) fn expect_forwarding(&mut self, role: Role, host: &Snapshot, or: &str) {
        let setting = Setting::ipv6_forwarding("all");
        let text = match host.is_on(&setting) {
            Some(true) => return,
            Some(false) => match before_forwarding(host) {
                Some(first) => format!(
                    "this host does not forward IPv6: `{first} && {FORWARD}`, in this order, since the \
                     default route was announced by a router and would be lost otherwise; or {or}"
                ),
                None => format!("this host does not forward IPv6: `{FORWARD}`, or {or}"),
            },
            None => "this host has no IPv6: boot without ipv6.disable=1, or load the module ipv6"
                .to_owned(),
        };
        self.lacks(role, Kind::Setting, &setting.to_string(), text);
    }
}

/// Returns the commands that have to come before forwarding is switched on; `None` if no announced route
/// would be lost.
fn before_forwarding(host: &Snapshot) -> Option<String> {
    let commands: Vec<_> = announced_links(host)
        .map(|link| format!("sysctl -w {}=2", Setting::ipv6(&link.name, "accept_ra")))
        .collect();
    (!commands.is_empty()).then(|| commands.join(" && "))
}

/// Iterates over the interfaces of default routes that a router has announced, and that are lost when
/// forwarding is switched on: a host that forwards accepts announcements only by `accept_ra` = 2.
pub fn announced_links(host: &Snapshot) -> impl Iterator<Item = &Link> {
    host.default_links().into_iter().filter(|link| {
        let is_announced = host.routes.iter().any(|route| {
            route.is_announced
                && route.is_default()
                && !route.is_ipv4()
                && route.interfaces.contains(&link.index)
        });
        let accepts = host.settings.get(&Setting::ipv6(&link.name, "accept_ra"));
        is_announced && accepts.is_some_and(|accepts| accepts == "1")
    })
}

/// Returns the relay's own address, or the reason why it has none.
fn relay_address(relay: &RelaySection, host: &Snapshot) -> Result<Ipv4Addr, String> {
    let address = match relay.ipv4 {
        Ipv4Choice::Auto => host.default_ipv4_address().ok_or(
            "relay.ipv4 is \"auto\" but there is no IPv4 default route to derive the address from: add \
             the route, or set relay.ipv4 to an address of this host",
        )?,
        Ipv4Choice::Address(address) if host.has_ipv4(address) => address,
        Ipv4Choice::Address(address) => {
            return Err(format!(
                "relay.ipv4 = \"{address}\" is not an address of this host: set one of its own ({}), or \
                 \"auto\"",
                own(host)
            ));
        }
    };
    Ok(address)
}

/// Lists the host's addresses, for messages.
pub(super) fn own(host: &Snapshot) -> String {
    let own = host.ipv4().filter(|own| !own.is_loopback());
    let own: Vec<_> = own.map(|own| own.to_string()).collect();
    if own.is_empty() {
        "it has none".to_owned()
    } else {
        own.join(", ")
    }
}

fn native_address(config: &Config, host: &Snapshot) -> Option<std::net::Ipv6Addr> {
    let prefix = config.node.prefix;
    host.ipv6().find(|address| {
        let octets = address.octets();
        is_global_unicast(&octets) && !prefix.contains(&octets)
    })
}

/// Explains the route of somebody else for the prefix, if there is one that wins.
fn diverted(
    host: &Snapshot,
    prefix: Ipv6Net,
    relay: &RelaySection,
    state: &State,
) -> Option<String> {
    let foreign = state.foreign_route(host, Role::Relay, prefix, &relay.tun)?;
    Some(format!(
        "there is a route of {prefix} already, to {}: remove it with `ip -6 route del {prefix}`, or set \
         relay.route = false and route {prefix} to {} yourself",
        host.end_of(foreign),
        relay.tun
    ))
}
