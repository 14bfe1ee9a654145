//! The log of the daemon, on standard error.

use std::{
    env,
    io::{self, IsTerminal as _, Stderr, Write},
};

use anyhow::{Context as _, Result};
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::{LogFormat, NodeSection};

/// The variable that systemd sets for programs whose output goes to its journal (systemd.exec(5)).
const JOURNAL: &str = "JOURNAL_STREAM";

/// Starts the log. In systemd's journal, each line begins with its priority (sd-daemon(3)), and has
/// no time, which the journal knows.
pub fn start(node: &NodeSection) -> Result<()> {
    let filter = EnvFilter::builder().parse(&node.log).context("node.log")?;
    let is_journal = goes_to_journal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Output { is_journal })
        .with_ansi(io::stderr().is_terminal());
    match (node.log_format, is_journal) {
        (LogFormat::Text, false) => log.init(),
        (LogFormat::Text, true) => log.without_time().init(),
        (LogFormat::Json, false) => log.json().init(),
        (LogFormat::Json, true) => log.json().without_time().init(),
    }
    Ok(())
}

/// Returns the prefix of the sentence that explains the end of the daemon.
pub fn error_prefix() -> &'static str {
    match goes_to_journal() {
        true => priority(Level::ERROR),
        false => "",
    }
}

/// Returns whether standard error goes to systemd's journal. A terminal in a session may have
/// inherited the variable.
fn goes_to_journal() -> bool {
    env::var_os(JOURNAL).is_some() && !io::stderr().is_terminal()
}

/// Returns the priority of a line, as the journal expects it.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Standard error, with priorities for the journal.
struct Output {
    is_journal: bool,
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Lines<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Lines {
            prefix: "",
            out: io::stderr(),
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let prefix = match self.is_journal {
            true => priority(*metadata.level()),
            false => "",
        };
        Lines {
            prefix,
            ..self.make_writer()
        }
    }
}

/// A writer of whole lines that begin with a prefix.
struct Lines<W> {
    prefix: &'static str,
    out: W,
}

impl<W: Write> Write for Lines<W> {
    /// Writes an entry of the log, which comes in one piece.
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            self.out.write_all(entry)?;
        } else {
            let mut lines = Vec::with_capacity(self.prefix.len() + entry.len());
            for line in entry.split_inclusive(|&octet| octet == b'\n') {
                lines.extend_from_slice(self.prefix.as_bytes());
                lines.extend_from_slice(line);
            }
            self.out.write_all(&lines)?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_prefix() {
        for (prefix, entry, written) in [
            ("", "one\ntwo\n", "one\ntwo\n"),
            ("<6>", "one\n", "<6>one\n"),
            ("<3>", "one\ntwo\n", "<3>one\n<3>two\n"),
        ] {
            let mut out = Vec::new();
            let mut lines = Lines {
                prefix,
                out: &mut out,
            };
            lines.write_all(entry.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), written);
        }
    }

    #[test]
    fn priorities_are_those_of_syslog() {
        let levels = [
            Level::ERROR,
            Level::WARN,
            Level::INFO,
            Level::DEBUG,
            Level::TRACE,
        ];
        assert_eq!(levels.map(priority), ["<3>", "<4>", "<6>", "<7>", "<7>"]);
    }
}
