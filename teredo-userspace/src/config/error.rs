//! The errors of a configuration file, one sentence each.

use std::{io, path::PathBuf};

use thiserror::Error;

/// The reason why a configuration was refused.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; {}", .file.display(), remedy(.source))]
    Read {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The text is not TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// File and line.
        place: Place,
        /// The message of the parser.
        message: String,
    },
    /// A key or section that does not exist.
    #[error("{place}: unknown {what}, did you mean {nearest}?")]
    Unknown {
        /// File and line.
        place: Place,
        /// The key with its section, or the section.
        what: String,
        /// The nearest one that exists.
        nearest: String,
    },
    /// A value of the wrong type, or out of range.
    #[error("{place}: {key} = {value} is not valid{}: it must be {permitted}", because(.reason))]
    Value {
        /// File and line.
        place: Place,
        /// The key with its section.
        key: String,
        /// The value as it is written in the file.
        value: String,
        /// The reason, if the permitted values alone do not explain it; or empty.
        reason: String,
        /// The permitted values.
        permitted: &'static str,
    },
    /// A key without a default is missing.
    #[error("{place}: {section} needs the key {key}: it must be {permitted}")]
    Missing {
        /// File and line of the section.
        place: Place,
        /// The section, as it is written.
        section: String,
        /// The key.
        key: &'static str,
        /// The permitted values.
        permitted: &'static str,
    },
    /// Two keys contradict each other.
    #[error("{place}: {conflict}")]
    Conflict {
        /// File and line of one of them.
        place: Place,
        /// The conflict and the remedy.
        conflict: String,
    },
    /// The file has no role.
    #[error(
        "{}: no section [relay], [server] or [client], so there is nothing to run; the line \"[relay]\" \
         alone makes a relay with default settings", .file.display()
    )]
    NoRole {
        /// The file.
        file: PathBuf,
    },
}

impl Error {
    /// Returns whether the user of this process may not read the file.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "write one, or name another with --config FILE",
        io::ErrorKind::PermissionDenied => "run as a user who may read it",
        _ => "name another with --config FILE",
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(", {reason}")
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} line {}", self.file.display(), self.line)
    }
}
