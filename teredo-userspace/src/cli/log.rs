//! The log of the daemon, on standard error.
//!
//! Nothing waits for it: lines are lost, and counted, while the disk is full or nobody reads them.

use std::{
    env,
    io::{self, IsTerminal as _, Stderr, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, NodeSection, log_filter};

/// The variable that systemd sets for programs whose output goes to its journal (systemd.exec(5)).
const JOURNAL: &str = "JOURNAL_STREAM";
/// Octets that a pipe or socket takes at once whenever it is writable.
const ATOMIC: usize = libc::PIPE_BUF;
/// Milliseconds that a slow reader has for the sentence that explains the end.
const LAST_WAIT: u16 = 1000;

/// Starts the log. In systemd's journal, each line begins with its priority (sd-daemon(3)), and has
/// no time, which the journal knows.
pub fn start(node: &NodeSection) -> Result<()> {
    let filter = log_filter::parse(&node.log).context("node.log")?;
    let is_journal = goes_to_journal();
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(Output {
            is_journal,
            lost: AtomicU64::new(0),
        })
        .with_ansi(io::stderr().is_terminal());
    match (node.log_format, is_journal) {
        (LogFormat::Text, false) => log.finish().with(filter).init(),
        (LogFormat::Text, true) => log.without_time().finish().with(filter).init(),
        (LogFormat::Json, false) => log.json().finish().with(filter).init(),
        (LogFormat::Json, true) => log.json().without_time().finish().with(filter).init(),
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
    /// Entries that could not be written, since the last one that could.
    lost: AtomicU64,
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Lines<'a, Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Lines {
            prefix: "",
            lost: &self.lost,
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

/// Writes the sentence that explains the end of the daemon or a command, if anybody takes it.
pub fn explain(sentence: &str) {
    let out = io::stderr();
    if is_writable(&out, LAST_WAIT) {
        let _ = writeln!(&out, "{sentence}");
    }
}

/// Returns whether the output takes [`ATOMIC`] octets within some milliseconds.
fn is_writable(out: &impl AsFd, wait: u16) -> bool {
    let mut polled = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    let ready = loop {
        match poll(&mut polled, wait) {
            // A signal has its handler.
            Err(Errno::EINTR) => {}
            ready => break ready,
        }
    };
    ready.is_ok()
        && polled[0]
            .revents()
            .is_some_and(|events| events == PollFlags::POLLOUT)
}

/// A writer of whole lines that begin with a prefix. It never fails, and never waits for a reader.
struct Lines<'a, W> {
    prefix: &'static str,
    lost: &'a AtomicU64,
    out: W,
}

impl<W: Write + AsFd> Lines<'_, W> {
    /// Writes lines, unless that fails or would have to wait.
    fn put(&mut self, lines: &[u8]) -> bool {
        lines
            .chunks(ATOMIC)
            .all(|chunk| is_writable(&self.out, 0) && self.out.write_all(chunk).is_ok())
    }
}

impl<W: Write + AsFd> Write for Lines<'_, W> {
    /// Writes an entry of the log, which comes in one piece.
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let mut lines = Vec::with_capacity(self.prefix.len() + entry.len());
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = format!("{}{lost} entries of the log were lost\n", self.prefix);
            lines.extend_from_slice(line.as_bytes());
        }
        for line in entry.split_inclusive(|&octet| octet == b'\n') {
            lines.extend_from_slice(self.prefix.as_bytes());
            lines.extend_from_slice(line);
        }
        if !self.put(&lines) {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    fn lines<'a, W>(prefix: &'static str, lost: &'a AtomicU64, out: W) -> Lines<'a, W> {
        Lines { prefix, lost, out }
    }

    #[test]
    fn every_line_has_its_prefix() {
        for (prefix, entry, written) in [
            ("", "one\ntwo\n", "one\ntwo\n"),
            ("<6>", "one\n", "<6>one\n"),
            ("<3>", "one\ntwo\n", "<3>one\n<3>two\n"),
        ] {
            let (mut reader, out) = io::pipe().unwrap();
            let lost = AtomicU64::new(0);
            let mut lines = lines(prefix, &lost, out);
            lines.write_all(entry.as_bytes()).unwrap();
            drop(lines);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, written);
        }
    }

    #[test]
    fn a_full_disk_and_a_reader_that_has_gone_are_no_errors() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let lost = AtomicU64::new(0);
        lines("", &lost, full).write_all(b"lost\n").unwrap();
        let (reader, out) = io::pipe().unwrap();
        drop(reader);
        lines("", &lost, out).write_all(b"lost\n").unwrap();
        assert_eq!(lost.load(Ordering::Relaxed), 2);

        let (mut reader, out) = io::pipe().unwrap();
        lines("<6>", &lost, out).write_all(b"here\n").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "<6>2 entries of the log were lost\n<6>here\n");
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let (reader, out) = io::pipe().unwrap();
        let lost = AtomicU64::new(0);
        let mut lines = lines("", &lost, out);
        let long = [b'x'; 3 * ATOMIC];
        for _ in 0..100 {
            lines.write_all(&long).unwrap();
        }
        drop(reader);
        assert!(lost.load(Ordering::Relaxed) > 90);
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
