//! `teredo status`, `peers`, `drain`, `reload` and `upgrade`: requests to a running daemon.

use std::{cmp::Reverse, fmt::Write as _, io::IsTerminal as _, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;

use super::{
    Daemon, Query,
    output::{Table, print, print_json},
    start_runtime,
};
use crate::{
    api::{
        client,
        types::{Count, Directions, Paths, Peer, PeerCounts, ServerStatus, Status, Verdict},
    },
    condition::Severity,
    config::{self, ApiAddress, Config},
    metrics::{ClientStatus, NOISE},
};

/// The interval of `--watch`.
const PERIOD: Duration = Duration::from_secs(1);

/// The options of `teredo status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    query: Query,
    /// Print the status again every second
    #[arg(long)]
    watch: bool,
}

/// The options of `teredo peers`.
#[derive(Debug, Args)]
pub struct PeersArguments {
    #[command(flatten)]
    query: Query,
    /// Order of the peers: by address, or by traffic, those with the most octets first
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    sort: Order,
}

/// An order of peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Order {
    #[default]
    Address,
    Traffic,
}

impl Order {
    fn sort(self, peers: &mut [Peer]) {
        peers.sort_by_key(|peer| match self {
            Self::Address => (Reverse(0), peer.address),
            Self::Traffic => (Reverse(peer.traffic()), peer.address),
        });
    }
}

/// Prints the status of a daemon; with `--watch` every second, until the command is ended.
pub fn status(arguments: &StatusArguments) -> Result<()> {
    let StatusArguments { query, watch } = arguments;
    loop {
        let status: Status = ask(query, "/status")?;
        if *watch && std::io::stdout().is_terminal() {
            // Home, and everything below cleared.
            print("\x1b[H\x1b[J")?;
        }
        if query.json {
            print_json(&status)?;
        } else {
            print(&status_text(&status))?;
        }
        if !watch {
            return Ok(());
        }
        thread::sleep(PERIOD);
    }
}

/// Prints the peers of a daemon.
pub fn peers(arguments: &PeersArguments) -> Result<()> {
    let PeersArguments { query, sort } = arguments;
    let mut peers: Vec<Peer> = ask(query, "/peers")?;
    sort.sort(&mut peers);
    if query.json {
        print_json(&peers)
    } else {
        print(&peers_text(&peers))
    }
}

/// Makes a daemon use its configuration as it is now.
pub fn reload(daemon: &Daemon) -> Result<()> {
    // The daemon's own error would be the same, with less context.
    daemon.file.load()?;
    replace(daemon)?;
    print("the daemon runs with the new configuration\n")
}

/// Makes a daemon hand over to the program as it is now.
pub fn upgrade(daemon: &Daemon) -> Result<()> {
    replace(daemon)?;
    print("the new program runs in place of the old one\n")
}

/// Makes a daemon start a process in its place.
fn replace(daemon: &Daemon) -> Result<()> {
    let replaced = tell(daemon, "/replace");
    if let Err(error) = &replaced
        && let Some(client::Error::NotRunning { .. }) = error.downcast_ref()
        && daemon.api.is_none()
    {
        bail!(
            "{error}; if node.api or node.name has changed since, name the address before with --api"
        );
    }
    replaced
}

/// Makes a daemon do something.
fn tell(daemon: &Daemon, path: &str) -> Result<()> {
    let address = socket(daemon)?;
    Ok(start_runtime()?.block_on(client::post(&address, path))?)
}

/// Returns the unix socket of a daemon, on which it takes orders. Without one the daemon refuses with an
/// explanation.
pub fn socket(daemon: &Daemon) -> Result<ApiAddress> {
    first(daemon, |address| matches!(address, ApiAddress::Unix(_)))
}

/// Returns the address at which a daemon answers without a token, if it has one.
pub fn address(daemon: &Daemon) -> Result<ApiAddress> {
    first(daemon, ApiAddress::is_of_this_host)
}

/// Returns the first address that `is_preferred`, else the first one.
fn first(daemon: &Daemon, is_preferred: impl Fn(&ApiAddress) -> bool) -> Result<ApiAddress> {
    let mut addresses = addresses(daemon)?;
    let place = addresses.iter().position(is_preferred).unwrap_or(0);
    Ok(addresses.swap_remove(place))
}

