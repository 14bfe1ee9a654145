//! Connectivity of pairs of NATs, as in the tables of docs/protocol/traversal.md.
//!
//! Tables are laid out as there: the row sends first. A letter names the need of the pair, `-`
//! means that it never connects. A small letter marks a pair for which the client does better than
//! that document, for a reason that the test gives.

mod clients;
mod picture;
mod relays;

use std::time::Duration;
use teredo_simulation::{matrix::Outcome, nat::Kind};

/// Histories for each pair.
const SEEDS: u64 = 3;
/// Time by which a request that cannot be answered is refused.
const REFUSAL: Duration = Duration::from_secs(10);

/// The pairs of a table with their entries.
fn cells(rows: &[Kind], columns: &[Kind], table: &str) -> Vec<(Kind, Kind, char)> {
    let lines: Vec<&str> = table.lines().filter(|line| line.contains('|')).collect();
    assert_eq!(
        lines.len(),
        rows.len() + 1,
        "a header, and a line for each row"
    );
    let mut cells = Vec::new();
    for (&row, line) in rows.iter().zip(&lines[1..]) {
        let entries: Vec<&str> = line.split('|').skip(1).map(str::trim).collect();
        assert_eq!(entries.len(), columns.len(), "{line}");
        for (&column, entry) in columns.iter().zip(entries) {
            cells.push((row, column, entry.chars().next().unwrap_or(' ')));
        }
    }
    cells
}

/// Whether the request was not answered and the sender was notified in time.
fn assert_refused(outcome: Outcome, what: &str) {
    match outcome {
        Outcome::Unreachable(after) => assert!(after < REFUSAL, "{what}: after {after:?}"),
        other => panic!("{what}: {other:?}"),
    }
}
