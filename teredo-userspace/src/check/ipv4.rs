//! The relay's side of the IPv4 internet.

use std::net::{Ipv4Addr, SocketAddrV4};

use teredo_common::scope::Ipv4Scope;

use super::{Host, Report, owner};
use crate::{
    config::{Ipv4Choice, Relay},
    datapath::{
        route::Routes,
        udp::{BindError, UdpSocket},
    },
};

/// Looks whether the service port can be opened.
pub async fn examine(host: &Host<'_>, relay: &Relay, report: &mut Report) {
    let port = relay.port;
    let address = match relay.ipv4 {
        Ipv4Choice::Address(address) => address,
        Ipv4Choice::Auto => match automatic().await {
            Some(address) => address,
            None => {
                return report.trouble(
                    "ipv4",
                    "relay.ipv4 is \"auto\" but there is no IPv4 default route to tell the \
                     address: add the route, or set relay.ipv4 to an address of this host",
                );
            }
        },
    };
    if !host.network.ipv4().any(|own| own == address) {
        let own: Vec<_> = host
            .network
            .ipv4()
            .filter(|own| !own.is_loopback())
            .map(|own| own.to_string())
            .collect();
        let text = format!(
            "relay.ipv4 = \"{address}\" is not an address of this host: set one of its own ({}), or \
             \"auto\"",
            if own.is_empty() {
                "it has none".to_owned()
            } else {
                own.join(", ")
            }
        );
        return report.trouble("ipv4", text);
    }
    scope(relay, report, address);
    if host.is_running {
        return report.fine("port", format!("the daemon has UDP {address}:{port}"));
    }
    match UdpSocket::bind(SocketAddrV4::new(address, port)) {
        Ok(_) => report.fine("port", format!("UDP {address}:{port} is free")),
        Err(BindError::InUse { .. }) => {
            let owner = owner::udp_port(address, port).unwrap_or_else(|| "another program".into());
            let text = format!(
                "UDP port {port} of {address} is in use by {owner}: stop it, or set another \
                 relay.port"
            );
            report.trouble("port", text);
        }
        Err(error) => report.trouble("port", format!("{:#}", anyhow::Error::from(error))),
    }
}

async fn automatic() -> Option<Ipv4Addr> {
    Routes::open().ok()?.default_ipv4_address().await.ok()?
}

fn scope(relay: &Relay, report: &mut Report, address: Ipv4Addr) {
    if relay.ipv4_scope.accepts(address.octets()) {
        report.fine("ipv4", format!("the relay is {address}"));
    } else if Ipv4Scope::Lab.accepts(address.octets()) {
        report.note(
            "ipv4",
            format!(
                "the relay is {address}, which is not a global address: clients reach it only \
                 through a NAT that forwards UDP port {}",
                relay.port
            ),
        );
    } else {
        report.trouble(
            "ipv4",
            format!("the relay cannot be {address}: set relay.ipv4 to a global address"),
        );
    }
}
