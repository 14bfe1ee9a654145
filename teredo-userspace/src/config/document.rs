//! The file as a tree in which everything knows its line, to explain what is wrong with it.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{Error, Place},
    keys::{KEYS, LATER_ROLES, SECTIONS},
};

/// The longest piece of a wrong value that a message repeats, in characters.
const VALUE_SHOWN: usize = 60;

/// A parsed file with its text.
pub struct Document<'a> {
    text: &'a str,
    file: &'a Path,
    root: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Parses `text`; `file` is for messages.
    pub fn parse(text: &'a str, file: &'a Path) -> Result<Self, Error> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self {
                text,
                file,
                root: root.into_inner(),
            }),
            Err(error) => Err(Error::Syntax {
                place: place(text, file, error.span().map_or(0, |span| span.start)),
                message: one_line(error.message()),
            }),
        }
    }

    /// Whether the file has the key.
    pub fn has(&self, section: &str, key: &str) -> bool {
        self.find(section, key).is_some()
    }

    /// Refuses files with roles that this version does not have, or with none.
    pub fn check_roles(&self) -> Result<(), Error> {
        for (key, _) in &self.root {
            let name: &str = key.get_ref();
            if LATER_ROLES.contains(&name) {
                return Err(Error::Role {
                    place: self.place(key.span().start),
                    role: name.to_owned(),
                });
            }
        }
        if self
            .root
            .iter()
            .all(|(key, _)| SECTIONS.contains(&&**key.get_ref()))
            && !self.root.contains_key("relay")
        {
            return Err(Error::NoRole {
                file: self.file.to_owned(),
            });
        }
        Ok(())
    }

    /// Refuses keys and sections that do not exist.
    pub fn check_keys(&self) -> Result<(), Error> {
        self.check_table("", &self.root)
    }

    fn check_table(&self, section: &str, table: &DeTable<'_>) -> Result<(), Error> {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = join(section, name);
            let is_section = SECTIONS.contains(&&*path);
            match value.get_ref() {
                DeValue::Table(table) if is_section => self.check_table(&path, table)?,
                _ if is_section || is_key(section, name) => {}
                value => {
                    return Err(Error::Unknown {
                        place: self.place(key.span().start),
                        what: describe(section, name, value.is_table()),
                        nearest: nearest(section, name, value.is_table()),
                    });
                }
            }
        }
        Ok(())
    }

    /// The sentence for an error that serde has found.
    pub fn explain(&self, error: &toml::de::Error) -> Error {
        let offset = error.span().map_or(0, |span| span.start);
        match self.locate("", &self.root, offset) {
            Some((section, name, span)) => self.value_error(&section, &name, span, ""),
            None => Error::Syntax {
                place: self.place(offset),
                message: one_line(error.message()),
            },
        }
    }

    /// The sentence for a value that is wrong for `reason`, found after parsing.
    pub fn refuse(&self, section: &str, key: &str, reason: &str) -> Error {
        let span = self.find(section, key).map_or(0..0, Spanned::span);
        self.value_error(section, key, span, reason)
    }

    fn value_error(&self, section: &str, name: &str, span: Range<usize>, reason: &str) -> Error {
        let permitted = KEYS
            .iter()
            .find(|key| key.section == section && key.name == name)
            .map_or("a section", |key| key.permitted);
        Error::Value {
            place: self.place(span.start),
            key: join(section, name),
            value: shorten(&one_line(self.text.get(span).unwrap_or_default())),
            reason: reason.to_owned(),
            permitted,
        }
    }

    /// The deepest key, with its section, whose value holds the octet at `offset`.
    fn locate(
        &self,
        section: &str,
        table: &DeTable<'_>,
        offset: usize,
    ) -> Option<(String, String, Range<usize>)> {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = join(section, name);
            if let (DeValue::Table(inner), true) = (value.get_ref(), SECTIONS.contains(&&*path)) {
                let found = self.locate(&path, inner, offset);
                if found.is_some() {
                    return found;
                }
            } else if value.span().contains(&offset) || key.span().contains(&offset) {
                return Some((section.to_owned(), name.to_owned(), value.span()));
            }
        }
        None
    }

    fn find(&self, section: &str, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        let mut table = &self.root;
        for name in section.split('.') {
            table = table.get(name)?.get_ref().as_table()?;
        }
        table.get(key)
    }

    fn place(&self, offset: usize) -> Place {
        place(self.text, self.file, offset)
    }
}

fn place(text: &str, file: &Path, offset: usize) -> Place {
    let before = text.as_bytes().iter().take(offset);
    Place {
        file: file.to_owned(),
        line: before.filter(|octet| **octet == b'\n').count() + 1,
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}

fn is_key(section: &str, name: &str) -> bool {
    KEYS.iter()
        .any(|key| key.section == section && key.name == name)
}

/// How a message calls a key or section.
fn describe(section: &str, name: &str, is_section: bool) -> String {
    match (is_section, section) {
        (true, _) => format!("section [{}]", join(section, name)),
        (false, "") => format!("key \"{name}\" outside of any section"),
        (false, _) => format!("key \"{name}\" in [{section}]"),
    }
}

/// What exists and looks most like the name: first of its own section, unless another section has
/// exactly this key.
fn nearest(section: &str, name: &str, is_section: bool) -> String {
    if is_section {
        let path = join(section, name);
        let nearest = closest(SECTIONS.iter().copied(), |candidate| candidate, &path);
        return format!("[{}]", nearest.unwrap_or("relay"));
    }
    let elsewhere = KEYS.iter().find(|key| key.name == name);
    let siblings = KEYS.iter().filter(|key| key.section == section);
    let nearest = elsewhere
        .or_else(|| closest(siblings, |key| key.name, name))
        .or_else(|| closest(KEYS.iter(), |key| key.name, name));
    match nearest {
        Some(key) if key.section == section => format!("\"{}\"", key.name),
        Some(key) => format!("\"{}\" in [{}]", key.name, key.section),
        None => "[relay]".to_owned(),
    }
}

fn closest<T>(
    candidates: impl Iterator<Item = T>,
    name_of: impl Fn(&T) -> &str,
    name: &str,
) -> Option<T> {
    candidates
        .map(|candidate| {
            let likeness = strsim::normalized_damerau_levenshtein(name_of(&candidate), name);
            (likeness, candidate)
        })
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= VALUE_SHOWN {
        return text.to_owned();
    }
    let start: String = text.chars().take(VALUE_SHOWN).collect();
    format!("{start}…")
}
