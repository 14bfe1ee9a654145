//! `cargo xtask install` and `cargo xtask uninstall`: the daemon on this host, without a package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
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
        let users = prefix.join("lib/sysusers.d/teredo.conf");
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
    if arguments.root.is_none() && Path::new(SYSTEMD).exists() {
        let unit = prefix.join("lib/systemd/system/teredo.service");
        let mut command = shell::as_root("systemctl");
        if unit.exists() {
            shell::run(command.args(["disable", "--now", "teredo.service"]))?;
        }
    }
    let mut files: Vec<_> = list.lines().map(|line| place(Path::new(line))).collect();
    files.push(manifest);
    shell::run(shell::as_root("rm").arg("-f").args(&files))?;
    // Directories of our own that are empty now; others have files of others.
    for directory in ["share/doc/teredo/examples", "share/doc/teredo/docs"]
        .into_iter()
        .chain(["share/doc/teredo", "share/teredo"])
    {
        let directory = place(&prefix.join(directory));
        if directory.is_dir() {
            let mut command = shell::as_root("rmdir");
            shell::run(command.arg("--ignore-fail-on-non-empty").arg(directory))?;
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
    Ok(prefix)
}

/// Makes systemd read its units again, if it runs this host.
fn reload() -> Result<()> {
    if Path::new(SYSTEMD).exists() {
        shell::run(shell::as_root("systemctl").arg("daemon-reload"))?;
    }
    Ok(())
}
