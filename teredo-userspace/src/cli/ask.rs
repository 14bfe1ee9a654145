//! `teredo status` and `teredo peers`: what a running daemon tells.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use serde::de::DeserializeOwned;

use super::{
    Asking,
    output::{Table, print, print_json},
    start_runtime,
};
use crate::{
    api::{
        client,
        types::{Directions, Paths, Peer, Status},
    },
    config::{ApiAddress, Config},
};

/// Prints where the numbers of a daemon stand.
pub fn status(asking: &Asking) -> Result<()> {
    let status: Status = ask(asking, "/status")?;
    if asking.json {
        print_json(&status)
    } else {
        print(&status_text(&status))
    }
}

/// Prints the peers of a daemon.
pub fn peers(asking: &Asking) -> Result<()> {
    let mut peers: Vec<Peer> = ask(asking, "/peers")?;
    if asking.json {
        print_json(&peers)
    } else {
        peers.sort_by_key(|peer| peer.address);
        print(&peers_text(&peers))
    }
}

fn ask<T: DeserializeOwned>(asking: &Asking, path: &str) -> Result<T> {
    let address = address(asking)?;
    let body = start_runtime()?.block_on(client::get(&address, path))?;
    serde_json::from_slice(&body).with_context(|| {
        format!("the daemon on {address} answers in another form; is it of another version?")
    })
}

/// Where to ask: as the command line says, else as the configuration says, else the default.
fn address(asking: &Asking) -> Result<ApiAddress> {
    if let Some(address) = &asking.api {
        return Ok(address.clone());
    }
    let is_default = asking.file.config.as_os_str() == crate::config::DEFAULT_PATH;
    let config = if is_default && !asking.file.config.exists() {
        Config::default()
    } else {
        asking.file.load()?
    };
    config.node.api.into_iter().next().ok_or_else(|| {
        anyhow!(
            "node.api in {} is empty: the daemon cannot be asked; set it, or name an address with \
             --api",
            asking.file.config.display()
        )
    })
}

fn status_text(status: &Status) -> String {
    let mut text = format!(
        "{} {}, {}, up {}\n",
        status.name,
        status.version,
        status.roles.join(", "),
        duration(status.uptime_seconds),
    );
    text += "\nfast path\n";
    if status.xdp.is_empty() {
        text += "  off\n";
    }
    let mut table = Table::default();
    for attachment in &status.xdp {
        table.row(&[
            &attachment.interface,
            attachment.mode.name(),
            &attachment.reason,
        ]);
    }
    text += &table.render("  ");

    text += "\nforwarded\n";
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
    text += &table.render("  ");

    // A String takes everything.
    let _ = writeln!(
        text,
        "\npeers    {} trusted, {} untrusted\nbubbles  {} sent, {} received",
        status.peers.trusted, status.peers.untrusted, status.bubbles.sent, status.bubbles.received,
    );
    for (title, reasons) in [
        ("dropped", &status.dropped),
        ("passed by the fast path", &status.passed),
    ] {
        let mut counted: Vec<_> = reasons
            .iter()
            .filter(|(_, packets)| **packets > 0)
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

/// How much of the traffic the fast path carried.
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
    let mut table = Table::new(&["address", "mapped", "state", "path", "received", "sent"]);
    for peer in peers {
        let state = match (peer.state, peer.symmetric) {
            (crate::api::types::PeerState::Untrusted, _) => "untrusted",
            (_, true) => "trusted (symmetric)",
            (_, false) => "trusted",
        };
        let ago = |seconds: Option<f64>| match seconds {
            Some(seconds) => format!("{seconds:.0} s ago"),
            None => "never".to_owned(),
        };
        table.row(&[
            peer.address.to_string(),
            peer.mapped.to_string(),
            state.to_owned(),
            if peer.xdp { "xdp" } else { "userspace" }.to_owned(),
            ago(peer.last_received_seconds),
            ago(peer.last_sent_seconds),
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
