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
    config::{self, ClientSection, ServerHost, ServerName},
    datapath::udp::DiscoverySocket,
    host::{HostNetwork, lookup_ipv4},
};

/// The directory of the kernel's settings of IPv6, if it has IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
/// For how long names are looked up here. The daemon is more patient.
const PATIENCE: Duration = Duration::from_secs(2);

/// Examines whether the client can run.
pub async fn examine(host: &Host<'_>, client: &ClientSection, report: &mut Report) {
    tun::examine(host, &client.tun, report);
    ports(host, client, report);
    let servers = servers(host, client, report).await;
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

/// Reports the servers, and returns those of which the address is known.
async fn servers(
    host: &Host<'_>,
    client: &ClientSection,
    report: &mut Report,
) -> Vec<ServerEndpoints> {
    let scope = client.ipv4_scope;
    let look_up = |name| host.is_thorough.then(|| lookup_ipv4(name, scope));
    let mut known = Vec::new();
    for (server, found) in addresses(&client.servers, look_up).await {
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

/// The addresses of a server, or the reason why they are not known.
type Found = Result<Vec<Ipv4Addr>, String>;

/// Returns the addresses of servers. Names are looked up all at the same time, if at all.
async fn addresses<F>(
    servers: &[ServerName],
    look_up: impl Fn(String) -> Option<F>,
) -> Vec<(&ServerName, Found)>
where
    F: Future<Output = Found> + Send + 'static,
{
    let started = servers.iter().filter_map(|server| match &server.host {
        ServerHost::Address(address) => Some((server, Err(*address))),
        ServerHost::Name(name) => {
            let found = timeout(PATIENCE, look_up(name.clone())?);
            Some((server, Ok(tokio::spawn(found))))
        }
    });
    let started: Vec<_> = started.collect();
    let mut found = Vec::new();
    for (server, look_up) in started {
        let addresses = match look_up {
            Err(address) => Ok(vec![address]),
            Ok(task) => match task.await {
                Ok(Ok(answer)) => answer,
                _ => Err("there is no answer".to_owned()),
            },
        };
        found.push((server, addresses));
    }
    found
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    fn servers() -> Vec<ServerName> {
        ["a.example", "9.0.0.1", "b.example", "c.example"]
            .map(|name| name.parse().unwrap())
            .to_vec()
    }

    /// Returns whether each server has addresses, of those that were found.
    fn outcomes(found: &[(&ServerName, Found)]) -> Vec<(String, bool)> {
        let found = found.iter();
        found
            .map(|(server, found)| (server.to_string(), found.is_ok()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_looked_up_together() {
        let servers = servers();
        let before = Instant::now();
        let look_up = |name: String| {
            Some(async move {
                match &*name {
                    "c.example" => Ok(vec![Ipv4Addr::new(9, 0, 0, 7)]),
                    _ => pending().await,
                }
            })
        };
        let found = addresses(&servers, look_up).await;
        assert_eq!(before.elapsed(), PATIENCE);
        let expected = [false, true, false, true];
        let expected = servers.iter().map(ToString::to_string).zip(expected);
        assert_eq!(outcomes(&found), expected.collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn without_look_ups_addresses_are_known() {
        let servers = servers();
        let before = Instant::now();
        let found = addresses(&servers, |_| None::<std::future::Pending<Found>>).await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(outcomes(&found), [("9.0.0.1".to_owned(), true)]);
    }
}
