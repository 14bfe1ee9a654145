//! Results of machines in the documentation, between two marks.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::shell;

/// The place of a result.
#[derive(Clone, Copy, Debug)]
pub struct Document {
    /// The file, from the root of the repository on.
    pub path: &'static str,
    /// The mark before the result, a whole line.
    pub begin: &'static str,
    /// The mark after it.
    pub end: &'static str,
}

impl Document {
    /// Replaces the result by another one, with date and commit.
    pub fn write(&self, result: &str) -> Result<()> {
        let path = shell::root().join(self.path);
        let document = fs::read_to_string(&path).context(self.path)?;
        let output = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.current_dir(shell::root()).args(arguments);
            let text = shell::output(&mut command).unwrap_or_default();
            text.trim().to_owned()
        };
        let commit = output("git", &["rev-parse", "--short", "HEAD"]);
        let date = output("date", &["--utc", "+%Y-%m-%d"]);
        let result = format!("{date}, commit {commit}:\n\n{result}");
        let replaced = self.replaced(&document, &result);
        fs::write(&path, replaced.context(self.path)?)?;
        Ok(())
    }

    /// Returns the document with another result between the marks.
    fn replaced(&self, document: &str, result: &str) -> Result<String> {
        let Self { begin, end, .. } = self;
        let (before, rest) = document.split_once(begin).context("no mark of the begin")?;
        let (_, after) = rest.split_once(end).context("no mark of the end")?;
        Ok(format!("{before}{begin}{result}{end}{after}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{system, table};

    #[test]
    fn a_result_is_replaced_between_the_marks() {
        let place = table::DOCUMENT;
        let Document { begin, end, .. } = place;
        let document = format!("before\n{begin}old\n{end}\nafter\n");
        let expected = format!("before\n{begin}new\n{end}\nafter\n");
        assert_eq!(place.replaced(&document, "new\n").unwrap(), expected);
        assert!(place.replaced("no marks", "new").is_err());
    }

    #[test]
    fn the_documents_have_the_marks() {
        for place in [table::DOCUMENT, system::DOCUMENT] {
            let text = fs::read_to_string(shell::root().join(place.path)).unwrap();
            assert!(place.replaced(&text, "").is_ok(), "{}", place.path);
        }
    }
}
