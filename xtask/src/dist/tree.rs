//! The files of an installation, and their places.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::shell;

/// The unit of systemd, which names the program.
const UNIT: &str = "packaging/systemd/teredo.service";
/// The guides that operators need.
const GUIDES: &[&str] = &[
    "CHANGELOG.md",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "docs/accounting.md",
    "docs/api.md",
    "docs/client.md",
    "docs/capture.md",
    "docs/conditions.md",
    "docs/configuration.md",
    "docs/explain.md",
    "docs/install.md",
    "docs/kernels.md",
    "docs/metrics.md",
    "docs/nat.md",
    "docs/relay.md",
    "docs/runbook.md",
    "docs/scale.md",
    "docs/security.md",
    "docs/server.md",
    "docs/statistics.md",
    "docs/web.md",
    "docs/top.md",
];

/// The contents of a file.
#[derive(Clone, Debug)]
pub enum Contents {
    /// Those of another file.
    Of(PathBuf),
    /// A text.
    Text(String),
}

/// A file of an installation.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The absolute path.
    pub path: PathBuf,
    /// The contents.
    pub contents: Contents,
    /// The permissions.
    pub mode: u32,
}

/// Returns the files of an installation below `prefix`, with pages and completions of the directory that
/// [`make_pages`](super::make_pages) wrote.
pub fn files(prefix: &Path, program: &Path, pages: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut add = |path: PathBuf, contents, mode| {
        entries.push(Entry {
            path,
            contents,
            mode,
        });
    };
    let source = |path: &str| Contents::Of(shell::root().join(path));
    let (library, share) = (library(prefix), prefix.join("share"));
    add(
        prefix.join("bin/teredo"),
        Contents::Of(program.to_owned()),
        0o755,
    );
    let unit = fs::read_to_string(shell::root().join(UNIT)).context(UNIT)?;
    let program = format!("{}/bin/teredo", prefix.display());
    let unit = unit.replace("/usr/bin/teredo", &program);
    add(unit_path(prefix), Contents::Text(unit), 0o644);
    add(
        library.join("systemd/network/10-teredo.network"),
        source("packaging/systemd/10-teredo.network"),
        0o644,
    );
    add(
        library.join("sysusers.d/teredo.conf"),
        source("packaging/sysusers.d/teredo.conf"),
        0o644,
    );
    // NetworkManager looks nowhere else.
    let network_manager = match prefix == Path::new("/usr") {
        true => library.join("NetworkManager/conf.d/teredo.conf"),
        false => PathBuf::from("/etc/NetworkManager/conf.d/teredo.conf"),
    };
    add(
        network_manager,
        source("packaging/networkmanager/teredo.conf"),
        0o644,
    );
    for (from, to) in [
        ("man/man5", "man/man5"),
        ("man/man8", "man/man8"),
        ("completions/bash", "bash-completion/completions"),
        ("completions/zsh", "zsh/site-functions"),
        ("completions/fish", "fish/vendor_completions.d"),
    ] {
        for file in list(&pages.join(from))? {
            let name = file.file_name().context("a file has a name")?;
            add(share.join(to).join(name), Contents::Of(file.clone()), 0o644);
        }
    }
    let documents = share.join("doc/teredo");
    for guide in GUIDES {
        add(documents.join(guide), source(guide), 0o644);
    }
    let examples = documents.join("examples");
    for directory in ["examples", "prometheus", "grafana"] {
        for file in list(&shell::root().join("packaging").join(directory))? {
            let name = file.file_name().context("a file has a name")?;
            add(examples.join(name), Contents::Of(file.clone()), 0o644);
        }
    }
    for (directory, name) in [
        ("bird", "bird.conf"),
        ("bird", "router.conf"),
        ("bird", "fleet.conf"),
        ("bird", "fleet-router.conf"),
        ("frr", "frr.conf"),
    ] {
        let path = Path::new(directory).join(name);
        let source = shell::root().join("packaging").join(&path);
        add(examples.join(path), Contents::Of(source), 0o644);
    }
    add(
        examples.join("90-teredo.conf"),
        source("packaging/sysctl.d/90-teredo.conf"),
        0o644,
    );
    Ok(entries)
}

/// Returns the directory of the files that systemd reads, which looks in few places.
pub fn library(prefix: &Path) -> PathBuf {
    let is_looked_in = ["/usr", "/usr/local"].map(Path::new).contains(&prefix);
    let prefix = if is_looked_in {
        prefix
    } else {
        Path::new("/usr/local")
    };
    prefix.join("lib")
}

/// Returns the path of the unit.
pub fn unit_path(prefix: &Path) -> PathBuf {
    library(prefix).join("systemd/system/teredo.service")
}

