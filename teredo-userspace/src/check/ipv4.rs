//! The relay's side of the IPv4 internet.

use std::net::{Ipv4Addr, SocketAddrV4};

use teredo_common::scope::Ipv4Scope;

use super::{Host, Report, owner, vrf};
use crate::{
    config::{Ipv4Choice, RelaySection},
    datapath::{
        route::Routes,
        udp::{BindError, UdpSocket},
    },
};

/// Looks whether the relay's port can be opened, and tells where it is.
pub async fn examine(
    host: &Host<'_>,
    relay: &RelaySection,
    report: &mut Report,
) -> Option<SocketAddrV4> {
    let address = match relay.ipv4 {
        Ipv4Choice::Address(address) => Some(address),
        Ipv4Choice::Auto => automatic().await,
    };
    let Some(address) = address else {
        report.trouble(
            "ipv4",
            "relay.ipv4 is \"auto\" but there is no IPv4 default route to tell the address: add \
             the route, or set relay.ipv4 to an address of this host",
        );
        return None;
    };
    if !is_own(host, address) {
        let text = format!(
            "relay.ipv4 = \"{address}\" is not an address of this host: set one of its own ({}), or \
             \"auto\"",
            own(host)
        );
        report.trouble("ipv4", text);
        return None;
    }
    if !vrf::examine(host, address, Some(relay), report) {
        return None;
    }
    scope(relay, report, address);
    let endpoint = SocketAddrV4::new(address, relay.port);
    port(host, endpoint, "relay.port", report);
    Some(endpoint)
}

/// Whether this is an address of the host.
pub fn is_own(host: &Host<'_>, address: Ipv4Addr) -> bool {
    host.network.ipv4().any(|own| own == address)
}

/// The host's addresses, for messages.
pub fn own(host: &Host<'_>) -> String {
    let own = host.network.ipv4().filter(|own| !own.is_loopback());
    let own: Vec<_> = own.map(|own| own.to_string()).collect();
    if own.is_empty() {
        "it has none".to_owned()
    } else {
        own.join(", ")
    }
}

/// Looks whether a port can be opened; `key` is where the configuration has its number.
pub fn port(host: &Host<'_>, endpoint: SocketAddrV4, key: &str, report: &mut Report) {
    if host.is_running {
        return report.fine("port", format!("the daemon has UDP {endpoint}"));
    }
    match UdpSocket::bind(endpoint) {
        Ok(_) => report.fine("port", format!("UDP {endpoint} is free")),
        Err(BindError::InUse { .. }) => {
            let (address, port) = (*endpoint.ip(), endpoint.port());
            let owner = owner::udp_port(address, port).unwrap_or_else(|| "another program".into());
            let text = format!(
                "UDP port {port} of {address} is in use by {owner}: stop it, or set another {key}"
            );
            report.trouble("port", text);
        }
        Err(error) => report.trouble("port", format!("{:#}", anyhow::Error::from(error))),
    }
}

async fn automatic() -> Option<Ipv4Addr> {
    Routes::open().ok()?.default_ipv4_address().await.ok()?
}

fn scope(relay: &RelaySection, report: &mut Report, address: Ipv4Addr) {
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
