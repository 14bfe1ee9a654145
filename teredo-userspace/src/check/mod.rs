//! The examination of whether a configuration can run on this host, which changes nothing.
//!
//! `teredo check` shows all of it; `teredo run` refuses to start at the first trouble.

mod api;
mod bpffs;
mod client;
mod conntrack;
mod fast_path;
mod firewall;
mod ipv4;
mod ipv6;
mod limits;
mod link;
mod memory;
mod mtu;
mod nic;
mod owner;
mod report;
mod reverse_path;
mod routing;
mod sandbox;
mod server;
mod settings;
mod sunset;
mod tun;
mod unit;
mod user;
mod vrf;

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Result;

use crate::{
    api::{self as daemon, types::Status},
    config::{
        Config,
        secrets::{self, Secrets},
    },
    datapath::{
        route::Routes,
        udp::{Segmentation, segmentation},
        xdp,
    },
    host::Snapshot,
    metrics::Role,
    plan::{self, Fix, Item, Own, Plan, State},
    privileges::capabilities,
};
pub use firewall::findings as examine_firewall;
#[cfg(feature = "testing")]
pub use firewall::judge_texts as judge_firewall;
use memory::{Memory, Octets};
pub use owner::remember as remember_owners;
pub use report::{Report, Verdict};
use routing::Routing;
pub use user::Access;

/// The subject of the examinations.
struct Host<'a> {
    config: &'a Config,
    network: Snapshot,
    /// The plan that a daemon would carry out.
    plan: Plan,
    /// Whether a daemon of this configuration runs, so that it has what others may not have.
    is_running: bool,
    /// Whether this process goes on with what that has.
    inherits: bool,
    is_thorough: bool,
}

/// The purpose of an examination.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// Roles start although the day of their sunset has come.
    pub after_sunset: bool,
    /// Whether the XDP program is loaded for a moment, and names are looked up. A start need not do it twice,
    /// and nobody serves while it looks.
    pub is_thorough: bool,
    /// The files as the daemon will find them, unless this process is the daemon.
    pub access: Option<&'a Access>,
    /// Whether this process has the sockets of the API already: then no other daemon answers there.
    pub has_api: bool,
    /// Whether this process goes on with what another had.
    pub inherits: bool,
    /// The number of the XDP program that it left.
    pub program: Option<u32>,
}

/// Examines everything that this configuration needs. Needs a tokio runtime.
///
/// `secrets` is the result of [`secrets::load`].
pub async fn examine(
    config: &Config,
    secrets: Result<&Secrets, &secrets::Error>,
    purpose: Purpose<'_>,
) -> Report {
    let mut report = Report::new(Memory::of(config));
    let (network, mut own, routing) = match read(config).await {
        Ok(found) => found,
        Err(error) => {
            let text = format!("the kernel does not describe its network: {error:#}");
            report.trouble("network", text);
            return report;
        }
    };
    own.program = own.program.or(purpose.program);
    let state = State {
        own,
        ..State::default()
    };
    let host = Host {
        config,
        plan: Plan::make(config, &network, &state),
        network,
        inherits: purpose.inherits,
        is_running: purpose.inherits || !purpose.has_api && is_running(config).await,
        is_thorough: purpose.is_thorough,
    };
    if host.is_running && !purpose.inherits {
        report.note("daemon", format!("{} is running", config.node.name));
    }
    permissions(&host, &mut report);
    sunset::examine(config, SystemTime::now(), purpose.after_sunset, &mut report);
    if let Some(access) = purpose.access {
        user::examine(&host, access, &mut report);
    }
    keys(secrets, &mut report);
    settings::examine(&host, &mut report);
    let mut endpoint = None;
    if let Some(relay) = &config.relay {
        tun::examine(&host, &relay.tun, &mut report);
        endpoint = ipv4::examine(&host, relay, &mut report);
        ipv6::examine(&host, relay, &mut report);
        mtu::examine(&host, relay, &mut report);
    }
    if let Some(section) = &config.server {
        server::examine(&host, section, endpoint, &mut report);
    }
    if let Some(client) = &config.client {
        client::examine(&host, client, &mut report).await;
    }
    let served = config.server.iter().flat_map(|server| server.ipv4);
    let own: Vec<_> = endpoint.iter().map(|own| *own.ip()).chain(served).collect();
    reverse_path::examine(&host, &own, &mut report);
    link::examine(&host, &routing, &mut report);
    conntrack::examine(&mut report);
    let clients = secrets.map_or_else(|_| Vec::new(), |secrets| secrets.clients.clone());
    fast_path::examine(&host, endpoint, clients, &mut report);
    for condition in &host.plan.conditions {
        report.condition(condition);
    }
    report.fixes = host.plan.fixes(config, &host.network);
    if host.is_running && !purpose.inherits {
        differences(&host, &state.own, &mut report);
    }
    if config.node.udp_segmentation == Segmentation::Auto && segmentation::is_broken_here() {
        let text = "node.udp-segmentation is off on this kernel, which may send the datagrams for one peer \
                    with wrong headers: set it to \"on\" if the distributor has repaired that";
        report.note("udp", text);
    }
    bpffs::examine(&host, &mut report);
    nic::examine(&mut report);
    let maps = report.memory.maps();
    limits::examine(&host, maps, &mut report);
    if purpose.is_thorough {
        sandbox::examine(&host, &mut report);
        firewall::examine(&host, &mut report);
    }
    if !purpose.has_api {
        api::examine(&host, &mut report);
    }
    memory(config, &mut report);
    report
}

