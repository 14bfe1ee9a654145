//! The file as a tree of values with their lines, to locate and explain errors.

use std::{ops::Range, path::Path, slice};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{Error, Place},
    keys::{KEYS, REPEATED, REQUIRED, ROLES, SECTIONS},
    reason,
};

/// Characters of a wrong value that a message shows at most.
const VALUE_SHOWN: usize = 60;

/// A parsed file with its text.
pub struct Document<'a> {
    text: &'a str,
    file: &'a Path,
    root: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Parses `text`. `file` is used in messages only.
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

    /// Returns whether the file has the key.
    pub fn has(&self, section: &str, key: &str) -> bool {
        self.find(section, 0, key).is_some()
    }

    /// Refuses a file without any role.
    pub fn check_roles(&self) -> Result<(), Error> {
        if self
            .root
            .iter()
            .all(|(key, _)| SECTIONS.contains(&&**key.get_ref()))
            && !ROLES.iter().any(|role| self.root.contains_key(*role))
        {
            return Err(Error::NoRole {
                file: self.file.to_owned(),
            });
        }
        Ok(())
    }

    /// Refuses unknown keys and sections, and sections without their required keys.
    pub fn check_keys(&self) -> Result<(), Error> {
        self.check_table("", &self.root)?;
        self.check_required()
    }

    fn check_table(&self, section: &str, table: &DeTable<'_>) -> Result<(), Error> {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = join(section, name);
            let is_section = SECTIONS.contains(&&*path);
            if is_section {
                if !has_form_of(&path, value.get_ref()) {
                    return Err(self.value_error(section, name, value.span(), ""));
                }
                for (table, _) in tables(value) {
                    self.check_table(&path, table)?;
                }
            } else if !is_key(section, name) {
                let is_section = is_section_like(value.get_ref());
                return Err(Error::Unknown {
                    place: self.place(key.span().start),
                    what: describe(section, name, is_section),
                    nearest: nearest(section, name, is_section),
                });
            }
        }
        Ok(())
    }

    fn check_required(&self) -> Result<(), Error> {
        for &(section, key) in REQUIRED {
            for (table, span) in self.tables(section) {
                if !table.contains_key(key) {
                    return Err(Error::Missing {
                        place: self.place(span.start),
                        section: heading(section),
                        key,
                        permitted: permitted(section, key),
                    });
                }
            }
        }
        Ok(())
    }

    /// Returns the error for one that serde has found.
    pub fn explain(&self, error: &toml::de::Error) -> Error {
        let offset = error.span().map_or(0, |span| span.start);
        match self.locate("", &self.root, offset) {
            Some((section, name, value)) => {
                let reason = reason::of(&section, &name, value.get_ref());
                self.value_error(&section, &name, value.span(), &reason)
            }
            None => Error::Syntax {
                place: self.place(offset),
                message: one_line(error.message()),
            },
        }
    }

    /// Returns the error for a value that is wrong for `reason`, found after parsing.
    pub fn refuse(&self, section: &str, key: &str, reason: &str) -> Error {
        self.refuse_entry(section, 0, key, reason)
    }

    /// Returns the same as [`Self::refuse`] for the section of this name with this index.
    pub fn refuse_entry(&self, section: &str, index: usize, key: &str, reason: &str) -> Error {
        let span = self.find(section, index, key).map_or(0..0, Spanned::span);
        self.value_error(section, key, span, reason)
    }

    /// Returns the error for two keys that contradict each other, at the line of this one.
    pub fn conflict(&self, section: &str, key: &str, conflict: String) -> Error {
        let span = self.find(section, 0, key).map_or(0..0, Spanned::span);
        Error::Conflict {
            place: self.place(span.start),
            conflict,
        }
    }

    fn value_error(&self, section: &str, name: &str, span: Range<usize>, reason: &str) -> Error {
        Error::Value {
            place: self.place(span.start),
            key: join(section, name),
            value: shorten(&one_line(self.text.get(span).unwrap_or_default())),
            reason: reason.to_owned(),
            permitted: permitted(section, name),
        }
    }

    /// Finds the deepest key whose value contains the octet at `offset`, with its section and its
    /// value.
    fn locate<'v>(
        &self,
        section: &str,
        table: &'v DeTable<'a>,
        offset: usize,
    ) -> Option<(String, String, &'v Spanned<DeValue<'a>>)> {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = join(section, name);
            if SECTIONS.contains(&&*path) {
                let mut tables = tables(value);
                let found = tables.find_map(|(table, _)| self.locate(&path, table, offset));
                if found.is_some() {
                    return found;
                }
            } else if value.span().contains(&offset) || key.span().contains(&offset) {
                return Some((section.to_owned(), name.to_owned(), value));
            }
        }
        None
    }

    fn find(&self, section: &str, index: usize, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        let (table, _) = self.tables(section).into_iter().nth(index)?;
        table.get(key)
    }

    /// Returns the sections of this name with their ranges in the text.
    fn tables(&self, section: &str) -> Vec<(&DeTable<'a>, Range<usize>)> {
        let mut found = vec![(&self.root, 0..0)];
        for name in section.split('.') {
            let inner = found.into_iter().filter_map(|(table, _)| table.get(name));
            found = inner.flat_map(tables).collect();
        }
        found
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

/// Iterates over the table that the value is, or the tables in the list that it is.
fn tables<'v, 'a>(
    value: &'v Spanned<DeValue<'a>>,
) -> impl Iterator<Item = (&'v DeTable<'a>, Range<usize>)> {
    let elements = match value.get_ref() {
        DeValue::Array(array) => array,
        _ => slice::from_ref(value),
    };
    elements
        .iter()
        .filter_map(|element| Some((element.get_ref().as_table()?, element.span())))
}

/// Returns whether the value has the form of a section of this name.
fn has_form_of(section: &str, value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Array(array) => {
            REPEATED.contains(&section) && array.iter().all(|element| element.get_ref().is_table())
        }
        value => value.is_table() && !REPEATED.contains(&section),
    }
}

