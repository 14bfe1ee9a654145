//! The citations of numbers in code, tests and documents.
//!
//! Rust sources are formatted when they come here, so that a module or function ends with the first
//! line that has nothing but a brace at the same indentation.

use super::{failure::Place, number, number::Number};

/// Folders of code that is neither the product nor its tests, though `tests` may hold some.
const AROUND: [&str; 4] = ["tests", "benches", "examples", "fuzz"];

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Code of the product.
    Product,
    /// Tests.
    Tests,
    /// Neither of the two: the laboratory, benchmarks, examples, fuzz targets.
    Laboratory,
    /// Documentation.
    Document,
}

impl Kind {
    /// The kind of a file by its path; `None` if its citations do not count.
    pub fn of(path: &str) -> Option<Self> {
        // Generated, or about numbers in general.
        if path == super::CONFORMANCE || path.starts_with("xtask/") {
            return None;
        }
        if path.ends_with(".md") {
            return Some(Self::Document);
        }
        if !path.ends_with(".rs") {
            return None;
        }
        let folders: Vec<&str> = path.split('/').collect();
        Some(if path.contains("/tests/") || path.ends_with("/tests.rs") {
            Self::Tests
        } else if folders.iter().any(|folder| AROUND.contains(folder)) {
            Self::Laboratory
        } else {
            Self::Product
        })
    }
}

/// The origin of a citation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Code of the product.
    Product,
    /// A test, by its name, its doc comment or its body.
    Test(String),
    /// Test code outside of any test.
    TestCode,
    /// The laboratory or a document.
    Other,
}

/// One citation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    pub number: Number,
    pub by: By,
    pub place: Place,
}

/// The citations in one file.
pub fn citations(path: &str, text: &str) -> Vec<Citation> {
    let Some(kind) = Kind::of(path) else {
        return Vec::new();
    };
    let place = |line: usize| Place {
        file: path.to_owned(),
        line: line + 1,
    };
    let scopes = match kind {
        Kind::Document => vec![Scope::Other; text.lines().count()],
        _ => scopes(kind, text),
    };
    let mut found = Vec::new();
    for (offset, number) in number::cited(text) {
        let line = text[..offset].matches('\n').count();
        let by = match scopes.get(line) {
            Some(Scope::Product) => By::Product,
            Some(Scope::Test(name)) => By::Test((*name).to_owned()),
            Some(Scope::TestCode) => By::TestCode,
            Some(Scope::Other) | None => By::Other,
        };
        found.push(Citation {
            number,
            by,
            place: place(line),
        });
    }
    for (line, scope) in scopes.iter().enumerate() {
        if let Scope::Test(name) = scope
            && scopes.get(line.wrapping_sub(1)) != Some(scope)
        {
            found.extend(number::in_name(name).into_iter().map(|number| Citation {
                number,
                by: By::Test((*name).to_owned()),
                place: place(line),
            }));
        }
    }
    found
}

/// The lines of a file that are test code.
pub fn test_code<'t>(path: &str, text: &'t str) -> Vec<&'t str> {
    let Some(kind) = Kind::of(path).filter(|kind| *kind != Kind::Document) else {
        return Vec::new();
    };
    let lines = text.lines().zip(scopes(kind, text));
    let is_test = |scope: &Scope<'_>| matches!(scope, Scope::Test(_) | Scope::TestCode);
    lines
        .filter(|(_, scope)| is_test(scope))
        .map(|(line, _)| line)
        .collect()
}

/// The part of a file that a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope<'t> {
    Product,
    Test(&'t str),
    TestCode,
    Other,
}

/// The scope of each line of a Rust source.
fn scopes(kind: Kind, text: &str) -> Vec<Scope<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let outside = match kind {
        Kind::Product => Scope::Product,
        Kind::Tests => Scope::TestCode,
        Kind::Laboratory | Kind::Document => Scope::Other,
    };
    let mut scopes = vec![outside; lines.len()];
    for (index, line) in lines.iter().enumerate() {
        let next = lines.get(index + 1).copied().unwrap_or_default();
        if line.trim() == "#[cfg(test)]" && next.contains("mod ") && next.ends_with('{') {
            let end = end_of_block(&lines, index + 1);
            scopes[index..=end].fill(Scope::TestCode);
        }
    }
    for (index, line) in lines.iter().enumerate() {
        if scopes[index] != Scope::TestCode || !is_test_attribute(line) {
            continue;
        }
        let indentation = indentation(line);
        let is_head = |line: &&&str| {
            let text = line.trim_start();
            text.starts_with("///") || text.starts_with("#[")
        };
        let before = lines[..index].iter().rev().take_while(is_head).count();
        let after = lines[index..].iter().take_while(is_head).count();
        let Some(name) = lines.get(index + after).and_then(|line| name_of(line)) else {
            continue;
        };
        let end = end_of_block_at(&lines, index + after, indentation);
        scopes[index - before..=end].fill(Scope::Test(name));
    }
    scopes
}

