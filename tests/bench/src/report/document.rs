//! The tables of docs/performance.md and README.md, written from a report. The text between them stays.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{CaseReport, Report, Spread, mebibytes, plot};
use crate::{
    cases::{Case, Direction, Order, Part, Place, Variant, Workload},
    memory,
};

/// The source tree.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The folder of the pictures.
const PICTURES: &str = "docs";
/// The document with all tables.
const DOCUMENT: &str = "docs/performance.md";
/// The document with a summary.
const README: &str = "README.md";

/// Writes the tables and pictures of the source tree, as far as the report has figures for them. Returns
/// the names of the tables.
///
/// # Errors
///
/// Fails when a file cannot be read or written, or when the document has no place for a table.
pub fn write(report: &Report) -> Result<Vec<&'static str>> {
    let mut written = Vec::new();
    let root = Path::new(ROOT);
    for (file, tables) in [
        (DOCUMENT, tables(report)),
        (README, summary(report).into_iter().collect()),
    ] {
        let path = root.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut text = text;
        for (name, table) in tables {
            let table = format!("{table}\n{}\n", source(report, name));
            text = replace(&text, name, &table).with_context(|| file)?;
            written.push(name);
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    for (name, picture) in plot::curves(report) {
        let path = root.join(PICTURES).join(name);
        fs::write(&path, picture).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(written)
}

/// Replaces the text between the marks of a table.
fn replace(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- bench: {name} -->\n");
    let end = "<!-- end -->";
    let start = text.find(&begin);
    let start = start.with_context(|| format!("there is no {}", begin.trim()))? + begin.len();
    let length = text[start..].find(end);
    let length = length.with_context(|| format!("there is no {end} after {}", begin.trim()))?;
    let inside = &text[start..start + length];
    ensure!(
        !inside.contains("<!-- bench:"),
        "the table \"{name}\" does not end before the next one begins"
    );
    Ok([&text[..start], table, &text[start + length..]].concat())
}

/// The line about the measurement, under a table.
fn source(report: &Report, name: &str) -> String {
    let revision = report.revision.as_deref().unwrap_or("an unknown revision");
    let rounds = match report.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} interleaved rounds"),
    };
    format!(
        "`cargo xtask bench --only {name}`: {rounds} of {} s; {}; {revision}.",
        report.seconds,
        report.machine.line()
    )
}

/// The tables for which the report has figures.
fn tables(report: &Report) -> Vec<(&'static str, String)> {
    let tables = [
        ("peers", peers(report)),
        ("hosts", hosts(report)),
        ("throughput", throughput(report)),
        ("sizes", by_size(report)),
        ("orders", orders(report)),
        ("both-ways", plain(report, Part::BothWays)),
        ("cores", plain(report, Part::Cores)),
        ("generic", plain(report, Part::Generic)),
        ("serve", plain(report, Part::Serve)),
        ("vlan", plain(report, Part::Vlan)),
        ("loss", losses(report)),
        ("solicitations", servers(report)),
        ("client", clients(report)),
        ("memory", memories(report)),
    ];
    let tables = tables.into_iter();
    tables
        .filter_map(|(name, table)| Some((name, table?)))
        .collect()
}

/// The table of the README: the curve over peers.
fn summary(report: &Report) -> Option<(&'static str, String)> {
    Some(("peers", peers(report)?))
}

/// The reports of a part.
fn of(report: &Report, part: Part) -> Vec<&CaseReport<Case>> {
    let cases = report.cases.iter();
    cases.filter(|case| case.part == part.word()).collect()
}

/// Rows of a table, below its heading; nothing without rows.
fn table(heading: &[&str], rows: Vec<Vec<String>>) -> Option<String> {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&mut heading.iter().map(|cell| (*cell).to_owned()));
    text += &format!("|{}\n", "---|".repeat(heading.len()));
    for row in &rows {
        text += &line(&mut row.iter().cloned());
    }
    // A heading without text is no cell with two spaces.
    (!rows.is_empty()).then(|| text.replace("|  |", "| |"))
}

/// A ratio with its extremes.
fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| spread.text(1.0, 2))
}

/// A rate in millions.
fn millions(spread: Spread) -> String {
    format!("{:.2}", spread.median / 1e6)
}

/// A number with a space between thousands.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The ratio to the bare redirect, and the rate, of our XDP program in the case.
fn xdp(case: Option<&&CaseReport<Case>>) -> [String; 2] {
    of_variant(Variant::Xdp, case)
}