/// Makes a daemon drain.
pub fn drain(daemon: &Daemon) -> Result<()> {
    tell(daemon, "/drain")?;
    print(
        "the daemon accepts no new peers and clients any more; stop it when the old ones have gone\n",
    )
}

/// Makes a daemon withdraw its route, and waits until routers have followed.
pub fn withdraw(daemon: &Daemon) -> Result<()> {
    tell(daemon, "/v1/withdraw")?;
    print("the route of the relay is withdrawn until the daemon starts again\n")
}

fn ask<T: DeserializeOwned>(query: &Query, path: &str) -> Result<T> {
    let address = address(&query.daemon)?;
    let body = start_runtime()?.block_on(client::get(&address, path))?;
    serde_json::from_slice(&body).with_context(|| {
        format!("the daemon on {address} answers in an unknown format; is it of another version?")
    })
}

/// Returns the addresses of the API, at least one: those of the command line, else of the
/// configuration, else the default.
fn addresses(daemon: &Daemon) -> Result<Vec<ApiAddress>> {
    if let Some(address) = &daemon.api {
        return Ok(vec![address.clone()]);
    }
    let is_default = daemon.file.config.as_os_str() == config::DEFAULT_PATH;
    let config = if is_default && !daemon.file.config.exists() {
        Config::default()
    } else {
        daemon.file.load()?
    };
    if config.node.api.is_empty() {
        bail!(
            "node.api in {} is empty: the daemon cannot be queried; set it, or name an address with \
             --api",
            daemon.file.config.display()
        );
    }
    Ok(config.node.api)
}

fn status_text(status: &Status) -> String {
    let mut text = format!(
        "{}\n{} {}, {}, up {}\n",
        verdict_line(status),
        status.name,
        status.version,
        status.roles.join(", "),
        duration(status.uptime_seconds),
    );
    for (role, endpoints) in &status.endpoints {
        let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "the {role} is at UDP {}", endpoints.join(", "));
    }
    if !status.draining.is_empty() {
        let _ = writeln!(text, "draining: {}", status.draining.join(", "));
    }
    text += &conditions_text(status);
    for (role, date) in &status.sunset {
        let _ = writeln!(text, "the {role} ends on {date}");
    }
    if let Some(client) = &status.client {
        text += &client_text(client);
        text += &userspace_text(status);
    } else {
        text += &fast_path_text(status);
    }
    if status.roles.iter().any(|role| role == "relay") {
        text += &traffic_text(status);
    }
    if let Some(server) = &status.server {
        text += &server_text(server);
    }
    let dropped = ("dropped", &status.dropped);
    let passed = ("passed by the fast path", &status.passed);
    // A client has no fast path.
    let passed = Some(passed).filter(|_| status.client.is_none());
    for (title, reasons) in [dropped].into_iter().chain(passed) {
        let mut counted: Vec<_> = reasons
            .iter()
            .filter(|(reason, packets)| **packets > 0 && *reason != NOISE)
            .collect();
        counted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let _ = writeln!(text, "\n{title}");
        if counted.is_empty() {
            text += "  nothing\n";
        }
        let mut table = Table::default();
        for (reason, packets) in counted {
            table.row(&[packets.to_string(), reason.clone()]);
        }
        text += &table.render("  ");
    }
    text
}

/// Returns whether all roles do their jobs, and if not, the most important reason.
fn verdict_line(status: &Status) -> String {
    let severity = match status.verdict {
        Verdict::Ok if status.draining.is_empty() => {
            return format!("ok: {}", job(status));
        }
        Verdict::Ok => {
            let PeerCounts {
                trusted, untrusted, ..
            } = status.peers;
            return format!("draining: {} peers remain", trusted + untrusted);
        }
        Verdict::Degraded => Severity::Degraded,
        Verdict::Down => Severity::Down,
    };
    let word = match severity {
        Severity::Degraded => "degraded",
        Severity::Down => "DOWN",
    };
    let mut conditions = status.conditions.iter();
    let first = conditions.find(|condition| condition.severity == severity);
    first.map_or(word.to_owned(), |first| format!("{word}: {}", first.text))
}

