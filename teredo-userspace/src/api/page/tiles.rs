//! The numbers of this moment.

use maud::{Markup, html};

use super::numbers::{grouped, share, short};
use crate::{
    api::{
        history::{Hour, Past},
        types::{Paths, Status},
    },
    metrics::Snapshot,
};

/// One number.
struct Tile {
    name: &'static str,
    value: String,
    unit: &'static str,
    below: String,
    is_bad: bool,
}

/// Renders the tiles.
pub fn render(status: &Status, snapshot: &Snapshot, hour: &Hour) -> Markup {
    let tiles = tiles(status, snapshot, hour);
    html! {
        section #now aria-labelledby="now-title" {
            h2 #now-title { "Now" }
            dl .tiles {
                @for tile in &tiles {
                    div .bad[tile.is_bad] {
                        dt { (tile.name) }
                        dd {
                            strong { (tile.value) }
                            @if !tile.unit.is_empty() { " " span .unit { (tile.unit) } }
                            span .below { (tile.below) }
                        }
                    }
                }
            }
        }
    }
}

fn tiles(status: &Status, snapshot: &Snapshot, hour: &Hour) -> Vec<Tile> {
    let last = hour.intervals.last();
    let is_client = status.client.is_some();
    let mut tiles = Vec::new();
    if is_client || status.roles.iter().any(|role| role == "relay") {
        let names = match is_client {
            true => [("encap", "From this host"), ("decap", "To this host")],
            false => [
                ("encap", "To Teredo clients"),
                ("decap", "From Teredo clients"),
            ],
        };
        for (direction, name) in names {
            let rate = status.rates.get(direction).copied().unwrap_or_default();
            tiles.push(Tile {
                name,
                value: short(rate.packets),
                unit: "packets/s",
                below: format!("{}bit/s", with_unit(rate.bytes * 8.0)),
                is_bad: false,
            });
        }
        tiles.push(peers(status));
    }
    if status.server.is_some() {
        tiles.push(requests(status, last));
    }
    if !is_client {
        tiles.push(fast_path(status, last));
    }
    tiles.push(drops(last));
    if is_client || status.roles.iter().any(|role| role == "relay") {
        tiles.push(Tile {
            name: "Waiting",
            value: short(snapshot.queue_packets as f64),
            unit: "packets",
            below: format!(
                "{}octets, for answers of peers",
                with_unit(snapshot.queue_bytes as f64)
            ),
            is_bad: false,
        });
    }
    tiles
}

/// Shows a number that a unit follows.
fn with_unit(number: f64) -> String {
    let text = short(number);
    if text.contains('\u{a0}') {
        text
    } else {
        text + "\u{a0}"
    }
}

fn peers(status: &Status) -> Tile {
    let peers = &status.peers;
    let all = peers.trusted + peers.untrusted;
    // Nine of ten places: new peers will be refused soon.
    let is_bad = peers.maximum > 0 && all >= peers.maximum - peers.maximum / 10;
    Tile {
        name: "Peers",
        value: grouped(all),
        unit: if is_bad { "nearly full" } else { "" },
        below: format!(
            "{} trusted, of at most {}",
            grouped(peers.trusted),
            short(peers.maximum as f64)
        ),
        is_bad,
    }
}

fn requests(status: &Status, last: Option<&Past>) -> Tile {
    let bindings = status.server.as_ref().map_or(0, |server| server.bindings);
    Tile {
        name: "Requests",
        value: last.map_or("-".to_owned(), |last| {
            short(sum(last.requests) as f64 / last.seconds)
        }),
        unit: "per second",
        below: match bindings {
            0 => "answered by the server".to_owned(),
            bindings => format!("{} clients in tunnels", grouped(bindings)),
        },
        is_bad: false,
    }
}

fn fast_path(status: &Status, last: Option<&Past>) -> Tile {
    let all = [status.packets.encap, status.packets.decap];
    let recent = last.map(|last| [last.packets.encap, last.packets.decap, last.requests]);
    let (parts, when) = match recent {
        Some(parts) if parts.iter().any(|paths| sum(*paths) > 0) => {
            (parts.to_vec(), "of the last 10 s")
        }
        _ => (all.to_vec(), "of all packets"),
    };
    let xdp = parts.iter().map(|paths| paths.xdp).sum();
    let is_off = status
        .xdp
        .iter()
        .all(|on| on.mode == crate::metrics::Mode::Off);
    Tile {
        name: "In the fast path",
        value: share(xdp, parts.iter().map(|paths| sum(*paths)).sum()),
        unit: if is_off { "XDP is off" } else { "" },
        below: when.to_owned(),
        is_bad: false,
    }
}

fn drops(last: Option<&Past>) -> Tile {
    let first = last.and_then(|last| {
        let reasons = last.dropped.reasons.iter();
        reasons.max_by_key(|(_, packets)| **packets)
    });
    Tile {
        name: "Dropped",
        value: last.map_or("-".to_owned(), |last| {
            short(last.dropped.total as f64 / last.seconds)
        }),
        unit: "packets/s",
        below: first.map_or("in the last 10 s".to_owned(), |(reason, _)| {
            format!("mostly {reason}")
        }),
        is_bad: false,
    }
}

fn sum(paths: Paths) -> u64 {
    paths.xdp + paths.userspace
}
