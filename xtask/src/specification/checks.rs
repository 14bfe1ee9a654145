//! The agreement of the specification, the code and the tests.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    citations::Citation,
    failure::Failure,
    number::Number,
    register::{Level, Register, Requirement, Source},
    usage::Usage,
};

/// The lines of test code, by file.
pub type TestCode<'t> = BTreeMap<&'t str, Vec<&'t str>>;

/// Returns everything that does not hold, in the order of files and lines.
pub fn check(
    register: &Register,
    citations: &[Citation],
    usage: &Usage<'_>,
    test_code: &TestCode<'_>,
) -> Vec<Failure> {
    let mut failures = register.failures.clone();
    failures.extend(duplicates(register));
    failures.extend(undefined(register, citations));
    for requirement in &register.requirements {
        failures.extend(code(requirement, usage));
        failures.extend(tests(requirement, usage));
    }
    failures.extend(vectors(register, usage));
    failures.extend(literals(register, usage, test_code));
    failures.extend(sections(register));
    failures.sort();
    failures.dedup();
    failures
}

/// Every number is defined once.
fn duplicates(register: &Register) -> Vec<Failure> {
    let mut first = BTreeMap::new();
    let mut failures = Vec::new();
    for (number, place) in register.definitions() {
        if let Some(before) = first.insert(number, place) {
            let message =
                format!("{number}: is defined at {before}, too; use the next free number");
            failures.push(Failure::new(place, message));
        }
    }
    failures
}

/// Every number that is cited is defined.
fn undefined(register: &Register, citations: &[Citation]) -> Vec<Failure> {
    let defined: BTreeSet<Number> = register.definitions().map(|(number, _)| number).collect();
    let unknown = citations
        .iter()
        .filter(|citation| !defined.contains(&citation.number));
    let failure = |citation: &Citation| {
        let message = format!(
            "{}: is not defined; define it in docs/protocol, or cite another number",
            citation.number
        );
        Failure::new(&citation.place, message)
    };
    unknown.map(failure).collect()
}

/// A requirement that is built is cited in the product, or says what holds it; one that is not
/// built is not cited.
fn code(requirement: &Requirement, usage: &Usage<'_>) -> Option<Failure> {
    let is_cited = !usage.citers(requirement.number).files.is_empty();
    let message = match (is_cited, requirement.is_built(), &requirement.held_by) {
        (true, false, _) => "is not built, but code cites it; remove \"Not built\" or the citation",
        (false, true, None) => {
            "no code cites it; cite it where it is built, or write \"Held by\" or \"Not built\""
        }
        (true, true, Some(_)) => "code cites it; remove \"Held by\"",
        (false, false, Some(_)) => "is not built, so nothing holds it; remove \"Held by\"",
        (true, true, None) | (false, true, Some(_)) | (false, false, None) => return None,
    };
    Some(requirement.failure(message))
}

/// A MUST that is built is named by a test, or gives the reason why none does.
fn tests(requirement: &Requirement, usage: &Usage<'_>) -> Option<Failure> {
    let is_tested = !usage.citers(requirement.number).tests.is_empty();
    let needs_test = requirement.level == Level::Must && requirement.is_built();
    let message = match (is_tested, &requirement.untested) {
        (true, Some(_)) => "a test names it; remove \"Untested\"",
        (false, Some(_)) if !needs_test => "needs no test; remove \"Untested\"",
        (false, None) if needs_test => {
            "no test names it; name it in a test of it, or give the reason in \"Untested\""
        }
        _ => return None,
    };
    Some(requirement.failure(message))
}

/// Every vector is named in test code.
fn vectors(register: &Register, usage: &Usage<'_>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (number, place) in &register.others {
        if number.family() == "V" && usage.citers(*number).test_files.is_empty() {
            let message = format!("{number}: no test names it; use it in a test, or remove it");
            failures.push(Failure::new(place, message));
        }
    }
    failures
}

/// Every literal of a vector stands in test code of a file that names the vector.
fn literals(register: &Register, usage: &Usage<'_>, test_code: &TestCode<'_>) -> Vec<Failure> {
    let texts: BTreeMap<&str, String> = test_code
        .iter()
        .map(|(file, lines)| (*file, condensed(&lines.concat())))
        .collect();
    let mut failures = Vec::new();
    for literal in &register.literals {
        let files = &usage.citers(literal.vector).test_files;
        let text = condensed(&literal.text);
        let mut candidates = files.iter().filter_map(|file| texts.get(file));
        if !files.is_empty() && !candidates.any(|code| code.contains(&text)) {
            let message = format!(
                "{}: no test that names it has \"{}\"; correct one of the two",
                literal.vector, literal.text
            );
            failures.push(Failure::new(&literal.place, message));
        }
    }
    failures
}

/// Removes everything that breaks the octets of a string apart.
fn condensed(text: &str) -> String {
    let is_kept = |character: &char| !character.is_whitespace() && !"\\\"".contains(*character);
    text.chars().filter(is_kept).collect()
}

/// Every section that a source names exists, and every section is a source or has a remark.
fn sections(register: &Register) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut used: BTreeSet<(u32, &str)> = BTreeSet::new();
    for requirement in &register.requirements {
        for (rfc, cited) in requirement.sources.iter().flat_map(Source::sections) {
            match register.section(rfc, cited) {
                Some(section) => drop(used.insert((rfc, &section.number))),
                None if register.lists(rfc) => {
                    let message = format!(
                        "RFC {rfc} has no section {cited}; correct it, or add it to \
                         docs/protocol/rfc-sections.md"
                    );
                    failures.push(requirement.failure(&message));
                }
                None => {}
            }
        }
    }
    for section in &register.sections {
        let (rfc, number) = (section.rfc, section.number.as_str());
        if section.remark.is_empty() && !used.contains(&(rfc, number)) {
            let message = format!(
                "section {number} of RFC {rfc} is the source of no requirement; name it as one, or \
                 say in the remark why not"
            );
            failures.push(Failure::new(&section.place, message));
        }
    }
    failures
}
