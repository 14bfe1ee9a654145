//! The plan: the parts of the host's network that the configuration asks for, given the host as it is
//! now, and the conditions that keep a role from doing its job.
//!
//! Everything here is pure. The node reads a [`Snapshot`], makes a [`Plan`], lets the [`Reconciler`]
//! decide on the acts, and carries them out. `teredo check` shows the same plan.

mod announcement;
mod client;
mod fast_path;
mod fix;
mod item;
mod reconciler;
mod relay;
mod server;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{IpNet, Ipv6Net};

use crate::{
    condition::{Condition, Kind, Severity},
    config::Config,
    datapath::{
        route::{Table, TunnelRoute},
        xdp::AttachPolicy,
    },
    host::{Route, Scope, Setting, Snapshot},
    metrics::Role,
};
pub use announcement::{Announcement, SavedAnnouncement};
pub use client::{Tunnelled, is_native};
pub use fix::Fix;
pub use item::{FastPathItem, Item, Own, Port, Vlan};
pub use reconciler::{Act, Notice, Reconciler};
pub use relay::announced_links;

/// The metric that the kernel gives to routes of IPv6 without one.
const USUAL_METRIC: u32 = 1024;

/// The state of the daemon that the plan depends on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The parts of the network that belong to the daemon.
    pub own: Own,
    /// Whether the relay is withdrawn on purpose: it drains, or is about to stop.
    pub is_withdrawn: bool,
    /// Whether the relay waits for the peers of its fleet.
    pub waits_for_fleet: bool,
    /// A sentence about what is wrong with the relay's fleet.
    pub fleet_trouble: Option<String>,
    /// The client's address, while it has one.
    pub client: Option<Tunnelled>,
    /// The interfaces by which frames arrive whose VLAN tags XDP does not see.
    pub hidden_tags: BTreeSet<u32>,
}

impl State {
    /// Returns the route of somebody else for a prefix that belongs into the tunnel of a role, if it wins
    /// over that of the role. `name` is the name of the tunnel's interface.
    fn foreign_route<'a>(
        &self,
        host: &'a Snapshot,
        role: Role,
        prefix: Ipv6Net,
        name: &str,
    ) -> Option<&'a Route> {
        let tunnel = self.own.tunnels.get(&role).copied();
        host.routes.iter().find(|route| {
            let is_own = match tunnel {
                Some(tunnel) => route.interfaces == [tunnel],
                // Before the role has its tunnel, the route of an earlier run is its own.
                None => host.end_of(route) == name,
            };
            route.table == Table::Main
                && route.destination == IpNet::V6(prefix)
                && route.metric <= USUAL_METRIC
                && !is_own
        })
    }
}

/// The reason why the XDP program is of no use on some interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The names of the interfaces.
    pub interfaces: Vec<String>,
    /// A clause for the user.
    pub reason: String,
}

/// The plan for this host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The relay's own address; `None` if it is not known yet.
    pub relay_address: Option<Ipv4Addr>,
    /// Whether the host has both addresses of the server.
    pub has_server_addresses: bool,
    /// The items, in the order of dependence.
    pub items: Vec<Item>,
    /// Items that must not be there unless they are among the others, even if an earlier run placed them.
    pub unwanted: Vec<Item>,
    /// The reason why the fast path is not part of the plan.
    pub refusal: Option<Refusal>,
    /// Everything that is wrong with the host.
    pub conditions: Vec<Condition>,
}

impl Plan {
    /// Makes the plan.
    pub fn make(config: &Config, host: &Snapshot, state: &State) -> Self {
        let mut plan = Self::default();
        let relay = config.relay.as_ref();
        let serves = relay.is_some_and(|relay| plan.add_relay(config, relay, host, state));
        let answers = config
            .server
            .as_ref()
            .is_some_and(|server| plan.add_server(config, server, host, state));
        if config.client.is_some() {
            plan.add_client(config, state, host);
        }
        plan.add_fast_path(config, host, state, serves, answers);
        // Routes come last: the other parts are there when the first packet arrives.
        if let Some(relay) = relay
            && serves
        {
            plan.announce(config, relay, state);
        }
        plan
    }

