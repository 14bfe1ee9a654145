//! The configuration that is being written.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{
    Error, Source,
    directive::{Directive, printable, visible},
};
use crate::config::{self, Config, Place};

/// The name of the result in the verdicts of its parser. Nobody sees it.
const RESULT: &str = "teredo.toml";
/// Columns of a comment.
const WIDTH: usize = 100;

/// A section of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Node,
    Relay,
    Server,
    Client,
}

impl Section {
    /// In the order of the file.
    const ALL: [Self; 4] = [Self::Node, Self::Relay, Self::Server, Self::Client];

    /// Returns the name of the section.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Relay => "relay",
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// The directive that a line of the result comes from.
#[derive(Clone, Debug)]
struct Origin {
    place: Place,
    name: &'static str,
    value: String,
}

#[derive(Debug)]
struct Line {
    section: Section,
    text: String,
    origin: Option<Origin>,
}

/// The sections with their lines.
#[derive(Debug, Default)]
pub struct Draft {
    /// The roles, each with its file and service prefix.
    roles: Vec<(Section, PathBuf, String)>,
    lines: Vec<Line>,
}

impl Draft {
    /// Adds a role of a file.
    pub fn add_role(&mut self, role: Section, file: &Path, prefix: &str) -> Result<(), Error> {
        for (other, first, other_prefix) in &self.roles {
            let (first, second) = (first.clone(), file.to_owned());
            let is_server = [*other, role].map(|role| role == Section::Server);
            let is_client = [*other, role].map(|role| role == Section::Client);
            return Err(match (is_server, is_client) {
                ([true, true], _) => Error::Twice {
                    role: "server",
                    first,
                    second,
                },
                // These are the two roles of one program.
                ([false, false], _) => Error::Twice {
                    role: "relay or client",
                    first,
                    second,
                },
                (_, [true, _]) => Error::Apart {
                    client: first,
                    server: second,
                },
                (_, [_, true]) => Error::Apart {
                    client: second,
                    server: first,
                },
                _ if other_prefix != prefix => Error::Prefixes { first, second },
                _ => continue,
            });
        }
        self.roles.push((role, file.to_owned(), prefix.to_owned()));
        Ok(())
    }

    /// Adds a key, unless the section has it already. The value is in TOML.
    pub fn set(&mut self, section: Section, key: &str, value: &str, from: &Directive<'_>) {
        let text = format!("{key} = {value}");
        let mut lines = self.lines.iter();
        if lines.any(|line| line.section == section && line.text == text) {
            return;
        }
        let origin = Some(Origin {
            place: from.place.clone(),
            name: from.keyword.name(),
            value: printable(from.value),
        });
        self.lines.push(Line {
            section,
            text,
            origin,
        });
    }

    /// Adds a comment.
    pub fn comment(&mut self, section: Section, text: &str) {
        for text in wrap(text) {
            self.lines.push(Line {
                section,
                text,
                origin: None,
            });
        }
    }

    /// Returns the file, after its parser has accepted it.
    pub fn finish(self, sources: &[Source<'_>]) -> Result<String, Error> {
        let names: Vec<_> = sources
            .iter()
            .map(|source| printable(&source.file.to_string_lossy()))
            .collect();
        let mut text = format!("# Imported by teredo from {}.\n", names.join(" and "));
        let mut origins = vec![None];
        for section in Section::ALL {
            let lines: Vec<_> = self
                .lines
                .iter()
                .filter(|line| line.section == section)
                .collect();
            let is_role = self.roles.iter().any(|(role, ..)| *role == section);
            if lines.is_empty() && !is_role {
                continue;
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[{}]\n", section.name());
            origins.extend([None, None]);
            for line in lines {
                let _ = writeln!(text, "{}", line.text);
                origins.push(line.origin.clone());
            }
        }
        let first = sources.first().map_or(Path::new(""), |source| source.file);
        match Config::parse(&text, Path::new(RESULT)) {
            Ok(_) => Ok(text),
            Err(error) => Err(explain(error, &origins, first)),
        }
    }
}

/// Leads a verdict about the result back to the directive.
fn explain(error: config::Error, origins: &[Option<Origin>], file: &Path) -> Error {
    let place = match &error {
        config::Error::Value { place, .. } | config::Error::Conflict { place, .. } => Some(place),
        _ => None,
    };
    let origin = place.and_then(|place| origins.get(place.line - 1)?.clone());
    match (origin, error) {
        (
            Some(origin),
            config::Error::Value {
                key,
                reason,
                permitted,
                ..
            },
        ) => Error::Refused {
            place: origin.place,
            name: origin.name,
            value: origin.value,
            key: match &*reason {
                "" => key,
                reason => format!("{key}, {}", visible(reason)),
            },
            permitted,
        },
        (Some(origin), config::Error::Conflict { conflict, .. }) => Error::Conflict {
            place: origin.place,
            conflict,
        },
        (_, error) => Error::Invalid {
            file: file.to_owned(),
            error: Box::new(error),
        },
    }
}

/// Breaks a comment into lines.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is a line");
        if last.len() > 1 && last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("# {word}"));
        } else {
            *last += " ";
            *last += word;
        }
    }
    lines
}