fn of_variant(variant: Variant, case: Option<&&CaseReport<Case>>) -> [String; 2] {
    let result = case.and_then(|case| case.result(variant));
    result.map_or_else(Default::default, |result| {
        [ratio(result.of_bare), millions(result.rate)]
    })
}

fn peers(report: &Report) -> Option<String> {
    let cases = of(report, Part::Peers);
    let mut counts: Vec<u32> = cases.iter().map(|case| case.case.clients).collect();
    counts.sort_unstable();
    counts.dedup();
    let rows = counts.into_iter().map(|count| {
        let find = |direction| {
            let mut cases = cases.iter();
            cases.find(|case| case.case.clients == count && case.case.direction == direction)
        };
        let [[encap, encap_rate], [decap, decap_rate]] =
            Direction::ALL.map(|direction| xdp(find(direction)));
        let of = |variant| {
            Direction::ALL.map(|direction| {
                let [of_bare, _] = of_variant(variant, find(direction));
                of_bare
            })
        };
        let [least_encap, least_decap] = of(Variant::Least);
        let [padded_encap, padded_decap] = of(Variant::Padded);
        vec![
            grouped(count),
            encap,
            encap_rate,
            least_encap,
            padded_encap,
            decap,
            decap_rate,
            least_decap,
            padded_decap,
        ]
    });
    let heading = [
        "peers",
        "encap, of bare",
        "million/s",
        "least work",
        "least work, padded",
        "decap, of bare",
        "million/s",
        "least work",
        "least work, padded",
    ];
    table(&heading, rows.collect())
}

fn hosts(report: &Report) -> Option<String> {
    let near = of(report, Part::Hosts);
    let routed = of(report, Part::Routes);
    let mut counts: Vec<u32> = near.iter().map(|case| case.case.hosts.count).collect();
    counts.sort_unstable();
    counts.dedup();
    let rows = counts.into_iter().map(|count| {
        let find = |cases: &[&CaseReport<Case>], place: Option<Place>| {
            let found = cases.iter().find(|case| {
                let hosts = case.case.hosts;
                hosts.count == count && place.is_none_or(|place| hosts.place == place)
            });
            let [of_bare, _] = xdp(found);
            of_bare
        };
        vec![
            grouped(count),
            find(&near, Some(Place::Behind)),
            find(&routed, None),
            find(&near, Some(Place::OnLink)),
        ]
    });
    let heading = [
        "native hosts",
        "behind a gateway",
        "behind a gateway, each with one of 200,000 routes",
        "on the link",
    ];
    table(&heading, rows.collect())
}

fn throughput(report: &Report) -> Option<String> {
    let rows = of(report, Part::Throughput).into_iter().flat_map(|case| {
        case.results.iter().map(move |result| {
            let cpu = result.cpu_nanoseconds;
            vec![
                case.name.clone(),
                result.variant.title().to_owned(),
                millions(result.rate),
                ratio(result.of_bare),
                ratio(result.of_miredo),
                cpu.map_or_else(String::new, |cpu| format!("{:.0}", cpu.median)),
            ]
        })
    });
    let heading = [
        "",
        "",
        "million/s",
        "of bare redirect",
        "of Miredo",
        "CPU ns a packet",
    ];
    table(&heading, rows.collect())
}

fn by_size(report: &Report) -> Option<String> {
    let cases = of(report, Part::Sizes);
    let encap = cases
        .iter()
        .filter(|case| case.case.direction == Direction::Encap);
    let rows = encap.map(|case| {
        let size = case.case.size;
        let mut others = cases.iter();
        let other = others
            .find(|other| other.case.size == size && other.case.direction == Direction::Decap);
        let kernel = case
            .result(Variant::Kernel)
            .and_then(|kernel| kernel.of_bare);
        let [encap, encap_rate] = xdp(Some(case));
        let [decap, decap_rate] = xdp(other);
        vec![
            size.to_string(),
            encap,
            encap_rate,
            decap,
            decap_rate,
            ratio(kernel),
        ]
    });
    let heading = [
        "octets",
        "encap, of bare",
        "million/s",
        "decap, of bare",
        "million/s",
        "kernel's IPv6 forwarding, of bare",
    ];
    table(&heading, rows.collect())
}