/// Describes what a daemon without conditions does.
fn job(status: &Status) -> String {
    match &status.client {
        Some(client) => match client.address {
            Some(address) => format!("the client has the address {address}"),
            None => format!("the client is {}", client.state),
        },
        None if status.roles.is_empty() => "no role runs".to_owned(),
        None => format!("{} at work", status.roles.join(" and ")),
    }
}

fn conditions_text(status: &Status) -> String {
    if status.conditions.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    for condition in &status.conditions {
        table.row(&[
            condition.kind.clone(),
            format!("{} ago", duration(condition.since_seconds)),
            condition.text.clone(),
        ]);
    }
    format!("\nconditions\n{}", table.render("  "))
}

fn fast_path_text(status: &Status) -> String {
    let mut text = "\nfast path\n".to_owned();
    if status.xdp.is_empty() {
        text += "  off\n";
    }
    let mut table = Table::default();
    for attachment in &status.xdp {
        table.row(&[
            &attachment.interface,
            &attachment.mode.name().to_owned(),
            &match attachment.dropped {
                0 => attachment.reason.clone(),
                dropped => format!("{} ({dropped} frames were lost)", attachment.reason),
            },
        ]);
    }
    text + &table.render("  ")
}

fn client_text(client: &ClientStatus) -> String {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut table = Table::default();
    let mut row = |name: &str, value: String| table.row(&[name.to_owned(), value]);
    row("state", client.state.clone());
    row(
        "address",
        shown(client.address.map(|address| address.to_string())),
    );
    row(
        "mapped",
        shown(client.mapped.map(|mapped| mapped.to_string())),
    );
    row("port", format!("UDP {}", client.port));
    row("nat", shown(client.nat_behaviour.clone()));
    row(
        "server",
        shown(client.server.map(|server| server.to_string())),
    );
    row("refresh", format!("{} s", client.refresh_seconds));
    if let Some(mapping) = client.port_mapping {
        row("forwarded", mapping.to_string());
    }
    if client.tunnel {
        row("tunnel", "everything goes through the server".to_owned());
    }
    format!("\nclient\n{}", table.render("  "))
}

fn traffic_text(status: &Status) -> String {
    let text = "\nforwarded\n".to_owned();
    let mut table = Table::new(&[
        "",
        "packets xdp",
        "packets userspace",
        "bytes xdp",
        "bytes userspace",
        "in xdp",
    ]);
    let directions = |of: fn(&Directions) -> Paths| (of(&status.packets), of(&status.bytes));
    for (name, (packets, bytes)) in [
        ("encap", directions(|directions| directions.encap)),
        ("decap", directions(|directions| directions.decap)),
    ] {
        table.row(&[
            name.to_owned(),
            packets.xdp.to_string(),
            packets.userspace.to_string(),
            bytes.xdp.to_string(),
            bytes.userspace.to_string(),
            share(packets),
        ]);
    }
    text + &table.render("  ") + &peers_line(status)
}

/// Returns the traffic of a client, all of which goes through the daemon.
fn userspace_text(status: &Status) -> String {
    let mut table = Table::new(&["", "packets", "bytes"]);
    for (name, packets, bytes) in [
        ("encap", status.packets.encap, status.bytes.encap),
        ("decap", status.packets.decap, status.bytes.decap),
    ] {
        table.row(&[
            name.to_owned(),
            packets.userspace.to_string(),
            bytes.userspace.to_string(),
        ]);
    }
    "\ntransferred\n".to_owned() + &table.render("  ") + &peers_line(status)
}

fn peers_line(status: &Status) -> String {
    let rates: Vec<_> = status
        .rates
        .iter()
        .map(|(direction, rate)| {
            let megabits = rate.bytes * 8.0 / 1e6;
            format!(
                "{direction} {:.0} packets/s, {megabits:.1} Mbit/s",
                rate.packets
            )
        })
        .collect();
    let rates = match &*rates {
        [] => String::new(),
        rates => format!("\nnow      {}", rates.join("; ")),
    };
    format!(
        "{rates}\npeers    {} trusted, {} untrusted, at most {}\nbubbles  {} sent, {} received\n",
        status.peers.trusted,
        status.peers.untrusted,
        status.peers.maximum,
        status.bubbles.sent,
        status.bubbles.received,
    )
}