/// Changes the host.
///
/// # Errors
///
/// Without permission.
pub async fn fix(fix: &Fix) -> Result<()> {
    match fix {
        Fix::Setting { setting, value } => Ok(setting.write(value)?),
        Fix::Up { index, .. } => Ok(Routes::open()?.bring_up(*index, None).await?),
    }
}

/// Reads the network, and finds the parts of it that belong to a daemon of this configuration.
async fn read(config: &Config) -> Result<(Snapshot, Own, Routing)> {
    let routes = Routes::open()?;
    let mut own = Own::default();
    let mut network = Snapshot::default();
    // The settings of tunnels are known by name after the first time.
    for _ in 0..2 {
        let scope = plan::scope(config, &network, &own);
        network = Snapshot::read(&routes, &scope).await?;
        own.tunnels = tunnels(config, &network);
    }
    let mut links = network.links.iter();
    own.program = links.find_map(|link| xdp::pinned_program(&config.node.name, link.index));
    let routing = Routing::read(&routes).await.unwrap_or_default();
    Ok((network, own, routing))
}

/// Returns the indices of the roles' tunnels; 0 for those that do not exist yet.
fn tunnels(config: &Config, network: &Snapshot) -> BTreeMap<Role, u32> {
    let relay = config.relay.as_ref().map(|relay| (Role::Relay, &relay.tun));
    let server = config
        .server
        .as_ref()
        .filter(|server| server.has_tunnel_service());
    let server = server.map(|server| (Role::Server, &server.tun));
    let client = config
        .client
        .as_ref()
        .map(|client| (Role::Client, &client.tun));
    let index = |name: &str| network.link(name).map_or(0, |link| link.index);
    let roles = [relay, server, client].into_iter().flatten();
    roles.map(|(role, name)| (role, index(name))).collect()
}

/// Reports the items of the plan that a running daemon should hold, but the host does not have.
fn differences(host: &Host<'_>, own: &Own, report: &mut Report) {
    for item in &host.plan.items {
        // The parameters of the program are the daemon's alone.
        let is_visible = !matches!(item, Item::FastPath(_));
        if is_visible && !item.is_held(&host.network, own) {
            let text = format!("{item} is missing, though the daemon runs; its log says more");
            report.degraded("plan", text);
        }
    }
}

/// Returns whether the daemon that answers on this configuration's API is of this name.
async fn is_running(config: &Config) -> bool {
    let Some(address) = config.node.api.first() else {
        return false;
    };
    let Ok(body) = daemon::client::get(address, "/status").await else {
        return false;
    };
    serde_json::from_slice::<Status>(&body).is_ok_and(|status| status.name == config.node.name)
}

fn permissions(host: &Host<'_>, report: &mut Report) {
    let missing = capabilities::missing(host.config);
    if missing.is_empty() {
        report.fine("permissions", "sufficient");
    } else {
        let missing = capabilities::list(&missing);
        let text = match host.inherits {
            true => format!("this needs a restart: the running daemon has given {missing} up"),
            false => {
                format!("no permission: the daemon needs {missing}; run as root or grant them")
            }
        };
        report.trouble("permissions", text);
    }
}

/// Reports the files with secrets, whichever role or part of the node has them.
fn keys(secrets: Result<&Secrets, &secrets::Error>, report: &mut Report) {
    let Secrets {
        api_token,
        clients,
        credentials,
        fleet,
    } = match secrets {
        Ok(secrets) => secrets,
        Err(error) => return report.trouble("keys", error.to_string()),
    };
    match clients.len() {
        0 => {}
        1 => report.fine("keys", "of 1 client"),
        count => report.fine("keys", format!("of {count} clients")),
    }
    if credentials.is_some() {
        report.fine("keys", "of this client");
    }
    if fleet.is_some() {
        report.fine("keys", "of the fleet");
    }
    if api_token.is_some() {
        report.fine("keys", "the token of the API");
    }
}

fn memory(config: &Config, report: &mut Report) {
    let Memory {
        peer_map,
        traffic_counts,
        other_maps,
        peer_table,
        queues,
        limits,
        mailboxes,
    } = report.memory;
    if config.relay.is_some() {
        report.fine(
            "memory",
            format!(
                "{} for the map of peers, {} for the counts of their traffic and up to {} for the table of \
                 peers (relay.max-peers), {} for other maps, up to {} for waiting packets \
                 (relay.queue-total-bytes)",
                Octets(peer_map),
                Octets(traffic_counts),
                Octets(peer_table),
                Octets(other_maps),
                Octets(queues)
            ),
        );
    }
    if config.server.is_some() {
        let text = format!(
            "{} for the limits of the server, {} for datagrams that wait",
            Octets(limits),
            Octets(mailboxes)
        );
        report.fine("memory", text);
    }
    if config.client.is_some() {
        let text = format!(
            "up to {} for waiting packets (client.queue-total-bytes)",
            Octets(queues)
        );
        report.fine("memory", text);
    }
    if config.relay.is_none() && config.fast_path().is_some() {
        report.fine(
            "memory",
            format!("{} for maps", Octets(report.memory.maps())),
        );
    }
}
