//! The graphs of the last hour.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::picture::{Moment, Picture};
use crate::api::{
    history::{Hour, Past},
    types::{Paths, Status},
};

/// The reasons of drops that the graph tells apart.
const REASONS: usize = 4;

/// Renders the graphs that have a meaning for the roles.
pub fn render(status: &Status, hour: &Hour) -> Markup {
    let has = |role: &str| status.roles.iter().any(|other| other == role);
    let mut pictures = Vec::new();
    if has("client") {
        pictures.push(daemon_alone("encap", "From this host", hour, |past| {
            past.packets.encap
        }));
        pictures.push(daemon_alone("decap", "To this host", hour, |past| {
            past.packets.decap
        }));
    }
    if has("relay") {
        pictures.push(paths("encap", "To Teredo clients", hour, |past| {
            past.packets.encap
        }));
        pictures.push(paths("decap", "From Teredo clients", hour, |past| {
            past.packets.decap
        }));
    }
    if has("server") {
        pictures.push(paths("requests", "Requests to the server", hour, |past| {
            past.requests
        }));
    }
    pictures.push(drops(hour));
    if has("relay") || has("client") {
        pictures.push(peers(hour));
    }
    html! {
        section #hour aria-labelledby="hour-title" {
            h2 #hour-title { "The last hour" }
            @if hour.intervals.is_empty() {
                p .nothing {
                    "The graphs begin 20 seconds after the daemon."
                }
            } @else {
                div .graphs { @for picture in &pictures { (picture.render()) } }
            }
        }
    }
}

fn picture(
    id: &'static str,
    title: &str,
    unit: &'static str,
    series: Vec<String>,
    hour: &Hour,
    values: impl Fn(&Past) -> Vec<f64>,
) -> Picture {
    let moments = hour.intervals.iter().map(|past| Moment {
        age: past.age_seconds,
        length: past.seconds,
        values: values(past),
    });
    Picture {
        id,
        title: title.to_owned(),
        unit,
        series,
        moments: moments.collect(),
        span: hour.span_seconds as f64,
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn paths(id: &'static str, title: &str, hour: &Hour, of: fn(&Past) -> Paths) -> Picture {
    let series = names(&["fast path", "daemon"]);
    picture(id, title, "packets/s", series, hour, |past| {
        let Paths { xdp, userspace } = of(past);
        [xdp, userspace]
            .map(|packets| packets as f64 / past.seconds)
            .to_vec()
    })
}

fn daemon_alone(id: &'static str, title: &str, hour: &Hour, of: fn(&Past) -> Paths) -> Picture {
    picture(id, title, "packets/s", names(&["packets"]), hour, |past| {
        vec![of(past).userspace as f64 / past.seconds]
    })
}

fn peers(hour: &Hour) -> Picture {
    let series = names(&["trusted", "untrusted"]);
    picture("peers", "Peers", "peers", series, hour, |past| {
        [past.peers.trusted, past.peers.untrusted]
            .map(|peers| peers as f64)
            .to_vec()
    })
}

fn drops(hour: &Hour) -> Picture {
    let reasons = most(hour);
    let mut series: Vec<String> = reasons.iter().map(|&reason| reason.to_owned()).collect();
    series.push("other reasons".to_owned());
    picture("drops", "Dropped", "packets/s", series, hour, |past| {
        let packets = |reason| {
            past.dropped
                .reasons
                .get(reason)
                .copied()
                .unwrap_or_default()
        };
        let mut values: Vec<u64> = reasons.iter().map(|&reason| packets(reason)).collect();
        values.push(past.dropped.total.saturating_sub(values.iter().sum()));
        values
            .into_iter()
            .map(|packets| packets as f64 / past.seconds)
            .collect()
    })
}

/// Returns the reasons with most packets.
fn most(hour: &Hour) -> Vec<&str> {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for past in &hour.intervals {
        for (reason, packets) in &past.dropped.reasons {
            *totals.entry(reason).or_default() += packets;
        }
    }
    let mut totals: Vec<_> = totals.into_iter().collect();
    totals.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    totals
        .into_iter()
        .take(REASONS)
        .map(|(reason, _)| reason)
        .collect()
}
