//! The specification as `docs/protocol` has it: requirements, rows of decision tables, decisions,
//! vectors, and the sections of the RFCs. How they are written is in `docs/protocol/README.md`.

use std::str::FromStr;

use super::{
    failure::{Failure, Place},
    markdown::{self, Line},
    number::Number,
};

/// The file with the sections of the RFCs.
const SECTIONS: &str = "docs/protocol/rfc-sections.md";
/// The file with the test vectors.
const VECTORS: &str = "docs/protocol/vectors.md";

/// The families of rows of decision tables.
const ROWS: [&str; 2] = ["D1", "D2"];

/// How much a requirement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A test has to name it.
    Must,
    Should,
    May,
}

impl Level {
    const ALL: [Self; 3] = [Self::Must, Self::Should, Self::May];

    /// The level that a text begins with, and the text after it.
    fn at_start(text: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|level| {
            let text = text.strip_prefix(level.name())?.strip_prefix(". ")?;
            Some((level, text))
        })
    }

    /// As RFC 2119 writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        }
    }
}

/// The origin of a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Sections of an RFC.
    Rfc(u32, Vec<String>),
    /// The draft of 2002, deployed implementations, or this project.
    Other(String),
}

impl FromStr for Source {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (first, rest) {
            ("RFC", rest) => {
                let (number, sections) = rest.split_once(' ').unwrap_or((rest, ""));
                let sections = sections.split(", ").filter(|section| !section.is_empty());
                let sections = sections.map(str::to_owned).collect();
                Ok(Self::Rfc(number.parse().map_err(|_| ())?, sections))
            }
            ("practice" | "own", "") => Ok(Self::Other(text.to_owned())),
            ("draft", section) if !section.is_empty() => Ok(Self::Other(text.to_owned())),
            _ => Err(()),
        }
    }
}

impl Source {
    /// The sections that it names, each with the number of its RFC.
    pub fn sections(&self) -> impl Iterator<Item = (u32, &str)> {
        let (rfc, sections): (u32, &[String]) = match self {
            Self::Rfc(rfc, sections) => (*rfc, sections),
            Self::Other(_) => (0, &[]),
        };
        sections.iter().map(move |section| (rfc, section.as_str()))
    }
}

/// A requirement, or a row of a decision table.
#[derive(Clone, Debug)]
pub struct Requirement {
    pub number: Number,
    pub level: Level,
    /// The whole text.
    pub text: String,
    pub sources: Vec<Source>,
    pub differs: Option<String>,
    pub not_built: Option<String>,
    pub held_by: Option<String>,
    pub untested: Option<String>,
    pub place: Place,
}

impl Requirement {
    fn new(number: Number, level: Level, text: &str, place: Place) -> Self {
        Self {
            number,
            level,
            text: text.to_owned(),
            sources: Vec::new(),
            differs: None,
            not_built: None,
            held_by: None,
            untested: None,
            place,
        }
    }

    /// Whether it is a row of a decision table.
    pub fn is_row(&self) -> bool {
        ROWS.contains(&self.number.family())
    }

    /// Whether there is code for it.
    pub const fn is_built(&self) -> bool {
        self.not_built.is_none()
    }

    /// The requirement in one sentence.
    pub fn summary(&self) -> &str {
        markdown::first_sentence(&self.text)
    }

    /// A failure of this requirement.
    pub fn failure(&self, message: &str) -> Failure {
        Failure::new(&self.place, format!("{}: {message}", self.number))
    }
}

/// A section of an RFC.
#[derive(Clone, Debug)]
pub struct Section {
    pub rfc: u32,
    pub number: String,
    pub title: String,
    /// A remark; the reason if the section is the source of no requirement.
    pub remark: String,
    pub place: Place,
}

/// A piece of a test vector that has to stand in a test, too.
#[derive(Clone, Debug)]
pub struct Literal {
    pub vector: Number,
    /// As it is written.
    pub text: String,
    pub place: Place,
}

/// All definitions of the specification.
#[derive(Clone, Debug, Default)]
pub struct Register {
    pub requirements: Vec<Requirement>,
    /// Decisions and vectors.
    pub others: Vec<(Number, Place)>,
    pub literals: Vec<Literal>,
    pub sections: Vec<Section>,
    /// Errors of form.
    pub failures: Vec<Failure>,
}

