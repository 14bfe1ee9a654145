//! Who reaches whom, as PROTOCOL.md sections 5.2 to 5.4 say.

use std::time::Duration;

use teredo_tests::simulation::{
    for_seeds,
    matrix::{Means, Outcome, between_clients, least, with_relay},
    nat::Kind,
};

/// Histories for each pair.
const SEEDS: u64 = 3;
/// A request that cannot be answered is refused by then.
const REFUSAL: Duration = Duration::from_secs(10);

/// Reads a table: the columns' kinds, and each row's kind with its entries.
fn rows(columns: &[Kind], rows: &[Kind], table: &str) -> Vec<(Kind, Kind, char)> {
    let lines: Vec<&str> = table.lines().filter(|line| line.contains('|')).collect();
    assert_eq!(
        lines.len(),
        rows.len() + 1,
        "a header and one line for each row"
    );
    let mut cells = Vec::new();
    for (&row, line) in rows.iter().zip(&lines[1..]) {
        let entries = line.split('|').skip(2).map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        let entries: Vec<char> = entries.flat_map(str::chars).collect();
        assert_eq!(entries.len(), columns.len(), "{line}");
        cells.extend(
            columns
                .iter()
                .zip(entries)
                .map(|(&column, entry)| (row, column, entry)),
        );
    }
    cells
}

#[test]
fn explore() {
    let kinds = [
        Kind::Cone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::UpnpPortRestricted,
        Kind::UpnpPortSymmetric,
        Kind::PortPreservingSymmetric,
        Kind::SequentialSymmetric,
        Kind::PortSymmetric,
        Kind::AddressSymmetric,
    ];
    for from in kinds {
        let mut line = format!("{:26}", from.name());
        for to in kinds {
            let mut cell = String::new();
            for seed in 0..3 {
                let means = least(|means| between_clients(from, to, means, seed));
                cell.push(means.map_or('-', Means::letter));
                match between_clients(from, to, Means::All, seed) {
                    Outcome::Answered(d) => cell += &format!("{:.0}", d.as_secs_f64() / 0.05),
                    Outcome::Silence => cell += "!",
                    Outcome::Unreachable(d) if d < REFUSAL => (),
                    Outcome::Unreachable(d) => cell += &format!("{d:?}"),
                    Outcome::NoAddress => cell += "#",
                }
                cell.push(' ');
            }
            line += &format!("| {cell:15}");
        }
        println!("{line}");
    }
    for relay in [
        Kind::Public,
        Kind::Cone,
        Kind::AddressRestricted,
        Kind::PortRestricted,
        Kind::Firewall,
    ] {
        for outbound in [false, true] {
            let mut line = format!("{:26}{outbound:6}", relay.name());
            for client in kinds {
                let mut cell = String::new();
                for means in [Means::Basic, Means::All] {
                    match with_relay(relay, client, outbound, means, 0) {
                        Outcome::Answered(d) => cell += &format!("{:.1}", d.as_secs_f64() / 0.05),
                        Outcome::Silence => cell += "!",
                        Outcome::Unreachable(d) => cell += &format!("-{d:?}"),
                        Outcome::NoAddress => cell += "#",
                    }
                    cell.push(' ');
                }
                line += &format!("| {cell:10}");
            }
            println!("{line}");
        }
    }
}
