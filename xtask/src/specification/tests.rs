//! The checks, on a repository of a few lines.

use super::*;

const RELAY: &str = "\
- **R-01** MUST. The first. More of it,
  on two lines.
  - Source: RFC 4380 5.4.1, 5.4.2.3; own.
- **R-02** SHOULD. The second.
  - Source: draft 7; practice.
  - Differs: RFC 4380 does. We do not.
";
const TABLE: &str = "\
| number | condition | otherwise | remark |
|---|---|---|---|
| D1-01 | A condition. | pass | |
| DEC-1 | subject | why | |
";
const VECTORS: &str = "### V-01 Octets\n\nThe octets `0b`.\n\n```\n0102 0304\n```\n";
const SECTIONS: &str = "\
## RFC 4380

| section | title | remark |
|---|---|---|
| 5 | All | Introduces. |
| 5.4.1 | Transmission | |
| 5.4.2 | Reception | |
";
const CODE: &str = "/// R-01, and R-02; D1-01.\nfn a() {}\n";
const TESTS: &str = "\
#[test]
fn r01_the_first() {}

#[test]
fn d1_01_v01() {
    octets(\"01\\
            02 0304\", 0b);
}
";

/// The repository with some files replaced.
fn outcome(changed: &[(&str, &str)]) -> Outcome {
    let files = [
        ("docs/protocol/relay.md", RELAY),
        ("docs/protocol/table.md", TABLE),
        ("docs/protocol/vectors.md", VECTORS),
        ("docs/protocol/rfc-sections.md", SECTIONS),
        ("teredo/src/relay.rs", CODE),
        ("tests/tests/relay.rs", TESTS),
    ];
    let files = files.map(|(path, text)| {
        let change = changed.iter().find(|(changed, _)| *changed == path);
        let text = change.map_or(text, |(_, text)| text);
        (path.to_owned(), text.to_owned())
    });
    Outcome::of(&files)
}

fn failures(changed: &[(&str, &str)]) -> Vec<String> {
    let failures = outcome(changed).failures;
    failures.iter().map(Failure::to_string).collect()
}

/// The one failure when the text of a file is changed.
#[track_caller]
fn failure(path: &str, text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    let failures = failures(&[(path, &text.replace(from, to))]);
    assert_eq!(failures.len(), 1, "{failures:?}");
    failures[0].clone()
}

#[test]
fn everything_holds() {
    assert_eq!(failures(&[]), Vec::<String>::new());
}

#[test]
fn what_is_cited_is_defined() {
    assert_eq!(
        failure(
            "teredo/src/relay.rs",
            CODE,
            "fn a() {}",
            "fn a() {} // R-09"
        ),
        "teredo/src/relay.rs:2: R-09: is not defined; define it in docs/protocol, or cite another number"
    );
    let tests = failure(
        "tests/tests/relay.rs",
        TESTS,
        "fn d1_01_v01",
        "fn d1_01_v01_c10",
    );
    assert!(
        tests.starts_with("tests/tests/relay.rs:4: C-10: "),
        "{tests}"
    );
    let document = failure("docs/protocol/relay.md", RELAY, "More", "More than R-03");
    assert!(
        document.starts_with("docs/protocol/relay.md:1: R-03: "),
        "{document}"
    );
}

#[test]
fn numbers_are_defined_once() {
    assert_eq!(
        failure(
            "docs/protocol/table.md",
            TABLE,
            "DEC-1 | subject |",
            "DEC-1 | subject |\n| DEC-1 |"
        ),
        "docs/protocol/table.md:5: DEC-1: is defined at docs/protocol/table.md:4, too; use the next \
         free number"
    );
}

#[test]
fn what_is_built_is_cited_in_the_product() {
    let relay = "docs/protocol/relay.md";
    let uncited = failure("teredo/src/relay.rs", CODE, ", and R-02", "");
    assert!(
        uncited.starts_with("docs/protocol/relay.md:4: R-02: no code cites it;"),
        "{uncited}"
    );
    let held = failure(relay, RELAY, "own.", "own.\n  - Held by: the kernel.");
    assert!(
        held.ends_with("R-01: code cites it; remove \"Held by\""),
        "{held}"
    );
    let not_built = failure(
        relay,
        RELAY,
        "We do not.",
        "We do not.\n  - Not built: no need.",
    );
    assert!(
        not_built.contains("R-02: is not built, but code cites it;"),
        "{not_built}"
    );
    let both = [
        (
            relay,
            &*RELAY.replace("We do not.", "We do not.\n  - Held by: the kernel."),
        ),
        ("teredo/src/relay.rs", &CODE.replace(", and R-02", "")),
    ];
    assert_eq!(failures(&both), Vec::<String>::new());
    let row = failure("teredo/src/relay.rs", CODE, "; D1-01", "");
    assert!(row.contains("D1-01: no code cites it;"), "{row}");
    let held_row = TABLE.replace("pass | |", "pass | Held by: the kernel. |");
    let changed = [
        ("docs/protocol/table.md", held_row.as_str()),
        ("teredo/src/relay.rs", &CODE.replace("; D1-01", "")),
    ];
    assert_eq!(failures(&changed), Vec::<String>::new());
}

#[test]
fn what_must_be_has_a_test_or_a_reason() {
    let (relay, tests) = ("docs/protocol/relay.md", "tests/tests/relay.rs");
    let untested = failure(tests, TESTS, "fn r01_the_first", "fn the_first");
    assert!(
        untested.starts_with("docs/protocol/relay.md:1: R-01: no test names it;"),
        "{untested}"
    );
    let needless = failure(relay, RELAY, "own.", "own.\n  - Untested: too hard.");
    assert!(
        needless.ends_with("R-01: a test names it; remove \"Untested\""),
        "{needless}"
    );
    let unneeded = failure(
        relay,
        RELAY,
        "We do not.",
        "We do not.\n  - Untested: too hard.",
    );
    assert!(
        unneeded.ends_with("R-02: needs no test; remove \"Untested\""),
        "{unneeded}"
    );
    let both = [
        (
            relay,
            &*RELAY.replace("own.", "own.\n  - Untested: too hard."),
        ),
        (tests, &TESTS.replace("fn r01_the_first", "fn the_first")),
    ];
    assert_eq!(failures(&both), Vec::<String>::new());
    // Only what belongs to a test counts.
    let elsewhere = TESTS.replace(
        "#[test]\nfn r01_the_first() {}",
        "/// R-01.\nfn helper() {}",
    );
    let only = failures(&[(tests, &elsewhere)]);
    assert!(
        only.len() == 1 && only[0].contains("R-01: no test names it"),
        "{only:?}"
    );
}

#[test]
fn vectors_are_those_of_the_tests() {
    let vectors = "docs/protocol/vectors.md";
    assert_eq!(
        failure(vectors, VECTORS, "0102 0304", "0102 0305"),
        "docs/protocol/vectors.md:6: V-01: no test that names it has \"0102 0305\"; correct one of the two"
    );
    let literal = failure(vectors, VECTORS, "`0b`", "`0c`");
    assert!(
        literal.contains("vectors.md:3: V-01: no test that names it has \"0c\""),
        "{literal}"
    );
    let unused = failure("tests/tests/relay.rs", TESTS, "d1_01_v01", "d1_01");
    assert!(unused.contains("V-01: no test names it;"), "{unused}");
}

#[test]
fn sections_are_those_of_the_rfcs() {
    let sections = "docs/protocol/rfc-sections.md";
    let unknown = failure("docs/protocol/relay.md", RELAY, "5.4.2.3", "5.4.2.3, 6");
    assert!(
        unknown.contains("R-01: RFC 4380 has no section 6;"),
        "{unknown}"
    );
    let unused = failure(
        sections,
        SECTIONS,
        "| 5.4.2 |",
        "| 5.4.3 | Other | |\n| 5.4.2 |",
    );
    assert!(
        unused.contains("section 5.4.3 of RFC 4380 is the source of no requirement;"),
        "{unused}"
    );
}

#[test]
fn requirements_are_well_formed() {
    let relay = "docs/protocol/relay.md";
    for (from, to, expected) in [
        ("MUST.", "Must.", "R-01: begin with MUST,"),
        ("own.", "me.", "R-01: \"me\" is no source;"),
        (
            "Source: draft",
            "Origin: draft",
            "R-02: there is no field \"Origin\";",
        ),
        (
            "- Differs: ",
            "- ",
            "R-02: there is no field \"RFC 4380 does.",
        ),
    ] {
        let failures = failures(&[(relay, &RELAY.replace(from, to))]);
        assert!(
            failures.iter().any(|failure| failure.contains(expected)),
            "{failures:?}"
        );
    }
    let failures = failures(&[(
        relay,
        &RELAY.replace("  - Source: draft 7; practice.\n", ""),
    )]);
    assert!(
        failures[0].contains("R-02: has no \"Source\";"),
        "{failures:?}"
    );
}

#[test]
fn the_document_leads_from_sections_to_code_and_tests() {
    let document = outcome(&[]).document;
    let row =
        "| [R-01](protocol/relay.md) MUST: The first. | `teredo/src/relay.rs` | `r01_the_first` |";
    let section = document.split("##### 5.4.2 Reception").nth(1).unwrap();
    assert!(section.contains(row), "{document}");
    assert_eq!(document.matches(row).count(), 2, "once for each section");
    let others = document.split("## Other sources").nth(1).unwrap();
    assert!(others.contains("SHOULD: The second.<br>*Differs:* RFC 4380 does. We do not. |"));
    assert!(others.contains(
        "| [D1-01](protocol/table.md) MUST: A condition. | `teredo/src/relay.rs` | `d1_01_v01` |"
    ));
    assert!(
        others.contains(
            "| [R-01](protocol/relay.md) | MUST | RFC 4380 5.4.1, RFC 4380 5.4.2 | 1 | 1 |"
        )
    );
}
