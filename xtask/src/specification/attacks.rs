//! `docs/security.md`: the tests that it names exist.

use super::failure::{Failure, Place};

/// The document of attacks and what stops them.
const ATTACKS: &str = "docs/security.md";
/// Words of a name, at least, that is taken for a test's.
const WORDS: usize = 4;

/// Returns a failure for each test that is named and does not exist.
pub fn check(files: &[(&str, &str)]) -> Vec<Failure> {
    let files = || files.iter().copied();
    let documents = files().filter(|(path, _)| *path == ATTACKS);
    let named = documents.flat_map(|(_, text)| names(text));
    let missing = named.filter(|(_, name)| {
        let function = format!("fn {name}(");
        let mut code = files().filter(|(path, _)| path.ends_with(".rs"));
        !code.any(|(_, text)| text.contains(&function))
    });
    let failures = missing.map(|(line, name)| {
        let place = Place {
            file: ATTACKS.to_owned(),
            line,
        };
        Failure::new(
            &place,
            format!("there is no test {name}; name the one that it became"),
        )
    });
    failures.collect()
}

/// Returns the names of tests in a document, with their lines.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        let quoted = line.split('`').skip(1).step_by(2);
        quoted
            .filter(|name| is_name(name))
            .map(move |name| (index + 1, name))
    })
}

fn is_name(text: &str) -> bool {
    let mut octets = text.bytes();
    text.split('_').count() >= WORDS
        && octets.all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let files = [
            (
                ATTACKS,
                "| x | `l19_this_is_there`, `l19_this_is_not` | `rate_of` |",
            ),
            (
                "tests/a.rs",
                "fn l19_this_is_there() {}\nfn l19_this_is_not_it() {}",
            ),
        ];
        let failures = check(&files);
        let messages: Vec<_> = failures.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages,
            ["docs/security.md:1: there is no test l19_this_is_not; name the one that it became"]
        );
    }
}
