//! The errors of an import, one sentence each.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::{self, Place};

/// The reason why files were not imported.
#[derive(Debug, Error)]
pub enum Error {
    /// A directive that Miredo does not have.
    #[error("{place}: Miredo has no directive {name}, did you mean {nearest}?")]
    Unknown {
        /// File and line.
        place: Place,
        /// The name in the file.
        name: String,
        /// The nearest one that exists.
        nearest: &'static str,
    },
    /// A directive alone on its line.
    #[error("{place}: {name} has no value; write one, such as {example}, or remove the line")]
    NoValue {
        /// File and line.
        place: Place,
        /// The directive.
        name: &'static str,
        /// A value.
        example: &'static str,
    },
    /// More than one value.
    #[error("{place}: {name} takes one value, and Miredo ignores \"{word}\"; remove it")]
    SecondValue {
        /// File and line.
        place: Place,
        /// The directive.
        name: &'static str,
        /// The second value.
        word: String,
    },
    /// A value that Miredo refuses, too.
    #[error("{place}: {name} {value} is not valid: it must be {permitted}")]
    Value {
        /// File and line.
        place: Place,
        /// The directive.
        name: &'static str,
        /// Its value.
        value: String,
        /// The permitted values.
        permitted: &'static str,
    },
    /// A value that the key does not take.
    #[error("{place}: {name} {value} cannot be imported as {key}: it must be {permitted}")]
    Refused {
        /// File and line.
        place: Place,
        /// The directive.
        name: &'static str,
        /// Its value.
        value: String,
        /// The key that would have it, and the reason if the permitted values alone do not explain it.
        key: String,
        /// The values that the key takes.
        permitted: &'static str,
    },
    /// A directive without which the role has no purpose.
    #[error("{}: {needed}", .file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The directive and the remedy.
        needed: &'static str,
    },
    /// Two files for one role.
    #[error(
        "{} and {} both configure a {role}, and one daemon has one; import each by itself",
        .first.display(), .second.display()
    )]
    Twice {
        /// The role.
        role: &'static str,
        /// The file before.
        first: PathBuf,
        /// The file after it.
        second: PathBuf,
    },
    /// A client beside another role.
    #[error(
        "{} configures a client and {} a server, which run in processes of their own; import each by \
         itself, and give one of them another node.name", .client.display(), .server.display()
    )]
    Apart {
        /// The file of the client.
        client: PathBuf,
        /// The file of the server.
        server: PathBuf,
    },
    /// Two service prefixes.
    #[error(
        "{} and {} have different service prefixes (the default of Prefix is 2001::), and one daemon \
         has one; make them equal, or import each by itself", .first.display(), .second.display()
    )]
    Prefixes {
        /// The file before.
        first: PathBuf,
        /// The file after it.
        second: PathBuf,
    },
    /// Directives that are valid alone, but not together.
    #[error("{place}: {conflict}")]
    Conflict {
        /// File and line of one of them.
        place: Place,
        /// The conflict and the remedy, in terms of our keys.
        conflict: String,
    },
    /// A result that its parser refuses for another reason.
    #[error("{}: the import is not valid: {error}", .file.display())]
    Invalid {
        /// The first file.
        file: PathBuf,
        /// The verdict of the parser.
        error: Box<config::Error>,
    },
}