fn orders(report: &Report) -> Option<String> {
    let cases = [of(report, Part::Peers), of(report, Part::Orders)].concat();
    let is_order = |case: &&&CaseReport<Case>| {
        let orders = of(report, Part::Orders);
        orders
            .iter()
            .any(|order| order.case.clients == case.case.clients)
    };
    let rows = Order::ALL.into_iter().filter_map(|order| {
        let find = |direction| {
            let mut cases = cases.iter().filter(is_order);
            cases.find(|case| case.case.order == order && case.case.direction == direction)
        };
        let [encap, decap] = Direction::ALL.map(find);
        let clients = encap.or(decap)?.case.clients;
        let name = match order {
            Order::Rotation => "strict rotation",
            Order::Trains => "trains of 16 packets",
            Order::Zipf => "at random, with Zipf's distribution",
        };
        let [[encap, _], [decap, _]] = [xdp(encap), xdp(decap)];
        Some(vec![format!("{}, {name}", grouped(clients)), encap, decap])
    });
    table(&["peers", "encap", "decap"], rows.collect())
}

/// The table of a part whose cases are all alike: one row for each.
fn plain(report: &Report, part: Part) -> Option<String> {
    let rows = of(report, part).into_iter().map(|case| {
        let [of_bare, rate] = xdp(Some(&case));
        vec![case.name.clone(), of_bare, rate]
    });
    table(&["", "of bare redirect", "million/s"], rows.collect())
}

fn losses(report: &Report) -> Option<String> {
    let rows = report.losses.iter().map(|loss| {
        let latency = loss.typical();
        let microseconds = |time: u32| format!("{:.1}", f64::from(time) / 1e3);
        vec![
            loss.name.clone(),
            loss.variant.title().to_owned(),
            millions(loss.lossless),
            microseconds(latency.median),
            microseconds(latency.p99),
            microseconds(latency.p999),
        ]
    });
    let heading = [
        "",
        "",
        "million/s without loss",
        "latency at half of it, median us",
        "99 %",
        "99.9 %",
    ];
    table(&heading, rows.collect())
}

/// The rows of workloads of servers and clients.
fn rows<W: Workload>(reports: &[CaseReport<W>]) -> Vec<Vec<String>> {
    let rows = reports.iter().flat_map(|case| {
        case.results.iter().map(move |result| {
            vec![
                case.name.clone(),
                W::title(result.variant).to_owned(),
                format!("{} {}", millions(result.rate), W::RATE),
                ratio(result.of_bare),
                ratio(result.of_miredo),
                ratio(result.cpu_of_miredo),
            ]
        })
    });
    rows.collect()
}

fn servers(report: &Report) -> Option<String> {
    let heading = [
        "",
        "",
        "rate",
        "of bare `XDP_TX`",
        "of Miredo",
        "CPU of Miredo",
    ];
    table(&heading, rows(&report.solicitations))
}

fn clients(report: &Report) -> Option<String> {
    let mut all = rows(&report.tunnels);
    all.extend(rows(&report.streams));
    for row in &mut all {
        row.remove(3);
    }
    table(&["", "", "rate", "of Miredo", "CPU of Miredo"], all)
}

fn memories(report: &Report) -> Option<String> {
    let rows = report.memory.iter().map(|memory| {
        vec![
            memory.variant.title().to_owned(),
            format!("{:.0} MiB", mebibytes(memory.resident)),
            format!("{:.0} MiB", mebibytes(memory.maps)),
        ]
    });
    let clients = format!("with {} clients", grouped(memory::CLIENTS));
    table(&[&clients, "resident", "maps"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_between_its_marks() {
        let text = "a\n<!-- bench: peers -->\nold\n<!-- end -->\nb\n";
        let expected = "a\n<!-- bench: peers -->\nnew\n<!-- end -->\nb\n";
        assert_eq!(replace(text, "peers", "new\n").unwrap(), expected);
        assert!(replace(text, "hosts", "new\n").is_err());
        let open = "<!-- bench: peers -->\n<!-- bench: hosts -->\n<!-- end -->";
        assert!(replace(open, "peers", "new\n").is_err());
    }

    #[test]
    fn numbers_are_grouped() {
        let grouped = [1, 999, 10_000, 1_000_000].map(grouped);
        assert_eq!(grouped, ["1", "999", "10,000", "1,000,000"]);
    }

    #[test]
    fn the_documents_have_a_place_for_every_table() {
        let read = |file| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        let text = read(DOCUMENT);
        for (part, name) in Part::ALL {
            let is_table = !matches!(part, Part::TestRun | Part::Churn | Part::Routes);
            assert_eq!(replace(&text, name, "").is_ok(), is_table, "{name}");
        }
        assert!(replace(&read(README), "peers", "").is_ok());
    }
}
