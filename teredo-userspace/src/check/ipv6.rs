//! The relay's side of the IPv6 internet.

use std::net::Ipv6Addr;

use teredo_common::scope::is_global_unicast;

use super::{Host, Report};
use crate::{condition::Kind, config::RelaySection, host::Setting};

/// Examines the routes of the relay's packets. Everything that is missing is a condition of the plan.
pub fn examine(host: &Host<'_>, relay: &RelaySection, report: &mut Report) {
    let prefix = host.config.node.prefix;
    if relay.host_specific {
        if let Some(address) = native_address(host) {
            report.fine("ipv6", format!("serves this host, {address}"));
        }
    } else {
        forwards(host, report);
        default_route(host, report);
    }
    if !relay.route {
        report.note(
            "route",
            format!(
                "relay.route is false: somebody else must route {prefix} to {}",
                relay.tun
            ),
        );
    } else if !host.plan.has(Kind::RouteDiverted) {
        report.fine("route", format!("{prefix} will lead to {}", relay.tun));
    }
}

fn native_address(host: &Host<'_>) -> Option<Ipv6Addr> {
    let prefix = host.config.node.prefix;
    host.network.ipv6().find(|address| {
        let octets = address.octets();
        is_global_unicast(&octets) && !prefix.contains(&octets)
    })
}

/// Reports that the host forwards IPv6, if it does.
pub fn forwards(host: &Host<'_>, report: &mut Report) {
    if host.network.is_on(&Setting::ipv6_forwarding("all")) == Some(true) {
        report.fine("forwarding", "IPv6 is forwarded");
    }
}

fn default_route(host: &Host<'_>, report: &mut Report) {
    let mut routes = host.network.routes.iter();
    if routes.any(|route| route.is_default() && !route.is_ipv4()) {
        report.fine("ipv6", "there is a default route");
    } else {
        report.note(
            "ipv6",
            "there is no IPv6 default route: the relay reaches only networks that have routes",
        );
    }
}
