//! Printing text, JSON, errors and tables.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Result;
use serde::Serialize;

use crate::privileges::MORE_FILES;

/// Prints text unchanged.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Returns whether the reader of the output has closed it, as `head` does. That is no failure.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Formats an error with its causes as one sentence on one line. Causes that the sentence already
/// contains are left out. What the operator can do about a lack of file descriptors is added,
/// since any step may lack them.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    if is_descriptor_missing(&sentence) {
        sentence = format!("{sentence}; {MORE_FILES}");
    }
    sentence.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether the kernel refused another file descriptor, whichever library tells it. Some
/// keep the text of the kernel's error alone.
fn is_descriptor_missing(sentence: &str) -> bool {
    [libc::EMFILE, libc::ENFILE]
        .iter()
        .any(|code| sentence.contains(&format!("(os error {code})")))
}

/// A table whose columns are as wide as necessary. Numbers are aligned to the right.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these column titles.
    pub fn new(titles: &[&str]) -> Self {
        let mut table = Self::default();
        table.row(titles);
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[impl ToString]) {
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }

    /// Returns the table as lines, each indented by `indent`.
    pub fn render(&self, indent: &str) -> String {
        let mut widths = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| {
                    let is_number = cell.starts_with(|first: char| first.is_ascii_digit())
                        && cell.chars().all(|c| c.is_ascii_digit() || c == '.');
                    if is_number {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:width$}")
                    }
                })
                .collect();
            text += indent;
            text += cells.join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_appear_once() {
        let cause = || io::Error::other("no such\n thing");
        let error = anyhow::Error::new(cause()).context("cannot go on");
        assert_eq!(sentence(&error), "cannot go on: no such thing");
        let error = anyhow::Error::new(cause()).context("cannot: no such\n thing; go home");
        assert_eq!(sentence(&error), "cannot: no such thing; go home");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", "packets"]);
        table.row(&["a-long-name", "7"]);
        table.row(&["b", "1234567890"]);
        assert_eq!(
            table.render(" "),
            " name         packets\n a-long-name           7\n b            1234567890\n"
        );
    }
}
