//! `cargo xtask install` and `cargo xtask uninstall`: the daemon on this host, without a package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{
    dist::{
        self, Binary, Triple,
        tree::{self, Entry},
    },
    shell,
};

/// The list of installed files, below the prefix.
const MANIFEST: &str = "share/teredo/installed";
/// Whether systemd runs this host.
const SYSTEMD: &str = "/run/systemd/system";
/// The directories that the unit hides from the daemon (ProtectHome= and PrivateTmp=).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

#[derive(Args, Debug)]
pub struct Arguments {
    /// The directory below which everything goes
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Put another directory before all paths, for packagers; users and units are left alone
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Builds the daemon and installs it with its unit, pages and completions.
pub fn install(arguments: &Arguments) -> Result<ExitCode> {
    let prefix = checked(&arguments.prefix)?;
    let binary = Binary::build(&Triple::host()?)?;
    let pages = dist::directory();
    dist::make_pages(&pages)?;
    let mut entries = tree::files(prefix, &binary.program, &pages)?;
    let mut manifest = String::new();
    for entry in &entries {
        manifest += &format!("{}\n", entry.path.display());
    }
    entries.push(Entry {
        path: prefix.join(MANIFEST),
        contents: tree::Contents::Text(manifest),
        mode: 0o644,
    });
    if let Some(root) = &arguments.root {
        tree::lay_out(&entries, root)?;
        println!("installed below {}", root.display());
        return Ok(ExitCode::SUCCESS);
    }
    // Root copies what was made without its rights.
    let staged = dist::directory().join("install");
    if staged.exists() {
        fs::remove_dir_all(&staged)
            .with_context(|| format!("cannot remove {}", staged.display()))?;
    }
    tree::lay_out(&entries, &staged)?;
    for entry in &entries {
        let from = staged.join(entry.path.strip_prefix("/").unwrap_or(&entry.path));
        let mut command = shell::as_root("install");
        command.args(["-D", "-m", &format!("{:o}", entry.mode)]);
        shell::run(command.arg(from).arg(&entry.path))?;
    }
    shell::run(shell::as_root("mkdir").args(["-p", "/etc/teredo"]))?;
    if shell::find("systemd-sysusers").is_some() {
        let users = tree::library(prefix).join("sysusers.d/teredo.conf");
        shell::run(shell::as_root("systemd-sysusers").arg(users))?;
    }
    reload()?;
    println!(
        "installed below {}; next: a configuration in /etc/teredo/teredo.toml (examples in \
         {}/share/doc/teredo/examples), `teredo check`, `systemctl enable --now teredo`",
        prefix.display(),
        prefix.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Removes what [`install`] has installed.
pub fn uninstall(arguments: &Arguments) -> Result<ExitCode> {
    let prefix = checked(&arguments.prefix)?;
    let root = arguments.root.as_deref().unwrap_or(Path::new("/"));
    let place = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let manifest = place(&prefix.join(MANIFEST));
    let list = fs::read_to_string(&manifest).with_context(|| {
        format!(
            "{} cannot be read, so nothing is known to be installed there; name the --prefix of \
             `cargo xtask install`",
            manifest.display()
        )
    })?;
    if arguments.root.is_none() && Path::new(SYSTEMD).exists() && tree::unit_path(prefix).exists() {
        let mut command = shell::as_root("systemctl");
        attempt(command.args(["disable", "--now", "teredo.service"]));
    }
    let mut files: Vec<_> = list.lines().map(|line| place(Path::new(line))).collect();
    files.push(manifest);
    let command = |program| match &arguments.root {
        Some(_) => Command::new(program),
        None => shell::as_root(program),
    };
    shell::run(command("rm").arg("-f").args(&files))?;
    // Directories of our own that are empty now; others have files of others.
    for directory in ["share/doc/teredo/examples", "share/doc/teredo/docs"]
        .into_iter()
        .chain(["share/doc/teredo", "share/teredo"])
    {
        let directory = place(&prefix.join(directory));
        if directory.is_dir() {
            let mut rmdir = command("rmdir");
            shell::run(rmdir.arg("--ignore-fail-on-non-empty").arg(directory))?;
        }
    }
    if arguments.root.is_none() {
        reload()?;
        println!(
            "removed; left are /etc/teredo, /var/lib/teredo and the user teredo, if they are there"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn checked(prefix: &Path) -> Result<&Path> {
    ensure!(
        prefix.is_absolute(),
        "--prefix {} is not an absolute path, which the unit has to name; write it in full",
        prefix.display()
    );
    if let Some(hidden) = HIDDEN.iter().find(|hidden| prefix.starts_with(hidden)) {
        bail!(
            "--prefix {} is below {hidden}, which the unit hides from the daemon (ProtectHome=, PrivateTmp=); \
             choose another, such as /usr/local",
            prefix.display()
        );
    }
    Ok(prefix)
}

/// Runs a command whose failure must not keep the rest from being removed.
fn attempt(command: &mut Command) {
    if let Err(error) = shell::run(command) {
        eprintln!("uninstall: {error:#}; the rest is removed all the same");
    }
}

/// Makes systemd read its units again, if it runs this host.
fn reload() -> Result<()> {
    if Path::new(SYSTEMD).exists() {
        shell::run(shell::as_root("systemctl").arg("daemon-reload"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_the_daemon_would_not_see_are_refused() -> Result<()> {
        for prefix in ["/home/somebody/teredo", "/root", "/tmp/teredo"] {
            let said = checked(Path::new(prefix)).map_err(|error| error.to_string());
            assert!(said.is_err_and(|error| error.contains("hides")), "{prefix}");
        }
        assert!(checked(Path::new("teredo")).is_err());
        for prefix in ["/usr", "/opt/teredo", "/homes/teredo"] {
            checked(Path::new(prefix))?;
        }
        Ok(())
    }

    /// Below another directory, and where systemd does not know the service.
    #[test]
    fn what_was_installed_is_removed() -> Result<()> {
        attempt(&mut Command::new("false"));
        let root = tempfile::tempdir()?;
        let prefix = PathBuf::from("/opt/teredo");
        let files = [
            "/opt/teredo/bin/teredo",
            "/usr/local/lib/systemd/system/teredo.service",
        ];
        let place = |path: &str| root.path().join(path.trim_start_matches('/'));
        for file in files.iter().chain(&["/opt/teredo/share/teredo/installed"]) {
            fs::create_dir_all(place(file).parent().context("a file has a directory")?)?;
            fs::write(place(file), files.join("\n"))?;
        }
        uninstall(&Arguments {
            prefix,
            root: Some(root.path().to_owned()),
        })?;
        for file in files {
            assert!(!place(file).exists(), "{file}");
        }
        assert!(!place("/opt/teredo/share/teredo").exists());
        Ok(())
    }
}