fn server_text(server: &ServerStatus) -> String {
    let mut text = "\nserved\n".to_owned();
    let mut table = Table::new(&["", "", "xdp", "userspace", "in xdp"]);
    let mut is_idle = true;
    for (kind, results) in &server.requests {
        for (result, &paths) in results {
            if paths == Paths::default() {
                continue;
            }
            is_idle = false;
            table.row(&[
                kind.clone(),
                result.clone(),
                paths.xdp.to_string(),
                paths.userspace.to_string(),
                share(paths),
            ]);
        }
    }
    text += &if is_idle {
        "  nothing\n".to_owned()
    } else {
        table.render("  ")
    };
    if server.bindings > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\ntunnels  {}", server.bindings);
    }
    text
}

/// Returns the share of the packets that the fast path forwarded.
fn share(packets: Paths) -> String {
    match packets.xdp + packets.userspace {
        0 => "-".to_owned(),
        all => format!("{:.1} %", packets.xdp as f64 * 100.0 / all as f64),
    }
}

fn peers_text(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "no peers\n".to_owned();
    }
    let mut table = Table::new(&[
        "address",
        "mapped",
        "state",
        "path",
        "received",
        "sent",
        "bytes encap",
        "bytes decap",
    ]);
    for peer in peers {
        let state = match (peer.state, peer.symmetric) {
            (crate::api::types::PeerState::Untrusted, _) => "untrusted",
            _ if peer.local => "trusted (local)",
            (_, true) => "trusted (symmetric)",
            (_, false) => "trusted",
        };
        let ago = |seconds: Option<f64>| match seconds {
            Some(seconds) => format!("{seconds:.0} s ago"),
            None => "never".to_owned(),
        };
        let octets = |of: fn(Count) -> u64| match peer.bytes {
            Some(octets) => of(octets).to_string(),
            None => "-".to_owned(),
        };
        table.row(&[
            peer.address.to_string(),
            peer.mapped.to_string(),
            state.to_owned(),
            if peer.xdp { "xdp" } else { "userspace" }.to_owned(),
            ago(peer.last_received_seconds),
            ago(peer.last_sent_seconds),
            octets(|octets| octets.encap),
            octets(|octets| octets.decap),
        ]);
    }
    table.render("")
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::PeerState;

    fn peer(last: u16, encap: u64, decap: u64) -> Peer {
        Peer {
            address: [0x2001, 0, 0, 0, 0, 0, 0, last].into(),
            mapped: "192.0.2.1:1".parse().expect("an endpoint"),
            state: PeerState::Trusted,
            symmetric: false,
            proved: true,
            last_received_seconds: None,
            last_sent_seconds: None,
            local: false,
            xdp: true,
            packets: Some(Count::default()),
            bytes: Some(Count { encap, decap }),
        }
    }

    #[test]
    fn peers_come_by_address_or_by_traffic() {
        let mut peers = [peer(3, 0, 7), peer(1, 4, 2), peer(2, 9, 9), peer(4, 7, 0)];
        let mut sorted = |order: Order| {
            order.sort(&mut peers);
            peers.each_ref().map(|peer| peer.address.segments()[7])
        };
        assert_eq!(sorted(Order::Address), [1, 2, 3, 4]);
        assert_eq!(sorted(Order::Traffic), [2, 3, 4, 1]);
    }

    #[test]
    fn the_table_has_the_octets_of_both_directions() {
        let text = peers_text(&[peer(1, 1280, 64)]);
        let mut lines = text.lines();
        assert!(
            lines
                .next()
                .is_some_and(|line| line.ends_with("bytes encap  bytes decap"))
        );
        assert!(
            lines
                .next()
                .is_some_and(|line| line.ends_with("1280           64")),
            "{text}"
        );
    }
}
