//! The requirements of the server.

use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::IpNet;
use teredo_common::{scope::Ipv4Scope, wire::SERVER_PORT};

use super::{Host, Report, ipv4, ipv6, tun, vrf};
use crate::{
    config::{self, Ipv4Choice, RelaySection, ServerSection},
    datapath::native::Native,
    host::Route,
};

/// Examines whether the server can run. `relay` is the endpoint of the relay beside it.
pub fn examine(
    host: &Host<'_>,
    server: &ServerSection,
    relay: Option<SocketAddrV4>,
    report: &mut Report,
) {
    for address in server.ipv4 {
        self::address(host, server, address, report);
    }
    if server.port != SERVER_PORT {
        let text = format!(
            "server.port is {}, but clients know no other than 3544",
            server.port
        );
        report.note("port", text);
    }
    neighbours(server, report);
    if let Some(relay) = relay {
        beside(host.config.relay.as_ref(), server, relay, report);
    }
    native(host, server, report);
    if server.has_tunnel_service() {
        tunnel_service(host, server, report);
    }
}

fn address(host: &Host<'_>, server: &ServerSection, address: Ipv4Addr, report: &mut Report) {
    if !host.network.has_ipv4(address) {
        // It is a condition.
        return;
    }
    if !server.ipv4_scope.accepts(address.octets()) {
        let scope = match server.ipv4_scope {
            Ipv4Scope::Strict => "strict",
            Ipv4Scope::Rfc4380 => "rfc4380",
            Ipv4Scope::Lab => "lab",
        };
        let text = format!(
            "the server cannot be {address}, which is not global under server.ipv4-scope = \
             \"{scope}\": set server.ipv4 to the addresses that clients see, which no NAT may \
             change, or for a closed network server.ipv4-scope = \"lab\""
        );
        return report.trouble("ipv4", text);
    }
    if !vrf::examine(host, address, None, report) {
        return;
    }
    report.fine("ipv4", format!("the server is {address}"));
    let endpoint = SocketAddrV4::new(address, server.port);
    ipv4::port(host, endpoint, "server.port", report);
}

/// Reports addresses that are not neighbours: clients of Microsoft and Miredo know one, and assume that
/// the next is the other.
fn neighbours(server: &ServerSection, report: &mut Report) {
    let [primary, secondary] = server.ipv4.map(Ipv4Addr::to_bits);
    if primary.checked_add(1) != Some(secondary) {
        report.note(
            "ipv4",
            format!(
                "the secondary address {} is not {} plus one, as clients of Windows and Miredo \
                 assume: behind some NATs they will fail",
                server.secondary(),
                server.primary()
            ),
        );
    }
}

/// Examines the ports of server and relay, which the file alone does not determine if the relay's address
/// is automatic.
fn beside(
    relay: Option<&RelaySection>,
    server: &ServerSection,
    at: SocketAddrV4,
    report: &mut Report,
) {
    let is_automatic = relay.is_some_and(|relay| relay.ipv4 == Ipv4Choice::Auto);
    if at.port() != server.port {
        return;
    }
    if *at.ip() == server.secondary() && is_automatic {
        report.trouble(
            "port",
            format!(
                "relay.ipv4 = \"auto\" is {}, the server's secondary address, on the same port: set \
                 another relay.port",
                at.ip()
            ),
        );
    } else if *at.ip() == server.primary() {
        report.note("port", format!("relay and server share UDP {at}"));
    }
}

/// Examines whether connectivity tests of clients can leave for native IPv6 (S-25).
fn native(host: &Host<'_>, server: &ServerSection, report: &mut Report) {
    if !server.forward_echo && !server.forward_echo_replies {
        return report.note(
            "native",
            "server.forward-echo is false: clients find no relay of a native host",
        );
    }
    if let Err(error) = Native::open() {
        return report.trouble("native", format!("{:#}", anyhow::Error::from(error)));
    }
    let prefix = config::network(host.config.node.prefix);
    let holds_route = host.config.relay.as_ref().is_some_and(|relay| relay.route);
    let routes = host.network.routes.iter();
    let mut routes = routes.filter(|route| !route.interfaces.is_empty() && !route.is_ipv4());
    let own = routes
        .clone()
        .find(|route| !route.is_default() && route.destination.contains(&IpNet::V6(prefix)));
    if holds_route {
        report.fine(
            "native",
            "the relay beside the server will have the route of the prefix",
        );
    } else if let Some(route) = own {
        let text = format!(
            "{} leads to {}",
            route.destination,
            host.network.end_of(route)
        );
        report.fine("native", text);
    } else if routes.any(Route::is_default) {
        report.note(
            "native",
            format!(
                "{prefix} is reached by the IPv6 default route alone: the provider must let packets \
                 with Teredo sources pass, or connectivity tests of clients are lost"
            ),
        );
    }
}

fn tunnel_service(host: &Host<'_>, server: &ServerSection, report: &mut Report) {
    tun::examine(host, &server.tun, report);
    ipv6::forwards(host, report);
}