/// Writes the files below `root`.
pub fn lay_out(entries: &[Entry], root: &Path) -> Result<()> {
    for entry in entries {
        let relative = entry.path.strip_prefix("/").unwrap_or(&entry.path);
        let path = root.join(relative);
        put(entry, &path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn put(entry: &Entry, path: &Path) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match &entry.contents {
        // Not fs::copy: a program that runs is replaced, not written to.
        Contents::Of(source) => write_new(path, &fs::read(source)?)?,
        Contents::Text(text) => write_new(path, text.as_bytes())?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))
}

fn write_new(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, contents)
}

/// Returns the files of a directory, in the order of their names.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metadata of the packages, which names directories of the staged files.
    const METADATA: &str = include_str!("../../../teredo-userspace/Cargo.toml");

    /// Directories like those that the pages are written to.
    fn pages() -> Result<tempfile::TempDir> {
        let pages = tempfile::tempdir()?;
        for file in [
            "man/man5/teredo.toml.5",
            "man/man8/teredo.8",
            "completions/bash/teredo",
            "completions/zsh/_teredo",
            "completions/fish/teredo.fish",
        ] {
            let path = pages.path().join(file);
            fs::create_dir_all(path.parent().context("a file has a directory")?)?;
            fs::write(path, "")?;
        }
        Ok(pages)
    }

    fn files_below(prefix: &str) -> Result<Vec<Entry>> {
        let pages = pages()?;
        // Only its path is needed.
        files(Path::new(prefix), Path::new("/nonexistent"), pages.path())
    }

    #[test]
    fn the_unit_names_the_program_of_its_prefix() -> Result<()> {
        for prefix in ["/usr", "/opt/teredo"] {
            let entries = files_below(prefix)?;
            let unit = entries
                .iter()
                .find(|entry| entry.path.ends_with("systemd/system/teredo.service"))
                .context("no unit")?;
            let Contents::Text(text) = &unit.contents else {
                anyhow::bail!("the unit is copied as it is");
            };
            let line = format!("\nExecStart={prefix}/bin/teredo run\n");
            assert!(text.contains(&line), "{text}");
        }
        Ok(())
    }

    /// systemd.unit(5) and its neighbours have the directories.
    #[test]
    fn systemd_finds_its_files_whatever_the_prefix() -> Result<()> {
        for (prefix, library) in [
            ("/usr", "/usr/lib"),
            ("/usr/local", "/usr/local/lib"),
            ("/opt/teredo", "/usr/local/lib"),
        ] {
            let entries = files_below(prefix)?;
            for file in [
                "systemd/system/teredo.service",
                "systemd/network/10-teredo.network",
                "sysusers.d/teredo.conf",
            ] {
                let path = Path::new(library).join(file);
                assert!(
                    entries.iter().any(|entry| entry.path == path),
                    "{prefix} has no {}",
                    path.display()
                );
            }
        }
        Ok(())
    }

    #[test]
    fn every_source_exists() -> Result<()> {
        for entry in files_below("/usr")? {
            if let Contents::Of(source) = &entry.contents
                && source.starts_with(shell::root())
            {
                assert!(source.is_file(), "{}", source.display());
            }
        }
        Ok(())
    }

    #[test]
    fn both_packages_have_every_file() -> Result<()> {
        let (deb, rpm) = METADATA
            .split_once("[package.metadata.generate-rpm]")
            .context("no metadata of an RPM package")?;
        for entry in files_below("/usr")? {
            let directory = entry.path.parent().context("a file has a directory")?;
            let directory = directory.display();
            // The unit is copied from the source, with scripts for it.
            let is_unit = entry.path.ends_with("system/teredo.service");
            let of_licence = entry.path.to_string_lossy().contains("/LICENSE");
            let staged = format!("target/dist/root{directory}/");
            assert!(rpm.contains(&staged), "the RPM package has no {directory}");
            assert!(
                deb.contains(&staged) || is_unit || of_licence,
                "the Debian package has no {directory}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_program_is_replaced_and_not_written_to() -> Result<()> {
        let root = tempfile::tempdir()?;
        let entry = Entry {
            path: "/bin/teredo".into(),
            contents: Contents::Text("new".to_owned()),
            mode: 0o755,
        };
        fs::create_dir(root.path().join("bin"))?;
        let path = root.path().join("bin/teredo");
        fs::write(&path, "old")?;
        let old = fs::File::open(&path)?;
        lay_out(&[entry], root.path())?;
        assert_eq!(std::io::read_to_string(old)?, "old");
        assert_eq!(fs::read_to_string(&path)?, "new");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o755);
        Ok(())
    }
}
