//! The relay's side of the IPv6 internet.

use ipnet::Ipv6Net;
use teredo_common::scope::is_global_unicast;

use super::{Host, Report, routing::Routing, settings};
use crate::{
    config::{self, RelaySection},
    datapath::route::{Family, forwarding},
};

/// The command that switches forwarding on.
const FORWARD: &str = "sysctl -w net.ipv6.conf.all.forwarding=1";

/// Looks whether packets can be routed between the tunnel and the IPv6 internet.
pub fn examine(host: &Host<'_>, routing: &Routing, relay: &RelaySection, report: &mut Report) {
    if relay.host_specific {
        native_address(host, report);
    } else {
        let or = "set relay.host-specific = true to serve this host alone";
        forwards(host, routing, or, report);
        default_route(host, report);
    }
    prefix_route(host, relay, report);
}

fn native_address(host: &Host<'_>, report: &mut Report) {
    let prefix = host.config.node.prefix;
    let native = host.network.ipv6().find(|address| {
        let octets = address.octets();
        is_global_unicast(&octets) && !prefix.contains(&octets)
    });
    match native {
        Some(address) => report.fine("ipv6", format!("serves this host, {address}")),
        None => report.trouble(
            "ipv6",
            "this host has no native IPv6 address, which relay.host-specific = true is there to \
             serve: give it one, or do not run a relay",
        ),
    }
}

/// Looks whether the host forwards IPv6; `or` is what helps besides.
pub fn forwards(host: &Host<'_>, routing: &Routing, or: &str, report: &mut Report) {
    match forwarding(Family::Ipv6, "all") {
        Ok(true) => report.fine("forwarding", "IPv6 is forwarded"),
        Ok(false) => {
            // A host that forwards accepts no announcements, unless this is set first.
            let text = match settings::before_forwarding(host, routing) {
                Some(first) => format!(
                    "this host does not forward IPv6: `{first} && {FORWARD}`, in this order, since the \
                     default route was announced by a router and would be lost otherwise; or {or}"
                ),
                None => format!("this host does not forward IPv6: `{FORWARD}`, or {or}"),
            };
            report.trouble("forwarding", text);
        }
        Err(_) => report.trouble(
            "forwarding",
            "this host has no IPv6: boot without ipv6.disable=1, or load the module ipv6",
        ),
    }
}

fn default_route(host: &Host<'_>, report: &mut Report) {
    let default = Ipv6Net::default();
    let there = host
        .network
        .routes
        .iter()
        .any(|route| route.destination == default && route.interface.is_some());
    if there {
        report.fine("ipv6", "there is a default route");
    } else {
        report.note(
            "ipv6",
            "there is no IPv6 default route: the relay reaches only networks that have routes",
        );
    }
}

fn prefix_route(host: &Host<'_>, relay: &RelaySection, report: &mut Report) {
    let prefix = host.config.node.prefix;
    if !relay.route {
        return report.note(
            "route",
            format!(
                "relay.route is false: somebody else must route {prefix} to {}",
                relay.tun
            ),
        );
    }
    match host
        .network
        .foreign_route(config::network(prefix), &relay.tun)
    {
        None => report.fine("route", format!("{prefix} will lead to {}", relay.tun)),
        Some(foreign) => {
            let to = host.network.end_of(foreign);
            let text = format!(
                "there is a route of {prefix} already, to {to}: remove it with `ip -6 route del \
                 {prefix}`, or set relay.route = false and route {prefix} to {} yourself",
                relay.tun
            );
            report.trouble("route", text);
        }
    }
}
