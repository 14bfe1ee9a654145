//! The server's part of the plan.

use teredo_common::wire::MTU;

use super::{Item, Plan, State, relay, usual_route};
use crate::{
    condition::Kind,
    config::{Config, ServerSection},
    host::Snapshot,
    metrics::Role,
};

impl Plan {
    /// Adds the server, and returns whether it can answer.
    pub(super) fn add_server(
        &mut self,
        config: &Config,
        server: &ServerSection,
        host: &Snapshot,
        state: &State,
    ) -> bool {
        let missing: Vec<_> = server
            .ipv4
            .iter()
            .filter(|address| !host.has_ipv4(**address))
            .collect();
        for address in &missing {
            let text = format!(
                "server.ipv4 has {address}, which is not an address of this host: `ip address add \
                 {address}/32 dev INTERFACE`, or set two of its own ({})",
                relay::own(host)
            );
            self.lacks(
                Role::Server,
                Kind::AddressMissing,
                &address.to_string(),
                text,
            );
        }
        if server.forward_echo && host.has_native_route == Some(false) {
            let prefix = config.node.prefix;
            self.lacks(
                Role::Server,
                Kind::NoNativeRoute,
                &prefix.to_string(),
                format!(
                    "this host has no route for {prefix}: connectivity tests are not forwarded, so clients \
                     will not find their relays; add the route, or an IPv6 default route"
                ),
            );
        }
        self.has_server_addresses = missing.is_empty();
        let has_tunnel = self.has_server_addresses || state.own.tunnels.contains_key(&Role::Server);
        if server.has_tunnel_service() && has_tunnel {
            self.add_tunnel(Role::Server, MTU, host, state);
            self.add_forwarding(Role::Server, host, state);
            let or = "remove the prefix of every [[server.client]]";
            self.expect_forwarding(Role::Server, host, or);
            for prefix in server.clients.iter().filter_map(|client| client.prefix) {
                let foreign = state.foreign_route(host, Role::Server, prefix, &server.tun);
                if let Some(foreign) = foreign {
                    let text = format!(
                        "there is a route of {prefix} already, to {}, but it is the prefix of a client: \
                         remove it with `ip -6 route del {prefix}`, or give the client another",
                        host.end_of(foreign)
                    );
                    self.lacks(Role::Server, Kind::RouteDiverted, &prefix.to_string(), text);
                } else {
                    self.items.push(Item::Route {
                        role: Role::Server,
                        route: usual_route(prefix),
                    });
                }
            }
        }
        self.has_server_addresses
    }
}
