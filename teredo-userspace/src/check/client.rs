//! The requirements of the client.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    time::Duration,
};

use teredo_proto::client::ServerEndpoints;
use tokio::time::timeout;

use super::{Host, Report, ipv4, tun};
use crate::{
    config::{
        self, ClientSection, ServerHost,
        secrets::{self, Secrets},
    },
    datapath::udp::DiscoverySocket,
    host::{HostNetwork, lookup_ipv4},
};

/// The directory of the kernel's settings of IPv6, if it has IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// For how long a name is looked up here. The daemon is more patient.
const PATIENCE: Duration = Duration::from_secs(2);

/// Examines whether the client can run.
pub async fn examine(
    host: &Host<'_>,
    client: &ClientSection,
    secrets: Result<&Secrets, &secrets::Error>,
    report: &mut Report,
) {
    tun::examine(host, &client.tun, report);
    match secrets {
        Ok(Secrets {
            credentials: Some(_),
            ..
        }) => report.fine("keys", "of this client"),
        Ok(_) => {}
        Err(error) => report.trouble("keys", error.to_string()),
    }
    ports(host, client, report);
    let servers = servers(client, report).await;
    network(host, client, &servers, report);
    route(host, client, report);
}

fn ports(host: &Host<'_>, client: &ClientSection, report: &mut Report) {
    if client.port == 0 {
        report.fine("port", "any UDP port");
    } else {
        let endpoint = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, client.port);
        ipv4::port(host, endpoint, "client.port", report);
    }
    if client.local_discovery
        && let Err(error) = DiscoverySocket::open()
    {
        report.note(
            "discovery",
            format!(
                "clients on the same link will not be found, since UDP port 3544 of 224.0.0.253 \
                 cannot be opened: {error}"
            ),
        );
    }
}

/// Looks up the servers.
async fn servers(client: &ClientSection, report: &mut Report) -> Vec<ServerEndpoints> {
    let mut known = Vec::new();
    for server in &client.servers {
        let found = match &server.host {
            ServerHost::Address(address) => Ok(vec![*address]),
            ServerHost::Name(name) => {
                let found = lookup_ipv4(name.clone(), client.ipv4_scope);
                let found = timeout(PATIENCE, found).await;
                found.unwrap_or_else(|_| Err("there is no answer".to_owned()))
            }
        };
        match found {
            Ok(addresses) => {
                let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                report.fine("server", format!("{server} is {}", shown.join(", ")));
                known.extend(addresses.into_iter().map(|address| ServerEndpoints {
                    port: server.port,
                    ..ServerEndpoints::new(address)
                }));
            }
            Err(reason) => report.note(
                "server",
                format!(
                    "the server {server} cannot be looked up: {reason}; the client waits until it \
                     can be, or set another in client.server"
                ),
            ),
        }
    }
    known
}

/// Examines whether there is a way to the servers, and whether there is a better one than Teredo.
fn network(
    host: &Host<'_>,
    client: &ClientSection,
    servers: &[ServerEndpoints],
    report: &mut Report,
) {
    let tunnel = host.network.link(&client.tun).map_or(0, |link| link.index);
    let prefix = host.config.node.prefix;
    let network = HostNetwork::of(&host.network, tunnel, prefix, servers).network;
    match network.source {
        Some(source) => report.fine("ipv4", format!("sends from {source}")),
        None => report.note(
            "ipv4",
            "there is no way to the IPv4 internet: the client waits until there is one",
        ),
    }
    if !Path::new(IPV6).exists() {
        return report.trouble(
            "ipv6",
            "this host has no IPv6: boot without ipv6.disable=1, or load the module ipv6",
        );
    }
    match (network.native_ipv6, client.only_without_ipv6) {
        (false, _) => report.fine("ipv6", "there is none but Teredo"),
        (true, true) => report.note(
            "ipv6",
            "this host has native IPv6, which is better: the client stays off while it has; set \
             client.only-without-ipv6 = false to run nevertheless",
        ),
        (true, false) => report.note(
            "ipv6",
            "this host has native IPv6: only Teredo clients are reached through the tunnel",
        ),
    }
}

/// Examines whether another program routes the Teredo prefix.
fn route(host: &Host<'_>, client: &ClientSection, report: &mut Report) {
    let prefix = host.config.node.prefix;
    let network = config::network(prefix);
    if let Some(foreign) = host.network.foreign_route(network, &client.tun) {
        let to = host.network.end_of(foreign);
        let text = format!(
            "there is a route of {prefix} already, to {to}: stop the other Teredo client or relay \
             of this host, or remove the route with `ip -6 route del {prefix}`"
        );
        report.trouble("route", text);
    }
}
