//! The archive of a static binary, with everything that belongs to it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{
    Binary, reproducible,
    tree::{self, Entry},
};
use crate::shell;

/// Packs the files of an installation in `/usr`, to be unpacked in `/`. Pages and completions are in `directory`,
/// and so will be the archive.
pub fn make(binary: &Binary, architecture: &str, directory: &Path) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let file = directory.join(format!("teredo-{version}-{architecture}-static.tar.gz"));
    let entries = tree::files(Path::new("/usr"), &binary.program, directory)?;
    pack(entries, &reproducible::epoch()?, &file)?;
    Ok(file)
}

/// Packs files as of a time in seconds since 1970, always in the same way. Without their directories, which are there when it is unpacked, and keep their
/// owners and rights.
fn pack(mut entries: Vec<Entry>, time: &str, file: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    tree::lay_out(&entries, root.path())?;
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(file);
    tar.args(["--use-compress-program", "gzip -9n", "--format=gnu"]);
    tar.args(["--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--mtime=@{time}"));
    tar.arg("--directory").arg(root.path());
    let paths = entries.iter().map(|entry| &entry.path);
    tar.args(paths.map(|path| path.strip_prefix("/").unwrap_or(path)));
    shell::run(&mut tar)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::Context as _;

    use super::{super::tree::Contents, *};

    #[test]
    fn an_archive_depends_on_nothing_but_its_files() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let entry = |path: &str, mode| Entry {
            path: path.into(),
            contents: Contents::Text(path.to_owned()),
            mode,
        };
        let entries = [entry("/usr/lib/b", 0o644), entry("/usr/bin/a", 0o755)];
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        pack(entries.to_vec(), "0", &one)?;
        pack(entries.into_iter().rev().collect(), "0", &other)?;
        assert!(fs::read(&one)? == fs::read(&other)?);
        let mut tar = Command::new("tar");
        tar.args(["--list", "--verbose", "--utc", "--file"]);
        let list = shell::output(tar.arg(&one)).context("tar cannot read it")?;
        let lines: Vec<_> = list.lines().collect();
        let [first, second] = &*lines else {
            anyhow::bail!("there are other files: {list}");
        };
        for (line, mode, path) in [
            (first, "-rwxr-xr-x 0/0 ", " 1970-01-01 00:00 usr/bin/a"),
            (second, "-rw-r--r-- 0/0 ", " 1970-01-01 00:00 usr/lib/b"),
        ] {
            assert!(line.starts_with(mode) && line.ends_with(path), "{line}");
        }
        Ok(())
    }
}
