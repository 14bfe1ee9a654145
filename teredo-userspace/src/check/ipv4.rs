//! The relay's side of the IPv4 internet.

use std::net::{Ipv4Addr, SocketAddrV4};

use teredo_common::scope::Ipv4Scope;

use super::{Host, Report, owner, vrf};
use crate::{
    config::RelaySection,
    datapath::udp::{BindError, UdpSocket},
};

/// Examines whether the relay's port can be opened, and returns its endpoint.
pub fn examine(host: &Host<'_>, relay: &RelaySection, report: &mut Report) -> Option<SocketAddrV4> {
    // Without an address there is a condition.
    let address = host.plan.relay_address?;
    if !vrf::examine(host, address, Some(relay), report) {
        return None;
    }
    scope(relay, report, address);
    let endpoint = SocketAddrV4::new(address, relay.port);
    port(host, endpoint, "relay.port", report);
    Some(endpoint)
}

/// Examines whether a port can be opened; `key` is the key of its number in the configuration.
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
