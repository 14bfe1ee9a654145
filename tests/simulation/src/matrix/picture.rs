//! The measured matrix as a picture, for light and dark pages.

use std::fmt::Write as _;

use super::{Means, Outcome, between_clients, least, with_relay};
use crate::{ROUND_TRIP, nat::Kind};

/// The seed of the history that is drawn; tests prove that others do not differ.
const SEED: u64 = 0;
const LEFT: usize = 190;
const CELL: (usize, usize) = (78, 28);
const HEADER: usize = 92;
const GAP: usize = 40;

const CLIENTS: [(Kind, [&str; 2]); 9] = [
    (Kind::Cone, ["Cone", ""]),
    (Kind::AddressRestricted, ["Address-", "restricted"]),
    (Kind::PortRestricted, ["Port-", "restricted"]),
    (Kind::UpnpPortRestricted, ["UPnP port-", "restricted"]),
    (Kind::UpnpPortSymmetric, ["UPnP port-", "symmetric"]),
    (Kind::PortPreservingSymmetric, ["Port-pres.", "symmetric"]),
    (Kind::SequentialSymmetric, ["Sequential", "symmetric"]),
    (Kind::PortSymmetric, ["Port-", "symmetric"]),
    (Kind::AddressSymmetric, ["Address-", "symmetric"]),
];
const RELAYS: [Kind; 5] = [
    Kind::Public,
    Kind::Cone,
    Kind::AddressRestricted,
    Kind::PortRestricted,
    Kind::Firewall,
];

/// The picture has its own background, because a page may be dark where the reader's system is
/// light.
const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.note { fill: #59636e; }
.cell text, .column { text-anchor: middle; }
rect { stroke: #ffffff; stroke-width: 2; } .paper { fill: #ffffff; }
.basic rect { fill: #b7e4c7; } .extended rect { fill: #cfe3ff; }
.none rect { fill: #f8d3d3; } .silence rect { fill: #f3b8b8; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .note { fill: #9198a1; } rect { stroke: #0d1117; } .paper { fill: #0d1117; }
.basic rect { fill: #1f5c3a; } .extended rect { fill: #1f4a80; }
.none rect { fill: #6b2630; } .silence rect { fill: #8a2f3b; }
}
";

/// Measures all pairs and draws them as SVG.
#[must_use]
pub fn draw() -> String {
    let tables = [
        (
            "RFC 4380 alone: from the row's NAT to the column's",
            table(&CLIENTS.map(|(nat, _)| nat), &|from, to| {
                (
                    Some(Means::Basic),
                    between_clients(from, to, Means::Basic, SEED),
                )
            }),
        ),
        (
            "With RFC 6081: from the row's NAT to the column's",
            table(&CLIENTS.map(|(nat, _)| nat), &|from, to| {
                let reach = |means| between_clients(from, to, means, SEED);
                (least(reach), reach(Means::All))
            }),
        ),
        (
            "From clients (columns) to native hosts by a relay behind (rows)",
            table(&RELAYS, &|relay, client| {
                let reach = |means| with_relay(relay, client, true, means, SEED);
                (least(reach), reach(Means::All))
            }),
        ),
    ];
    let width = LEFT + CLIENTS.len() * CELL.0 + 10;
    let mut body = String::new();
    let mut top = 0;
    for (title, rows) in &tables {
        top = draw_table(&mut body, top, title, rows) + GAP;
    }
    for line in [
        "Y: RFC 4380 is enough. S: symmetric NAT support. U: and a mapped port (UPnP, PCP).",
        "P: support for NATs that preserve ports. Q: and for those that count them up.",
        "Numbers: round trips from the first packet to its answer. –: refused within 10 s.",
    ] {
        let _ = writeln!(
            body,
            "<text class=\"note\" x=\"10\" y=\"{top}\">{line}</text>"
        );
        top += 20;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {top}\" \
         width=\"{width}\" height=\"{top}\" role=\"img\">\n<title>Who reaches whom through which \
         NATs</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"{width}\" \
         height=\"{top}\"/>\n{body}</svg>\n"
    )
}

/// A row's kind and its cells: a class and a text.
type Row = (Kind, Vec<(&'static str, String)>);

fn table(rows: &[Kind], measure: &dyn Fn(Kind, Kind) -> (Option<Means>, Outcome)) -> Vec<Row> {
    let row = |&row: &Kind| {
        let cells = CLIENTS.iter().map(|&(column, _)| {
            let (means, outcome) = measure(row, column);
            cell(means, outcome)
        });
        (row, cells.collect())
    };
    rows.iter().map(row).collect()
}

fn cell(means: Option<Means>, outcome: Outcome) -> (&'static str, String) {
    match (means, outcome) {
        (Some(means), Outcome::Answered(after)) => {
            let trips = after.as_secs_f64() / ROUND_TRIP.as_secs_f64();
            let class = if means == Means::Basic {
                "basic"
            } else {
                "extended"
            };
            (
                class,
                format!("{} {trips:.1}", means.letter()).replace(".0", ""),
            )
        }
        (_, Outcome::Silence) => ("silence", "×".into()),
        _ => ("none", "–".into()),
    }
}

/// Draws one table and returns its lower edge.
fn draw_table(body: &mut String, top: usize, title: &str, rows: &[Row]) -> usize {
    let (width, height) = CELL;
    let _ = writeln!(
        body,
        "<text class=\"title\" x=\"10\" y=\"{}\">{title}</text>",
        top + 24
    );
    for (number, (_, lines)) in CLIENTS.iter().enumerate() {
        let x = LEFT + number * width + width / 2;
        for (line, text) in lines.iter().enumerate() {
            let y = top + HEADER - 32 + line * 16;
            let _ = writeln!(
                body,
                "<text class=\"column\" x=\"{x}\" y=\"{y}\">{text}</text>"
            );
        }
    }
    for (number, (kind, cells)) in rows.iter().enumerate() {
        let y = top + HEADER + number * height;
        let _ = writeln!(
            body,
            "<text x=\"10\" y=\"{}\">{}</text>",
            y + 19,
            kind.name()
        );
        for (column, (class, text)) in cells.iter().enumerate() {
            let x = LEFT + column * width;
            let _ = writeln!(
                body,
                "<g class=\"cell {class}\"><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" \
                 height=\"{height}\" rx=\"4\"/><text x=\"{}\" y=\"{}\">{text}</text></g>",
                x + width / 2,
                y + 19
            );
        }
    }
    top + HEADER + rows.len() * height
}
