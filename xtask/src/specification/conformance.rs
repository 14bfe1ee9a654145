//! `docs/conformance.md`: from the sections of the RFCs to code and tests.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use super::{
    register::{Level, Register, Requirement, Section, Source},
    usage::Usage,
};

const HEAD: &str = "\
# Conformance

<!-- Written by `cargo xtask conformance`; `cargo xtask lint` checks that it is up to date. -->

For each section of RFC 4380, RFC 5991 and RFC 6081: the requirements that come from it, the
files of the code that name them, and the tests that do. The requirements are quoted by their
first sentence; the whole text is in [protocol](protocol/README.md). A requirement with several
sources is listed under each of them. *Differs* gives the difference from the RFC, and the
reason.
";
/// The head of a table of requirements.
const COLUMNS: &str = "\n| requirement | code | tests |\n|---|---|---|\n";
/// The head of the table of all numbers.
const INDEX_COLUMNS: &str =
    "\n| requirement | level | sections | files | tests |\n|---|---|---|---|---|\n";

/// Returns the document.
pub fn render(register: &Register, usage: &Usage<'_>) -> String {
    let mut text = HEAD.to_owned();
    let document = Document { register, usage };
    document.write(&mut text).expect("a string takes any text");
    text
}

struct Document<'d> {
    register: &'d Register,
    usage: &'d Usage<'d>,
}

impl Document<'_> {
    fn write(&self, text: &mut String) -> fmt::Result {
        self.write_summary(text)?;
        let mut rfc = None;
        for section in &self.register.sections {
            if rfc.replace(section.rfc) != Some(section.rfc) {
                write!(text, "\n## RFC {}\n", section.rfc)?;
            }
            self.write_section(text, section)?;
        }
        let all = || self.register.requirements.iter();
        let is_row = |requirement: &&Requirement| requirement.is_row();
        let has_section = |requirement: &&Requirement| !self.sections(requirement).is_empty();
        let others = all().filter(|requirement| !is_row(requirement) && !has_section(requirement));
        text.push_str("\n## Other sources\n");
        self.write_table(text, others)?;
        text.push_str("\n## Decision tables of the fast path\n");
        self.write_table(text, all().filter(is_row))?;
        text.push_str("\n## By number\n");
        text.push_str(INDEX_COLUMNS);
        all().try_for_each(|requirement| self.write_index(text, requirement))
    }

    fn write_summary(&self, text: &mut String) -> fmt::Result {
        let requirements = &self.register.requirements;
        let count = |is_counted: &dyn Fn(&Requirement) -> bool| {
            let counted = requirements
                .iter()
                .filter(|requirement| is_counted(requirement));
            counted.count()
        };
        let is_must =
            |requirement: &Requirement| requirement.level == Level::Must && requirement.is_built();
        write!(
            text,
            "\nThere are {} requirements and rows of decision tables; {} are not built. {} are a MUST; \
             {} of these are named by no test, for the reason given. {} differ from an RFC.\n",
            requirements.len(),
            count(&|requirement| !requirement.is_built()),
            count(&is_must),
            count(&|requirement| is_must(requirement) && requirement.untested.is_some()),
            count(&|requirement| requirement.differs.is_some()),
        )
    }

    fn write_section(&self, text: &mut String, section: &Section) -> fmt::Result {
        let depth = section.number.matches('.').count();
        let marks = "#".repeat(3 + depth);
        write!(text, "\n{marks} {} {}\n", section.number, section.title)?;
        if !section.remark.is_empty() {
            write!(text, "\n{}\n", relocated(&section.remark))?;
        }
        let key = (section.rfc, section.number.as_str());
        let requirements = self.register.requirements.iter();
        self.write_table(
            text,
            requirements.filter(|requirement| self.sections(requirement).contains(&key)),
        )
    }

    /// Writes a table of requirements; nothing if there are none.
    fn write_table<'r>(
        &self,
        text: &mut String,
        requirements: impl Iterator<Item = &'r Requirement>,
    ) -> fmt::Result {
        let mut requirements = requirements.peekable();
        if requirements.peek().is_some() {
            text.push_str(COLUMNS);
        }
        requirements.try_for_each(|requirement| self.write_row(text, requirement))
    }

    fn write_row(&self, text: &mut String, requirement: &Requirement) -> fmt::Result {
        let citers = self.usage.citers(requirement.number);
        let code = match (&requirement.not_built, &requirement.held_by) {
            (Some(reason), _) => format!("*Not built:* {}", relocated(reason)),
            (None, Some(mechanism)) => format!("*Held by:* {}", relocated(mechanism)),
            (None, None) => listed(&citers.files),
        };
        let tests = match &requirement.untested {
            Some(reason) => format!("*Untested:* {}", relocated(reason)),
            None => listed(&citers.tests),
        };
        let mut sentence = relocated(requirement.summary());
        if let Some(differs) = &requirement.differs {
            write!(sentence, "<br>*Differs:* {}", relocated(differs))?;
        }
        let (link, level) = (link(requirement), requirement.level.name());
        writeln!(text, "| {link} {level}: {sentence} | {code} | {tests} |")
    }

    fn write_index(&self, text: &mut String, requirement: &Requirement) -> fmt::Result {
        let citers = self.usage.citers(requirement.number);
        let sections = self.sections(requirement);
        let sections = sections
            .iter()
            .map(|(rfc, number)| format!("RFC {rfc} {number}"));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            link(requirement),
            requirement.level.name(),
            sections.collect::<Vec<_>>().join(", "),
            citers.files.len(),
            citers.tests.len(),
        )
    }

    /// The listed sections that are a source of a requirement, as RFC and number.
    fn sections(&self, requirement: &Requirement) -> BTreeSet<(u32, &str)> {
        let cited = requirement.sources.iter().flat_map(Source::sections);
        let listed = cited.filter_map(|(rfc, cited)| self.register.section(rfc, cited));
        listed
            .map(|section| (section.rfc, section.number.as_str()))
            .collect()
    }
}

/// The number of a requirement, as a link to the file that defines it.
fn link(requirement: &Requirement) -> String {
    let file = &requirement.place.file;
    let file = file.strip_prefix("docs/").unwrap_or(file);
    format!("[{}]({file})", requirement.number)
}

/// Names, one a line.
fn listed(names: &BTreeSet<&str>) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join("<br>")
}

/// A text of the specification with links that lead to the same files from the folder above.
fn relocated(text: &str) -> String {
    text.replace("](", "](protocol/")
}