/// Returns whether the value is written as a section, or as several of one name.
fn is_section_like(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Array(array) => {
            !array.is_empty() && array.iter().all(|element| element.get_ref().is_table())
        }
        value => value.is_table(),
    }
}

/// Returns the permitted values of a key, or the form of a section.
fn permitted(section: &str, name: &str) -> &'static str {
    let is_repeated = REPEATED.contains(&&*join(section, name));
    let key = KEYS
        .iter()
        .find(|key| key.section == section && key.name == name);
    match key {
        Some(key) => key.permitted,
        None if is_repeated => "a section with two brackets around its name",
        None => "a section",
    }
}

/// Returns the heading of a section.
fn heading(section: &str) -> String {
    if REPEATED.contains(&section) {
        format!("[[{section}]]")
    } else {
        format!("[{section}]")
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

/// Describes a key or section in a message.
fn describe(section: &str, name: &str, is_section: bool) -> String {
    match (is_section, section) {
        (true, _) => format!("section {}", heading(&join(section, name))),
        (false, "") => format!("key \"{name}\" outside of any section"),
        (false, _) => format!("key \"{name}\" in {}", heading(section)),
    }
}

/// Returns the existing key or section that is most similar to the name. A key of exactly this name
/// in another section comes before similar keys of its own section.
fn nearest(section: &str, name: &str, is_section: bool) -> String {
    if is_section {
        let path = join(section, name);
        let nearest = closest(SECTIONS.iter().copied(), |candidate| candidate, &path);
        return heading(nearest.unwrap_or("relay"));
    }
    let same_name = || KEYS.iter().filter(|key| key.name == name);
    let elsewhere = same_name()
        .find(|key| key.section.starts_with(section))
        .or_else(|| same_name().next());
    let siblings = KEYS.iter().filter(|key| key.section == section);
    let nearest = elsewhere
        .or_else(|| closest(siblings, |key| key.name, name))
        .or_else(|| closest(KEYS.iter(), |key| key.name, name));
    match nearest {
        Some(key) if key.section == section => format!("\"{}\"", key.name),
        Some(key) => format!("\"{}\" in {}", key.name, heading(key.section)),
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
