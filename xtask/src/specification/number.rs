//! The numbers of requirements, decisions and vectors, and finding them in texts and names.

use std::fmt;

/// The families of numbers, in the order of `docs/protocol/README.md`, with the number of digits
/// that a citation has; `None`: one or two.
const FAMILIES: [(&str, Option<usize>); 15] = [
    ("W", Some(2)),
    ("A", Some(2)),
    ("P", Some(2)),
    ("S", Some(2)),
    ("R", Some(2)),
    ("C", Some(2)),
    ("X", Some(2)),
    ("T", Some(2)),
    ("F", Some(2)),
    ("Z", Some(2)),
    ("L", Some(2)),
    ("D1", Some(2)),
    ("D2", Some(2)),
    ("DEC", None),
    ("V", Some(2)),
];

/// A number such as `R-20`, ordered by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    family: usize,
    index: u32,
}

impl Number {
    /// The family: the letters before the dash.
    pub fn family(self) -> &'static str {
        FAMILIES[self.family].0
    }

    /// The number that the whole text is.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, length) = at_start(text)?;
        (length == text.len()).then_some(number)
    }

    /// This number and those after it up to another of the same family.
    fn up_to(self, last: Self) -> impl Iterator<Item = Self> {
        (self.index..=last.index).map(move |index| Self { index, ..self })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, digits) = FAMILIES[self.family];
        let width = digits.unwrap_or(1);
        write!(formatter, "{family}-{:0width$}", self.index)
    }
}

/// The number that a text starts with, and its length.
fn at_start(text: &str) -> Option<(Number, usize)> {
    let (letters, rest) = text.split_once('-')?;
    let family = FAMILIES.iter().position(|(family, _)| *family == letters)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let is_complete = !rest[digits..].starts_with(is_word);
    let has_length = match FAMILIES[family].1 {
        Some(length) => digits == length,
        None => (1..=2).contains(&digits),
    };
    let index = rest[..digits].parse().ok()?;
    let length = letters.len() + 1 + digits;
    (is_complete && has_length).then_some((Number { family, index }, length))
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The numbers that a text cites, with the offset of each. `S-11 to S-16` cites all six; the marks of
/// a comment may stand between the words.
pub fn cited(text: &str) -> Vec<(usize, Number)> {
    let mut found: Vec<(usize, Number)> = Vec::new();
    let mut end_of_last = None;
    let mut before = None;
    for (offset, character) in text.char_indices() {
        let starts = !before.is_some_and(is_word);
        before = Some(character);
        if !starts || !character.is_ascii_uppercase() {
            continue;
        }
        let Some((number, length)) = at_start(&text[offset..]) else {
            continue;
        };
        let first = found.last().map(|&(_, number)| number);
        let is_range = |end: usize| is_to(&text[end..offset]);
        match first
            .filter(|first| first.family == number.family && end_of_last.is_some_and(is_range))
        {
            Some(first) => {
                let rest = first.up_to(number).skip(1);
                found.extend(rest.map(|number| (offset, number)));
            }
            None => found.push((offset, number)),
        }
        end_of_last = Some(offset + length);
    }
    found
}

/// Whether a text says no more than "to".
fn is_to(text: &str) -> bool {
    let is_between = |character: char| character.is_whitespace() || "/!".contains(character);
    text.trim_matches(is_between) == "to" && text.starts_with(char::is_whitespace)
}

/// The numbers in the name of a test: `r20_the_outer_source`, `c31_and_c61_spoofed`,
/// `d1_06_to_09_what_is_in_the_datagram`, `dec4_random`.
pub fn in_name(name: &str) -> Vec<Number> {
    let words: Vec<&str> = name.split('_').collect();
    let mut numbers = Vec::new();
    let mut next = 0;
    while let Some(word) = words.get(next) {
        next += 1;
        if let Some(number) = number_of(word) {
            numbers.push(number);
            continue;
        }
        // The rows of a table have their digits in a word of their own.
        let family = word.to_ascii_uppercase();
        if !["D1", "D2"].contains(&family.as_str()) {
            continue;
        }
        let row = |word: &&str| Number::parse(&format!("{family}-{word}"));
        while let Some(number) = words.get(next).and_then(row) {
            numbers.push(number);
            next += 1;
            let (joint, last) = (words.get(next), words.get(next + 1).and_then(row));
            match (joint, last) {
                (Some(&"and"), Some(_)) => next += 1,
                (Some(&"to"), Some(last)) => {
                    numbers.extend(number.up_to(last).skip(1));
                    next += 2;
                }
                _ => break,
            }
        }
    }
    numbers
}

/// `r20` as `R-20`.
fn number_of(word: &str) -> Option<Number> {
    let digits = word.find(|character: char| character.is_ascii_digit())?;
    let (letters, digits) = word.split_at(digits);
    Number::parse(&format!("{}-{digits}", letters.to_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(found: impl IntoIterator<Item = Number>) -> String {
        let numbers: Vec<String> = found.into_iter().map(|number| number.to_string()).collect();
        numbers.join(" ")
    }

    fn in_text(text: &str) -> String {
        numbers(cited(text).into_iter().map(|(_, number)| number))
    }

    #[test]
    fn numbers_are_found_in_texts() {
        assert_eq!(
            in_text("(R-04, L-06); D1-17 and DEC-8."),
            "R-04 L-06 D1-17 DEC-8"
        );
        assert_eq!(in_text("UTF-8, SHA-1, R-4, R-044, PR-04, R-04x, R_04"), "");
        assert_eq!(cited("see V-11"), [(4, Number::parse("V-11").unwrap())]);
    }

    #[test]
    fn ranges_cite_everything_between() {
        assert_eq!(in_text("S-11 to S-13"), "S-11 S-12 S-13");
        assert_eq!(
            in_text("//! (P-09 to\n    //! P-11, C-51)"),
            "P-09 P-10 P-11 C-51"
        );
        assert_eq!(
            in_text("S-11 and S-13, S-11 up to S-13"),
            "S-11 S-13 S-11 S-13"
        );
        assert_eq!(in_text("from S-11 to R-13"), "S-11 R-13");
    }

    #[test]
    fn numbers_are_found_in_names() {
        let in_name = |name| numbers(in_name(name));
        assert_eq!(in_name("r20_the_outer_source"), "R-20");
        assert_eq!(in_name("v24_c52_dec13_the_interval"), "V-24 C-52 DEC-13");
        assert_eq!(in_name("c31_and_c61_spoofed"), "C-31 C-61");
        assert_eq!(in_name("d1_06_to_09_what"), "D1-06 D1-07 D1-08 D1-09");
        assert_eq!(in_name("d2_01_and_02_is_it"), "D2-01 D2-02");
        assert_eq!(in_name("d1_16_hop_limit"), "D1-16");
        assert_eq!(in_name("ipv6_over_udp_at_4_or_100"), "");
    }

    #[test]
    fn families_have_an_order() {
        assert!(Number::parse("W-13") < Number::parse("A-01"));
        assert!(Number::parse("D2-10") < Number::parse("DEC-1"));
    }
}
