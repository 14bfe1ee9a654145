//! Root file systems of Debian.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{
    apt::{self, Apt, Package},
    cache::Cache,
    debian::Release,
    tools::Tools,
};
use crate::shell;

/// Packages besides the essential ones.
const PACKAGES: [&str; 14] = [
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "iproute2",
    "nftables",
    "conntrack",
    "bpftool",
    "ethtool",
    "tcpdump",
    "iputils-ping",
    "procps",
    "netbase",
    "ca-certificates",
];

/// Units that only take time in a machine that lives for a minute.
const MASKED: [&str; 8] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "dpkg-db-backup.timer",
    "getty@tty1.service",
    "systemd-pcrphase.service",
];

/// Runs the command of a machine.
const SERVICE: &str = include_str!("guest/vm.service");
const RUN: &str = include_str!("guest/vm-run");

/// Mebibytes of the image, most of which are never written.
const SIZE: u32 = 2048;

/// The image of a release's root file system; made if it is not in the cache or has older
/// packages.
pub fn get(cache: &mut Cache, apt: &Apt, tools: &Tools, release: &Release) -> Result<PathBuf> {
    let mut versions = Vec::new();
    for package in PACKAGES {
        let fields = apt.show(package, None)?;
        let fields =
            fields.with_context(|| format!("{} has no package {package}", release.codename))?;
        versions.push(Package::new(&fields)?);
    }
    let recipe = format!("{versions:?} {MASKED:?} {SERVICE} {RUN} {SIZE}");
    let name = format!("roots/{}", release.codename);
    let directory = cache.get(&name, &recipe, |directory| {
        eprintln!(
            "vm: making a root file system of {}, of about 80 MB of packages",
            release.codename
        );
        build(apt, tools, release, directory)
    })?;
    Ok(image(&directory))
}

fn image(directory: &Path) -> PathBuf {
    directory.join("root.img")
}

fn build(apt: &Apt, tools: &Tools, release: &Release, directory: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let file = |name: &str, content: &str| -> Result<String> {
        let path = scratch.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    let service = file("vm.service", SERVICE)?;
    let run = file("vm-run", RUN)?;
    let units = "\"$1\"/etc/systemd/system";
    let masked = MASKED.map(|unit| format!("{units}/{unit}"));
    let masks = masked
        .map(|unit| format!("ln -sf /dev/null {unit}"))
        .join("; ");
    let hooks = [
        "rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*".to_owned(),
        format!("cp '{service}' {units}/vm.service"),
        format!("install -m 755 '{run}' \"$1\"/usr/local/sbin/vm-run"),
        format!("mkdir -p {units}/multi-user.target.wants"),
        format!("ln -s ../vm.service {units}/multi-user.target.wants/"),
        masks,
        "echo vm >\"$1\"/etc/hostname; echo 127.0.0.1 localhost vm >\"$1\"/etc/hosts".to_owned(),
        ": >\"$1\"/etc/fstab; : >\"$1\"/etc/machine-id".to_owned(),
    ];
    let tree = directory.join("tree");
    let mut command = tools.command_as_root("mmdebstrap")?;
    command
        .args(["--quiet", "--variant=minbase", "--mode=root"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args(
            ["man", "locale", "doc"]
                .map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")),
        )
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .args(
            apt::host_network()
                .lines()
                .map(|line| format!("--aptopt={line}")),
        )
        .args(hooks.map(|hook| format!("--customize-hook={hook}")))
        .arg(release.codename)
        .arg(&tree)
        .arg(apt.sources());
    let made = shell::run_quietly(&mut command).and_then(|()| {
        let mut command = tools.command_as_root("mke2fs")?;
        command
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
            .arg(&tree)
            .arg(image(directory))
            .arg(format!("{SIZE}M"));
        shell::run_quietly(&mut command)
    });
    shell::run_quietly(shell::as_root("rm").arg("-rf").arg(&tree))?;
    made
}