impl Register {
    /// Reads the documents of the specification: their paths and texts.
    pub fn read<'t>(documents: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut register = Self::default();
        for (file, text) in documents {
            let lines = markdown::lines(text);
            if file == SECTIONS {
                register.read_sections(file, &lines);
            } else {
                register.read_definitions(file, &lines);
            }
        }
        register
            .requirements
            .sort_by_key(|requirement| requirement.number);
        register
    }

    /// Every number that is defined, with the place of its definition.
    pub fn definitions(&self) -> impl Iterator<Item = (Number, &Place)> {
        let requirements = self
            .requirements
            .iter()
            .map(|requirement| (requirement.number, &requirement.place));
        requirements.chain(self.others.iter().map(|(number, place)| (*number, place)))
    }

    fn read_definitions(&mut self, file: &str, lines: &[Line<'_>]) {
        let mut vector = None;
        for (index, line) in lines.iter().enumerate() {
            let place = Place {
                file: file.to_owned(),
                line: line.number,
            };
            if line.is_code {
                self.read_literals(file, vector, [line.text], &place);
                continue;
            }
            if let Some(title) = line.text.strip_prefix('#') {
                let title = title.trim_start_matches('#').trim();
                vector = Number::parse(title.split(' ').next().unwrap_or_default());
                self.others.extend(vector.map(|number| (number, place)));
            } else if let Some(item) = line.text.strip_prefix("- **") {
                if let Some((number, text)) = item.split_once("**") {
                    self.read_item(number, text, &lines[index + 1..], place);
                }
            } else if let Some(cells) = markdown::cells(line.text) {
                let row = self.read_row(&cells, &place);
                self.read_literals(file, row.or(vector), markdown::literals(line.text), &place);
            } else {
                self.read_literals(file, vector, markdown::literals(line.text), &place);
            }
        }
    }

    /// Reads a row of a table, and returns the number that it defines.
    fn read_row(&mut self, cells: &[&str], place: &Place) -> Option<Number> {
        let number = Number::parse(cells.first()?)?;
        match (number.family(), cells) {
            ("DEC" | "V", _) => self.others.push((number, place.clone())),
            (family, [_, condition, _, remark]) if ROWS.contains(&family) => {
                let mut row = Requirement::new(number, Level::Must, condition, place.clone());
                row.held_by = remark.strip_prefix("Held by: ").map(str::to_owned);
                row.not_built = remark.strip_prefix("Not built: ").map(str::to_owned);
                self.requirements.push(row);
            }
            // A table about requirements.
            _ => return None,
        }
        Some(number)
    }

    /// Reads the list item `- **number** text`, which goes on in the first of the other lines.
    fn read_item(&mut self, number: &str, text: &str, rest: &[Line<'_>], place: Place) {
        let Some(number) = Number::parse(number) else {
            return;
        };
        let Some((level, first)) = Level::at_start(text.trim_start()) else {
            let message = format!("{number}: begin with MUST, SHOULD or MAY and a dot");
            return self.fail(&place, message);
        };
        let (text, fields) = item(first, rest);
        let mut requirement = Requirement::new(number, level, &text, place.clone());
        for (name, value) in fields {
            match name {
                "Source" => requirement.sources = self.read_sources(number, &value, &place),
                "Differs" => requirement.differs = Some(value),
                "Not built" => requirement.not_built = Some(value),
                "Held by" => requirement.held_by = Some(value),
                "Untested" => requirement.untested = Some(value),
                _ => {
                    let message = format!(
                        "{number}: there is no field \"{name}\"; see docs/protocol/README.md"
                    );
                    self.fail(&place, message);
                }
            }
        }
        if requirement.sources.is_empty() {
            let message = format!("{number}: has no \"Source\"; add one, at least \"own\"");
            self.fail(&place, message);
        }
        self.requirements.push(requirement);
    }

    fn read_sources(&mut self, number: Number, text: &str, place: &Place) -> Vec<Source> {
        let mut sources = Vec::new();
        for source in text.trim_end_matches('.').split("; ") {
            match source.parse() {
                Ok(source) => sources.push(source),
                Err(()) => self.fail(
                    place,
                    format!(
                        "{number}: \"{source}\" is no source; write \"RFC 4380 5.4.1, 7.3\", \
                         \"draft 7\", \"practice\" or \"own\""
                    ),
                ),
            }
        }
        sources
    }

    fn read_literals<'t>(
        &mut self,
        file: &str,
        vector: Option<Number>,
        texts: impl IntoIterator<Item = &'t str>,
        place: &Place,
    ) {
        let Some(vector) = vector.filter(|_| file == VECTORS) else {
            return;
        };
        self.literals.extend(texts.into_iter().map(|text| Literal {
            vector,
            text: text.to_owned(),
            place: place.clone(),
        }));
    }

    fn read_sections(&mut self, file: &str, lines: &[Line<'_>]) {
        let mut rfc = 0;
        for line in lines {
            let title = line.text.strip_prefix("## RFC ");
            if let Some(number) = title.and_then(|title| title.parse().ok()) {
                rfc = number;
            }
            let cells = markdown::cells(line.text).unwrap_or_default();
            let [number, title, remark] = cells[..] else {
                continue;
            };
            if number != "section" {
                self.sections.push(Section {
                    rfc,
                    number: number.to_owned(),
                    title: title.to_owned(),
                    remark: remark.to_owned(),
                    place: Place {
                        file: file.to_owned(),
                        line: line.number,
                    },
                });
            }
        }
    }

    /// The listed section that holds a section of an RFC: itself, or the nearest above it.
    pub fn section(&self, rfc: u32, cited: &str) -> Option<&Section> {
        let is_within = |section: &&Section| {
            let rest = cited.strip_prefix(section.number.as_str());
            section.rfc == rfc && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let sections = self.sections.iter().filter(is_within);
        sections.max_by_key(|section| section.number.len())
    }

    /// Whether the sections of an RFC are listed.
    pub fn lists(&self, rfc: u32) -> bool {
        self.sections.iter().any(|section| section.rfc == rfc)
    }

    fn fail(&mut self, place: &Place, message: String) {
        self.failures.push(Failure::new(place, message));
    }
}

/// The text of a list item that begins with `first`, and its fields: their names and texts.
fn item<'t>(first: &str, rest: &[Line<'t>]) -> (String, Vec<(&'t str, String)>) {
    let mut text = first.trim().to_owned();
    let mut fields: Vec<(&str, String)> = Vec::new();
    let is_inside = |line: &&Line<'_>| line.text.starts_with("  ") && !line.is_code;
    for line in rest.iter().take_while(is_inside) {
        let line = line.text.trim();
        if let Some(field) = line.strip_prefix("- ") {
            let (name, value) = field.split_once(": ").unwrap_or((field, ""));
            fields.push((name, value.to_owned()));
        } else {
            let last = fields.last_mut().map_or(&mut text, |(_, value)| value);
            last.push(' ');
            last.push_str(line);
        }
    }
    (text, fields)
}
