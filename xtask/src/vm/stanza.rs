//! The format of Debian's control files (deb822): fields in stanzas with empty lines between them.

use std::collections::BTreeMap;

/// The fields of a stanza. Their names are compared without regard to case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stanza(BTreeMap<String, String>);

impl Stanza {
    /// The value of a field. Continuation lines keep their indentation.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.0.get(&field.to_lowercase()).map(String::as_str)
    }

    /// The words of a field; none if there is no such field.
    pub fn words(&self, field: &str) -> Vec<String> {
        let value = self.get(field).unwrap_or_default();
        value.split_whitespace().map(str::to_owned).collect()
    }

    fn continue_last(&mut self, field: &str, line: &str) {
        if let Some(value) = self.0.get_mut(field) {
            value.push('\n');
            value.push_str(line);
        }
    }
}

/// The stanzas of a file. Comments and lines that are no fields are left out.
pub fn parse(text: &str) -> Vec<Stanza> {
    let mut stanzas = Vec::new();
    let mut stanza = Stanza::default();
    let mut field = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            stanzas.push(std::mem::take(&mut stanza));
        } else if line.starts_with([' ', '\t']) {
            stanza.continue_last(&field, line);
        } else if let Some((name, value)) = line.split_once(':') {
            field = name.trim().to_lowercase();
            stanza.0.insert(field.clone(), value.trim().to_owned());
        }
    }
    stanzas.push(stanza);
    stanzas.retain(|stanza| !stanza.0.is_empty());
    stanzas
}

/// The package names of a `Depends` field: of alternatives the first, without versions.
pub fn dependencies(depends: &str) -> Vec<String> {
    let alternatives = depends.split(',').map(|dependency| dependency.trim_start());
    alternatives
        .filter_map(|dependency| {
            let ends = |letter: char| letter.is_whitespace() || "|([:".contains(letter);
            dependency.split(ends).next()
        })
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separates_stanzas_and_joins_continuation_lines() {
        let stanzas = parse(
            "# a comment\nPackage: one\nDepends: a,\n b\n# in between\nSize: 5\n\n\nPackage: two\n",
        );
        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0].get("package"), Some("one"));
        assert_eq!(stanzas[0].get("Depends"), Some("a,\n b"));
        assert_eq!(stanzas[0].get("Size"), Some("5"));
        assert_eq!(stanzas[1].words("Package"), ["two"]);
        assert_eq!(stanzas[1].get("Depends"), None);
    }

    #[test]
    fn names_the_first_of_alternative_dependencies() {
        let names = dependencies(
            "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), kmod,\n linux-base (>= 4.3~) , \
             initramfs-tools (>= 0.120) | linux-initramfs-tool, python3:any",
        );
        assert_eq!(
            names,
            [
                "linux-image-6.1.0-56-cloud-amd64",
                "kmod",
                "linux-base",
                "initramfs-tools",
                "python3"
            ]
        );
        assert!(dependencies("").is_empty());
    }
}
