//! This host's own sources of Debian packages: the mirror and the keys that they are signed with.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};

use super::stanza;

/// The variable that names a mirror on hosts without Debian's sources.
pub const VARIABLE: &str = "TEREDO_VM_MIRROR";

/// Debian's keys, as the package debian-archive-keyring has them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names of Debian's suites, without those of updates.
const SUITES: [&str; 9] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// A repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repository {
    /// As in apt's sources.
    pub uri: String,
    /// The keyring, or a whole key with its lines indented.
    pub signed_by: Option<String>,
}

/// Debian's packages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mirror {
    /// The archive.
    pub main: Repository,
    /// The archive of security updates, which is another.
    pub security: Option<Repository>,
}

/// An entry of apt's sources.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    repository: Repository,
    suites: Vec<String>,
}

/// The mirror that this host uses, or that [`VARIABLE`] names.
pub fn mirror() -> Result<Mirror> {
    let named = env::var(VARIABLE).ok().and_then(|value| named(&value));
    if let Some(mirror) = named {
        return Ok(mirror);
    }
    choose(&host_entries()).with_context(|| {
        format!(
            "vm: apt on this host has no source of Debian packages; {VARIABLE}='URI [SECURITY-URI]' \
             names a mirror of Debian, and of its security updates"
        )
    })
}

/// The mirror of a value of [`VARIABLE`].
fn named(value: &str) -> Option<Mirror> {
    let signed_by = Path::new(KEYRING).exists().then(|| KEYRING.to_owned());
    let mut repositories = value.split_whitespace().map(|uri| Repository {
        uri: uri.to_owned(),
        signed_by: signed_by.clone(),
    });
    Some(Mirror {
        main: repositories.next()?,
        security: repositories.next(),
    })
}

fn host_entries() -> Vec<Entry> {
    let mut files = vec!["/etc/apt/sources.list".into()];
    let directory = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    files.extend(directory.flatten().map(|entry| entry.path()));
    files.sort();
    let mut entries = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => entries.extend(parse_lines(&text)),
            Some("sources") => entries.extend(parse_stanzas(&text)),
            _ => (),
        }
    }
    entries
}

/// The entries of a file of the one-line format that have Debian's main component.
fn parse_lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        rest = after;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    words.any(|component| component == "main").then(|| Entry {
        repository: Repository { uri, signed_by },
        suites: vec![suite],
    })
}

/// The entries of a file of the deb822 format that have Debian's main component.
fn parse_stanzas(text: &str) -> Vec<Entry> {
    let stanzas = stanza::parse(text);
    let used = stanzas.iter().filter(|stanza| {
        stanza.get("Enabled") != Some("no")
            && stanza.words("Types").iter().any(|kind| kind == "deb")
            && stanza.words("Components").iter().any(|name| name == "main")
    });
    used.filter_map(|stanza| {
        Some(Entry {
            repository: Repository {
                uri: stanza.words("URIs").into_iter().next()?,
                signed_by: stanza.get("Signed-By").map(str::to_owned),
            },
            suites: stanza.words("Suites"),
        })
    })
    .collect()
}

/// Debian's own of these entries. Others have suites of the same names, but keys of their own.
fn choose(entries: &[Entry]) -> Option<Mirror> {
    let find = |ending: &str| {
        let is_suite = |suite: &String| {
            suite
                .strip_suffix(ending)
                .is_some_and(|name| SUITES.contains(&name))
        };
        let is_debian = |entry: &&Entry| {
            let key = entry.repository.signed_by.as_deref().unwrap_or_default();
            let key = key.trim_start();
            key.is_empty() || key.contains("debian-archive") || key.starts_with("-----BEGIN")
        };
        let mut entries = entries.iter().filter(is_debian);
        let entry = entries.find(|entry| entry.suites.iter().any(is_suite))?;
        Some(entry.repository.clone())
    };
    Some(Mirror {
        main: find("")?,
        security: find("-security"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(uri: &str, signed_by: Option<&str>) -> Repository {
        Repository {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        }
    }

    #[test]
    fn reads_the_one_line_format() {
        let entries = parse_lines(
            "# deb http://old.example/debian bookworm main\n\
             deb-src http://source.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/keys/other.gpg] https://other.example bookworm main\n\
             deb\thttp://mirror.example/debian bookworm main contrib # and more\n\
             deb [ signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] \
             http://security.example/debian-security bookworm-security main\n\
             deb http://flat.example/ ./\n",
        );
        assert_eq!(entries.len(), 3);
        assert_eq!(
            choose(&entries),
            Some(Mirror {
                main: repository("http://mirror.example/debian", None),
                security: Some(repository(
                    "http://security.example/debian-security",
                    Some(KEYRING)
                )),
            })
        );
    }

    #[test]
    fn reads_the_deb822_format() {
        let entries = parse_stanzas(
            "Types: deb\nURIs: https://other.example/debian\nSuites: trixie\nComponents: main\n\
             Enabled: no\n\n\
             Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\n\
             Suites: trixie trixie-updates\nComponents: main non-free-firmware\n\
             Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n",
        );
        let key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==";
        assert_eq!(
            choose(&entries),
            Some(Mirror {
                main: repository("http://mirror.example/debian", Some(key)),
                security: None,
            })
        );
    }

    #[test]
    fn other_distributions_have_no_mirror_of_debian() {
        let entries = parse_lines("deb http://archive.example/ubuntu noble main universe\n");
        assert_eq!(entries.len(), 1);
        assert_eq!(choose(&entries), None);
    }

    #[test]
    fn takes_a_mirror_by_name() {
        let mirror = named("http://a.example/debian  http://b.example/debian-security");
        let mirror = mirror.expect("there is one");
        assert_eq!(mirror.main.uri, "http://a.example/debian");
        assert_eq!(
            mirror.security.map(|security| security.uri).as_deref(),
            Some("http://b.example/debian-security")
        );
        assert_eq!(named(" "), None);
    }
}
