//! `docs/hacking.md`: the functions that its tables name exist.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::shell;

/// The guide to the code.
const GUIDE: &str = "docs/hacking.md";
/// The beginnings of paths in the tables, and the directories that they stand for.
const CRATES: [(&str, &str); 5] = [
    ("common/", "teredo-common/src/"),
    ("daemon/", "teredo-userspace/src/"),
    ("datapath/", "teredo-datapath/src/"),
    ("ebpf/", "teredo-ebpf/src/"),
    ("proto/", "teredo-proto/src/"),
];

/// A row of a table: a file, and functions in it.
#[derive(Debug, PartialEq, Eq)]
struct Row<'t> {
    line: usize,
    /// The path in the repository.
    path: String,
    functions: Vec<&'t str>,
}

/// Fails if the guide names a file or a function that does not exist.
pub fn check() -> Result<()> {
    let text = fs::read_to_string(shell::root().join(GUIDE)).context(GUIDE)?;
    let mut failures = 0;
    for row in rows(&text) {
        for failure in missing(&row, shell::root()) {
            eprintln!("{GUIDE}:{}: {failure}", row.line);
            failures += 1;
        }
    }
    ensure!(failures == 0, "{GUIDE} does not follow the code");
    Ok(())
}

/// Returns the rows of the tables of functions.
fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let (path, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (cell, _) = rest.split_once(" |")?;
        let path = CRATES.iter().find_map(|(short, directory)| {
            Some(format!("{directory}{}", path.strip_prefix(short)?))
        })?;
        Some(Row {
            line: index + 1,
            path,
            functions: cell.split('`').skip(1).step_by(2).collect(),
        })
    })
}

/// Returns a sentence for the file, or for each function, that does not exist.
fn missing(row: &Row<'_>, root: &Path) -> Vec<String> {
    let path = &row.path;
    let Ok(code) = fs::read_to_string(root.join(path)) else {
        return vec![format!(
            "there is no file {path}; name the one that it became"
        )];
    };
    row.functions
        .iter()
        .filter(|name| !defines(&code, name))
        .map(|name| format!("{path} has no function {name}; name the one that it became"))
        .collect()
}

/// Whether the code has a function of this name.
fn defines(code: &str, name: &str) -> bool {
    code.split("fn ").skip(1).any(|rest| {
        rest.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['(', '<']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Text about `lib.rs`.

| file | functions | effect |
|---|---|---|
| `proto/relay/mod.rs` | `poll`, `emit` | `nothing` |
| `phase` | state | |
";

    #[test]
    fn rows_have_a_file_and_its_functions() {
        let expected = Row {
            line: 5,
            path: "teredo-proto/src/relay/mod.rs".to_owned(),
            functions: vec!["poll", "emit"],
        };
        assert_eq!(rows(TEXT).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn functions_are_found_by_their_whole_name() {
        let code = "pub fn send_all<T>() {}\nfn sent() {}";
        assert!(defines(code, "send_all") && defines(code, "sent"));
        assert!(!defines(code, "send") && !defines(code, "all"));
    }

    #[test]
    fn a_missing_file_is_a_failure_and_so_is_a_missing_function() {
        let row = |path: &str, function| Row {
            line: 1,
            path: path.to_owned(),
            functions: vec![function],
        };
        let root = shell::root();
        assert_eq!(
            missing(&row("xtask/src/guide.rs", "missing"), root).len(),
            0
        );
        assert_eq!(missing(&row("xtask/src/guide.rs", "absent"), root).len(), 1);
        assert_eq!(
            missing(&row("xtask/src/absent.rs", "missing"), root).len(),
            1
        );
    }
}