/// `#[test]`, `#[tokio::test]` and the like.
fn is_test_attribute(line: &str) -> bool {
    let attribute = line.trim_start().strip_prefix("#[");
    attribute.is_some_and(|attribute| {
        let path = attribute.split(['(', ']']).next().unwrap_or_default();
        path == "test" || path.ends_with("::test")
    })
}

/// The name of the function that begins on a line.
fn name_of(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let text = text.strip_prefix("pub ").unwrap_or(text);
    let text = text.strip_prefix("async ").unwrap_or(text);
    let name = text.strip_prefix("fn ")?;
    let end = name.find(['(', '<'])?;
    Some(&name[..end])
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn end_of_block(lines: &[&str], start: usize) -> usize {
    end_of_block_at(lines, start, indentation(lines[start]))
}

/// The index of the line that closes the block that begins at `start`.
fn end_of_block_at(lines: &[&str], start: usize, indent: usize) -> usize {
    if lines[start].ends_with('}') {
        return start;
    }
    let is_end = |line: &&str| line.trim() == "}" && indentation(line) == indent;
    let length = lines[start..].iter().position(is_end);
    length.map_or(lines.len() - 1, |length| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCT: &str = "\
/// R-04.
fn a() {}

#[cfg(test)]
mod tests {
    /// R-05.
    const TABLE: &str = \"R-06\";

    /// R-07.
    #[test]
    fn r08_something() {
        // R-09.
        if true {
        }
    }

    proptest! {
        #[test]
        fn c10_any(
            octet: u8,
        ) {
            assert!(true, \"C-11\");
        }
    }

    // R-12.
}
";

    fn found(path: &str, text: &str) -> Vec<(String, By, usize)> {
        let mut found: Vec<_> = citations(path, text)
            .into_iter()
            .map(|citation| {
                (
                    citation.number.to_string(),
                    citation.by,
                    citation.place.line,
                )
            })
            .collect();
        found.sort_by_key(|(number, ..)| number.clone());
        found
    }

    fn test(name: &str) -> By {
        By::Test(name.to_owned())
    }

    #[test]
    fn kinds_of_files() {
        assert_eq!(Kind::of("teredo-common/src/scope.rs"), Some(Kind::Product));
        assert_eq!(
            Kind::of("teredo/src/relay/tests/peers.rs"),
            Some(Kind::Tests)
        );
        assert_eq!(Kind::of("teredo/src/config/tests.rs"), Some(Kind::Tests));
        assert_eq!(Kind::of("tests/tests/relay.rs"), Some(Kind::Tests));
        assert_eq!(Kind::of("tests/lab/src/nat.rs"), Some(Kind::Laboratory));
        assert_eq!(Kind::of("tests/lab/tests/nat.rs"), Some(Kind::Tests));
        assert_eq!(Kind::of("fuzz/targets/relay.rs"), Some(Kind::Laboratory));
        assert_eq!(Kind::of("docs/protocol/relay.md"), Some(Kind::Document));
        assert_eq!(Kind::of("docs/conformance.md"), None);
        assert_eq!(Kind::of("xtask/src/main.rs"), None);
        assert_eq!(Kind::of("Cargo.toml"), None);
    }

    #[test]
    fn citations_belong_to_what_they_stand_in() {
        let expected = [
            ("C-10", test("c10_any"), 18),
            ("C-11", test("c10_any"), 22),
            ("R-04", By::Product, 1),
            ("R-05", By::TestCode, 6),
            ("R-06", By::TestCode, 7),
            ("R-07", test("r08_something"), 9),
            ("R-08", test("r08_something"), 9),
            ("R-09", test("r08_something"), 12),
            ("R-12", By::TestCode, 26),
        ];
        let expected = expected.map(|(number, by, line)| (number.to_owned(), by, line));
        assert_eq!(found("a/src/b.rs", PRODUCT), expected);
    }

    #[test]
    fn tests_beside_each_other_are_told_apart() {
        let text = "#[test]\nfn r01_a() {\n}\n#[tokio::test]\nasync fn r02_b() {\n}\n";
        let expected = [("R-01", "r01_a", 1), ("R-02", "r02_b", 4)];
        let expected = expected.map(|(number, name, line)| (number.to_owned(), test(name), line));
        assert_eq!(found("tests/tests/a.rs", text), expected);
    }

    #[test]
    fn the_laboratory_and_documents_are_neither_code_nor_tests() {
        let expected = [("R-01".to_owned(), By::Other, 1)];
        assert_eq!(found("tests/lab/src/a.rs", "// R-01\n"), expected);
        assert_eq!(found("docs/a.md", "R-01\n"), expected);
    }

    #[test]
    fn test_code_leaves_the_product_out() {
        let code = test_code("a/src/b.rs", PRODUCT).join("\n");
        assert!(code.contains("TABLE") && !code.contains("R-04"));
        assert_eq!(test_code("docs/a.md", "R-01"), Vec::<&str>::new());
    }
}
