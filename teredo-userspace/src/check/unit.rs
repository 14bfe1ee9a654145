//! The unit by which systemd starts the daemon, from its files: systemd need not run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::config::DEFAULT_PATH;

/// The name of the packaged unit.
pub const UNIT: &str = "teredo.service";
/// The directories of units, those that override others first.
const DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];
/// The directories of drop-ins in each of them, in the same order.
const DROP_INS: [&str; 2] = ["teredo.service.d", "service.d"];

/// The settings of the unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The name or number of the user that it starts the daemon as.
    pub user: String,
    /// The configuration.
    pub file: PathBuf,
}

impl Unit {
    /// Reads the unit of this host, if it is installed.
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::parse(&texts(Path::new("/"))?)
    }

    /// Returns the settings in the texts of a unit and its drop-ins, or `None` if they start nothing.
    fn parse(texts: &[String]) -> Option<Self> {
        let (mut user, mut command) = ("", None);
        let texts: Vec<_> = texts.iter().map(|text| text.replace("\\\n", " ")).collect();
        for (name, value) in texts.iter().flat_map(|text| settings(text)) {
            match name {
                "User" => user = value,
                // An empty one removes those before.
                "ExecStart" => command = Some(value).filter(|value| !value.is_empty()),
                _ => {}
            }
        }
        Some(Self {
            user: if user.is_empty() { "root" } else { user }.to_owned(),
            file: file(command?),
        })
    }
}

/// Returns the texts of the unit and its drop-ins below a root directory, those that override others last.
fn texts(root: &Path) -> Option<Vec<String>> {
    let directories = DIRECTORIES.map(|directory| root.join(directory));
    let mut units = directories.iter().map(|directory| directory.join(UNIT));
    let unit = units.find_map(|unit| fs::read_to_string(unit).ok())?;
    let mut drop_ins = BTreeMap::new();
    for kind in DROP_INS {
        for directory in &directories {
            let entries = fs::read_dir(directory.join(kind));
            for entry in entries.into_iter().flatten().flatten() {
                let path = entry.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "conf")
                {
                    // One of a name hides others of it.
                    let text = || fs::read_to_string(path).unwrap_or_default();
                    drop_ins.entry(entry.file_name()).or_insert_with(text);
                }
            }
        }
    }
    Some([unit].into_iter().chain(drop_ins.into_values()).collect())
}

/// Iterates over the settings of a service, with their values.
fn settings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut is_service = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with('[') {
            is_service = line == "[Service]";
        }
        let (name, value) = line.split_once('=').filter(|_| is_service)?;
        Some((name.trim_end(), value.trim_start()))
    })
}

/// Returns the configuration that a command names.
fn file(command: &str) -> PathBuf {
    let command = command.replace('"', "");
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(rest) = word.strip_prefix("--config") {
            let file = rest.strip_prefix('=').or_else(|| words.next());
            return file.unwrap_or(DEFAULT_PATH).into();
        }
    }
    DEFAULT_PATH.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGED: &str = include_str!("../../../packaging/systemd/teredo.service");

    fn unit(texts: &[&str]) -> Option<(String, String)> {
        let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
        let Unit { user, file } = Unit::parse(&texts)?;
        Some((user, file.to_string_lossy().into_owned()))
    }

    fn of(user: &str, file: &str) -> Option<(String, String)> {
        Some((user.to_owned(), file.to_owned()))
    }

    #[test]
    fn the_user_and_the_configuration_are_those_of_the_last_setting() {
        for (texts, expected) in [
            (&[PACKAGED][..], of("teredo", DEFAULT_PATH)),
            (
                &[PACKAGED, "[Service]\n# User=\n User = alice \n"],
                of("alice", DEFAULT_PATH),
            ),
            (&[PACKAGED, "[Service]\nUser=\n"], of("root", DEFAULT_PATH)),
            (
                &[PACKAGED, "[Unit]\nUser=bob\n"],
                of("teredo", DEFAULT_PATH),
            ),
            (
                &[
                    PACKAGED,
                    "[Service]\nExecStart=\nExecStart=/usr/bin/teredo run \\\n  --config /etc/a.toml\n",
                ],
                of("teredo", "/etc/a.toml"),
            ),
            (
                &["[Service]\nExecStart=teredo run --config=\"/etc/a.toml\" --no-wait"],
                of("root", "/etc/a.toml"),
            ),
            // Masked, and emptied.
            (&[""], None),
            (&[PACKAGED, "[Service]\nExecStart=\n"], None),
        ] {
            assert_eq!(unit(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn files_override_others_as_in_systemd() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let user = || Unit::parse(&texts(root.path())?).map(|unit| unit.user);
        assert_eq!(user(), None);
        for (path, text, expected) in [
            ("lib/systemd/system/teredo.service", PACKAGED, "teredo"),
            (
                "usr/lib/systemd/system/teredo.service.d/20-a.conf",
                "[Service]\nUser=a",
                "a",
            ),
            (
                "run/systemd/system/teredo.service.d/10-b.conf",
                "[Service]\nUser=b",
                "a",
            ),
            (
                "etc/systemd/system/service.d/20-a.conf",
                "[Service]\nUser=c",
                "a",
            ),
            ("etc/systemd/system/teredo.service.d/20-a.conf", "", "b"),
            (
                "etc/systemd/system/teredo.service.d/30-d.txt",
                "[Service]\nUser=d",
                "b",
            ),
            (
                "etc/systemd/system/teredo.service",
                "[Service]\nExecStart=teredo\nUser=e",
                "b",
            ),
        ] {
            write(path, text);
            assert_eq!(user().as_deref(), Some(expected), "{path}");
        }
    }
}