    /// Adds a condition.
    fn lacks(&mut self, role: Role, kind: Kind, subject: &str, text: impl Into<String>) {
        self.conditions.push(Condition {
            kind,
            role,
            subject: subject.to_owned(),
            text: text.into(),
        });
    }

    /// Adds the tunnel of a role.
    fn add_tunnel(&mut self, role: Role, mtu: u16, host: &Snapshot, state: &State) {
        self.items.push(Item::Tunnel { role, mtu });
        let index = state.own.tunnels.get(&role);
        let Some(link) = index.and_then(|index| host.link_numbered(*index)) else {
            return;
        };
        for &(name, value) in tunnel_settings(role) {
            self.items.push(Item::Setting {
                role,
                // Somebody may have renamed the interface.
                setting: Setting::ipv6(&link.name, name),
                value,
            });
        }
    }

    /// Returns whether there is a condition of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.conditions.iter().any(|one| one.kind == kind)
    }

    /// Returns whether a role has a condition that keeps it from its job.
    pub fn is_down(&self, role: Role) -> bool {
        self.conditions
            .iter()
            .any(|one| one.role == role && one.kind.severity() == Severity::Down)
    }
}

/// Returns the route into a tunnel that the kernel makes of a prefix by default.
const fn usual_route(prefix: Ipv6Net) -> TunnelRoute {
    TunnelRoute {
        table: Table::Main,
        prefix,
        metric: USUAL_METRIC,
    }
}

/// Returns whether a start that does not wait fails with such a condition: it keeps a role from its job,
/// or from a part of the configuration that was named.
pub fn is_required(config: &Config, kind: Kind) -> bool {
    let wanted = config.fast_path();
    let is_auto = wanted.is_none_or(|wanted| wanted.mode == AttachPolicy::Auto);
    match kind {
        Kind::InterfaceMissing => true,
        Kind::FastPathOff => !is_auto,
        kind => kind.severity() == Severity::Down,
    }
}

/// Returns the settings of IPv6 that the tunnel of a role needs, before it is brought up and then.
pub const fn tunnel_settings(role: Role) -> &'static [(&'static str, &'static str)] {
    // The host may have disabled IPv6 for new interfaces.
    const IPV6: (&str, &str) = ("disable_ipv6", "0");
    // A link-local address is of no use, and the kernel would send packets for it.
    const NO_ADDRESS: (&str, &str) = ("addr_gen_mode", "1");
    // The route of a process that has crashed, and of which the interface alone is left, must not lead
    // routers here.
    const DEAD_ROUTES: (&str, &str) = ("ignore_routes_with_linkdown", "1");
    match role {
        Role::Relay => &[IPV6, NO_ADDRESS, DEAD_ROUTES],
        Role::Server => &[IPV6, NO_ADDRESS],
        Role::Client => &[IPV6, NO_ADDRESS, ("accept_ra", "0")],
    }
}

/// Returns the part of the host that the plan depends on.
pub fn scope(config: &Config, host: &Snapshot, own: &Own) -> Scope {
    let mut prefixes: Vec<_> = config
        .service_prefixes()
        .map(crate::config::network)
        .collect();
    let clients = config.server.iter().flat_map(|server| &server.clients);
    prefixes.extend(clients.filter_map(|client| client.prefix));
    let mut settings = vec![
        Setting::ipv6_forwarding("all"),
        Setting::ipv4_forwarding("all"),
        Setting::ipv4_forwarding("lo"),
    ];
    let uplinks = host.default_links().into_iter();
    settings.extend(uplinks.map(|link| Setting::ipv6(&link.name, "accept_ra")));
    for index in own.tunnels.values() {
        let Some(link) = host.link_numbered(*index) else {
            continue;
        };
        settings.extend([
            Setting::ipv4_forwarding(&link.name),
            Setting::ipv6_forwarding(&link.name),
        ]);
        let names = [
            "disable_ipv6",
            "addr_gen_mode",
            "accept_ra",
            "ignore_routes_with_linkdown",
        ];
        settings.extend(names.map(|name| Setting::ipv6(&link.name, name)));
    }
    Scope {
        prefix: config.node.prefix,
        prefixes,
        settings,
    }
}
