//! Debian's suites and architectures, and this host among them.

use std::{env::consts::ARCH, fs, process::Command};

use anyhow::{Context as _, Result};

use crate::shell;

/// A release with the suites that belong to it.
#[derive(Debug, Eq, PartialEq)]
pub struct Release {
    /// Its name in apt's sources.
    pub codename: &'static str,
    /// The version of its C library.
    glibc: (u32, u32),
    /// The suites of the archive, without that of security updates.
    pub suites: &'static [&'static str],
    /// The suite of security updates.
    pub security: Option<&'static str>,
}

/// The releases, from the oldest on.
pub const RELEASES: &[Release] = &[
    Release {
        codename: "bullseye",
        glibc: (2, 31),
        suites: &["bullseye"],
        security: Some("bullseye-security"),
    },
    Release {
        codename: "bookworm",
        glibc: (2, 36),
        suites: &["bookworm", "bookworm-updates", "bookworm-backports"],
        security: Some("bookworm-security"),
    },
    Release {
        codename: "trixie",
        glibc: (2, 41),
        suites: &["trixie", "trixie-updates", "trixie-backports"],
        security: Some("trixie-security"),
    },
    Release {
        codename: "sid",
        glibc: (u32::MAX, 0),
        suites: &["sid"],
        security: None,
    },
];

/// The release of this codename.
pub fn release(codename: &str) -> Result<&'static Release> {
    let find = |release: &&Release| release.codename == codename;
    RELEASES.iter().find(find).with_context(|| {
        let names = RELEASES.iter().map(|release| release.codename);
        let names = names.collect::<Vec<_>>().join(", ");
        format!("vm: {codename} is not a known suite of Debian; known are {names}")
    })
}

/// A machine that can be emulated.
#[derive(Debug)]
pub struct Architecture {
    /// As Rust calls it.
    name: &'static str,
    /// The package that depends on the newest kernel for virtual machines.
    pub kernel: &'static str,
    /// The emulator.
    pub qemu: &'static str,
    /// The emulator's package.
    pub qemu_package: &'static str,
    /// The emulator's machine.
    pub machine: &'static str,
    /// The kernel's name of the serial console.
    pub console: &'static str,
    /// Of these CPU flags one is needed for KVM with kernels that do not know KVM of; empty if
    /// there are no such flags.
    pub virtualization: &'static [&'static str],
}

const ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "x86_64",
    kernel: "linux-image-cloud-amd64",
    qemu: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    machine: "pc",
    console: "ttyS0",
    virtualization: &["vmx", "svm"],
}];

impl Architecture {
    /// This host's.
    pub fn host() -> Result<&'static Self> {
        let mut architectures = ARCHITECTURES.iter();
        architectures
            .find(|architecture| architecture.name == ARCH)
            .with_context(|| {
                format!("vm: there are no virtual machines for {ARCH} yet, only for x86_64")
            })
    }

    /// Whether KVM works here with any kernel: the device can be opened, and the CPU has what KVM
    /// is made for. There are hosts whose device wants kernels that were built for it.
    pub fn has_kvm(&self) -> bool {
        let device = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has_flag = |flag: &&str| {
            text.lines()
                .filter(|line| line.starts_with("flags"))
                .any(|line| line.split_whitespace().any(|word| word == *flag))
        };
        device.is_ok()
            && (self.virtualization.is_empty() || self.virtualization.iter().any(has_flag))
    }
}

/// The codename of this host's release; nothing where the host is not Debian.
pub fn host_codename() -> Option<String> {
    parse_codename(&fs::read_to_string("/etc/os-release").ok()?)
}

fn parse_codename(text: &str) -> Option<String> {
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches('"').to_owned())
    };
    if value("ID")? != "debian" {
        return None;
    }
    value("VERSION_CODENAME")
}

/// The release whose programs this host's binaries run beside: its own, or the oldest one with a C
/// library that is not older.
pub fn matching_release() -> Result<&'static Release> {
    let text = shell::output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let glibc = text.as_deref().and_then(parse_glibc);
    let glibc = glibc.context("vm: getconf does not tell the version of the GNU C library")?;
    Ok(choose_release(host_codename().as_deref(), glibc))
}

fn parse_glibc(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

fn choose_release(codename: Option<&str>, glibc: (u32, u32)) -> &'static Release {
    // The first release has a systemd too old for the tests.
    let releases = &RELEASES[1..];
    releases
        .iter()
        .find(|release| Some(release.codename) == codename)
        .or_else(|| releases.iter().find(|release| release.glibc >= glibc))
        .unwrap_or(&releases[releases.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_codename_of_debian_only() {
        let debian = "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_CODENAME=trixie\n";
        assert_eq!(parse_codename(debian).as_deref(), Some("trixie"));
        assert_eq!(parse_codename("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(parse_codename("ID=debian\n"), None);
    }

    #[test]
    fn chooses_a_release_that_runs_binaries_of_this_host() {
        assert_eq!(parse_glibc("glibc 2.36\n"), Some((2, 36)));
        assert_eq!(parse_glibc("glibc"), None);
        let choose = |codename, glibc| choose_release(codename, glibc).codename;
        assert_eq!(choose(Some("bookworm"), (2, 36)), "bookworm");
        assert_eq!(choose(Some("bullseye"), (2, 31)), "bookworm");
        assert_eq!(choose(None, (2, 39)), "trixie");
        assert_eq!(choose(Some("forky"), (2, 42)), "sid");
    }
}
