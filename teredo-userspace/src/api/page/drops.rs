//! Dropped packets, explained.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{
    numbers::{grouped, short},
    words,
};
use crate::{
    api::history::Hour,
    metrics::{NOISE, Path, Role, Snapshot, meaning},
};

/// The intervals of the column for the last minute.
const MINUTE: usize = 6;

/// Renders the table of the reasons for which packets were dropped.
pub fn render(snapshot: &Snapshot, hour: &Hour) -> Markup {
    let recent = recent(hour);
    let mut rows: Vec<_> = snapshot
        .dropped
        .iter()
        .filter(|&(&(_, _, reason), &packets)| packets > 0 && reason != NOISE)
        .map(|(&key, &packets)| (key, packets, recent.get(key.2).copied().unwrap_or_default()))
        .collect();
    rows.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.cmp(&a.1)).then(a.0.cmp(&b.0)));
    html! {
        section #drops aria-labelledby="drops-title" {
            h2 #drops-title { "Dropped packets" }
            @if rows.is_empty() {
                p .nothing { "None." }
            } @else {
                div .scroll tabindex="0" role="region" aria-labelledby="drops-title" {
                    table {
                        thead { tr {
                            th scope="col" { "Reason" }
                            th scope="col" { "Meaning" }
                            th scope="col" { "By" }
                            th .number scope="col" { "Last minute" }
                            th .number scope="col" { "Since start" }
                        } }
                        tbody {
                            @for ((role, path, reason), packets, recent) in rows {
                                (row(role, path, reason, packets, recent))
                            }
                        }
                    }
                }
            }
            (passed(snapshot))
        }
    }
}

/// Returns the meaning of a reason for drops, if it is documented.
fn dropped(role: Role, path: Path, reason: &str) -> Option<&'static str> {
    match path {
        Path::Xdp => meaning::dropped_by_fast_path(reason),
        Path::Userspace => meaning::dropped(role, reason),
    }
}

fn row(role: Role, path: Path, reason: &str, packets: u64, recent: u64) -> Markup {
    html! {
        tr {
            th scope="row" { code { (reason) } }
            td { (words::render(dropped(role, path, reason).unwrap_or_default())) }
            td { (by(role, path)) }
            td .number { (short(recent as f64)) }
            td .number { (grouped(packets)) }
        }
    }
}

fn by(role: Role, path: Path) -> String {
    match path {
        Path::Xdp => format!("{}, fast path", role.name()),
        Path::Userspace => role.name().to_owned(),
    }
}

/// Returns the packets of the last minute by reason.
fn recent(hour: &Hour) -> BTreeMap<&str, u64> {
    let mut recent = BTreeMap::new();
    for past in hour.intervals.iter().rev().take(MINUTE) {
        for (reason, packets) in &past.dropped.reasons {
            *recent.entry(&**reason).or_default() += packets;
        }
    }
    recent
}

/// Renders what the fast path left to others, which is no loss.
fn passed(snapshot: &Snapshot) -> Markup {
    let mut rows: Vec<_> = snapshot
        .passed
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    html! {
        @if !rows.is_empty() {
            details #passed {
                summary { "Passed by the fast path to the kernel and the daemon, which is no loss" }
                div .scroll tabindex="0" role="region" aria-label="Passed by the fast path" {
                    table {
                        thead { tr {
                            th scope="col" { "Reason" }
                            th scope="col" { "Meaning" }
                            th .number scope="col" { "Since start" }
                        } }
                        tbody {
                            @for (reason, packets) in rows {
                                tr {
                                    th scope="row" { code { (reason) } }
                                    td { (words::render(meaning::passed(reason).unwrap_or_default())) }
                                    td .number { (grouped(*packets)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
