//! Who reaches whom, as sections 5.2 to 5.4 of the protocol reference say.
//!
//! Tables are laid out as there: the row sends first. A letter says what the pair needs, `-` that
//! nothing helps. Where the client is better than the reference, the letter is a small one, and the
//! test says why.

mod clients;
mod picture;
mod relays;

use std::time::Duration;
use teredo_simulation::{matrix::Outcome, nat::Kind};

/// Histories for each pair.
const SEEDS: u64 = 3;
/// A request that cannot be answered is refused by then.
const REFUSAL: Duration = Duration::from_secs(10);

/// The pairs of a table with what it says of them.
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

/// Not answered, and the sender knows it in time.
fn assert_refused(outcome: Outcome, what: &str) {
    match outcome {
        Outcome::Unreachable(after) => assert!(after < REFUSAL, "{what}: after {after:?}"),
        other => panic!("{what}: {other:?}"),
    }
}
