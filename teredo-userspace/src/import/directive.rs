//! The files of Miredo: a directive and its value on each line.

use std::{cell::Cell, path::Path};

use super::{Error, Source};
use crate::config::Place;

/// Characters of a value that messages and comments show at most.
const SHOWN: usize = 60;

macro_rules! keywords {
    ($($(#[$attribute:meta])* $name:ident = $text:literal: $value:literal,)+) => {
        /// The name of a directive.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Keyword {
            $($(#[$attribute])* $name,)+
        }

        impl Keyword {
            /// All directives.
            const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the name as Miredo's documentation writes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Returns a description of the value, to follow "such as".
            fn example(self) -> &'static str {
                match self {
                    $(Self::$name => $value,)+
                }
            }
        }
    };
}

keywords! {
    RelayType = "RelayType": "client or cone",
    ServerAddress = "ServerAddress": "teredo.example.net",
    ServerAddress2 = "ServerAddress2": "198.51.100.2",
    Prefix = "Prefix": "2001::",
    InterfaceMtu = "InterfaceMTU": "1280",
    InterfaceName = "InterfaceName": "teredo",
    BindAddress = "BindAddress": "198.51.100.1",
    BindPort = "BindPort": "3545",
    SyslogFacility = "SyslogFacility": "daemon",
    ServerBindAddress = "ServerBindAddress": "198.51.100.1",
    ServerBindAddress2 = "ServerBindAddress2": "198.51.100.2",
    /// Of Miredo before 1.2.
    IgnoreConeBit = "IgnoreConeBit": "yes",
    /// Of Miredo before 1.0.
    DefaultRoute = "DefaultRoute": "yes",
}

impl Keyword {
    fn find(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|keyword| keyword.name().eq_ignore_ascii_case(name))
    }

    fn nearest(name: &str) -> Self {
        let likeness = |keyword: &Self| {
            let (one, other) = (keyword.name().to_lowercase(), name.to_lowercase());
            strsim::normalized_damerau_levenshtein(&one, &other)
        };
        let mut nearest = Self::RelayType;
        for &keyword in Self::ALL {
            if likeness(&keyword) > likeness(&nearest) {
                nearest = keyword;
            }
        }
        nearest
    }
}

/// A line with a directive.
#[derive(Debug)]
pub struct Directive<'a> {
    pub keyword: Keyword,
    pub value: &'a str,
    pub place: Place,
    /// Whether a role has asked for it.
    used: Cell<bool>,
}

impl Directive<'_> {
    /// Returns the directive with its value and line, as comments name it.
    pub fn describe(&self) -> String {
        let (name, line) = (self.keyword.name(), self.place.line);
        format!("{name} {} (line {line})", printable(self.value))
    }
}

/// A parsed file.
#[derive(Debug)]
pub struct File<'a> {
    pub path: &'a Path,
    directives: Vec<Directive<'a>>,
}

impl<'a> File<'a> {
    /// Parses the lines of a file.
    pub fn parse(source: &Source<'a>) -> Result<Self, Error> {
        let mut directives = Vec::new();
        for (index, line) in source.text.lines().enumerate() {
            let place = Place {
                file: source.file.to_owned(),
                line: index + 1,
            };
            directives.extend(parse_line(line, place)?);
        }
        Ok(Self {
            path: source.file,
            directives,
        })
    }

    /// Returns the first directive of this name, which is the one that Miredo uses.
    pub fn find(&self, keyword: Keyword) -> Option<&Directive<'a>> {
        let mut all = self.directives.iter();
        let found = all.find(|directive| directive.keyword == keyword)?;
        found.used.set(true);
        Some(found)
    }

    /// Returns whether the file has any of these directives.
    pub fn has_any(&self, keywords: &[Keyword]) -> bool {
        let mut all = self.directives.iter();
        all.any(|directive| keywords.contains(&directive.keyword))
    }

    /// Returns the directives that [`Self::find`] did not return. Miredo ignores them, too.
    pub fn unused(&self) -> impl Iterator<Item = &Directive<'a>> {
        let all = self.directives.iter();
        all.filter(|directive| !directive.used.get())
    }

    /// Returns whether an earlier line has a directive of the same name.
    pub fn is_repeated(&self, directive: &Directive<'_>) -> bool {
        self.directives.iter().any(|earlier| {
            earlier.keyword == directive.keyword && earlier.place.line < directive.place.line
        })
    }
}

fn parse_line(line: &str, place: Place) -> Result<Option<Directive<'_>>, Error> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next().filter(|name| !name.starts_with('#')) else {
        return Ok(None);
    };
    let Some(keyword) = Keyword::find(name) else {
        let nearest = Keyword::nearest(name).name();
        let name = printable(name);
        return Err(Error::Unknown {
            place,
            name,
            nearest,
        });
    };
    let Some(value) = words.next().filter(|value| !value.starts_with('#')) else {
        return Err(Error::NoValue {
            place,
            name: keyword.name(),
            example: keyword.example(),
        });
    };
    match words.next() {
        // Miredo ignores what follows the value.
        Some(word) if !word.starts_with('#') => Err(Error::SecondValue {
            place,
            name: keyword.name(),
            word: printable(word),
        }),
        _ => Ok(Some(Directive {
            keyword,
            value,
            place,
            used: Cell::new(false),
        })),
    }
}

/// Returns the beginning of a text, as [`visible`] has it.
pub fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    visible(&shown)
}

/// Returns a text without characters that a comment or a terminal does not bear.
pub fn visible(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
