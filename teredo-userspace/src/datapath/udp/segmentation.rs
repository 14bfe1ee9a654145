//! Whether the kernel splits messages into datagrams.
//!
//! One message with many datagrams for one peer costs about half of what the datagrams cost one by one.
//! But Linux from 7.0 to 7.1-rc4 sends datagrams with wrong UDP headers and checksums, on many drivers, if
//! all of a message have the same length (introduced by commit b10b446, mended by 78effd8 and 5f17ae0).
//! Nothing that a process can see tells, so the release decides.

use std::{
    fmt, fs,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

/// `node.udp-segmentation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Segmentation {
    /// Unless this kernel is known to do it wrong.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Whether sockets that this process opens from now on let the kernel split messages.
static IS_ON: AtomicBool = AtomicBool::new(true);

impl Segmentation {
    /// Applies the choice to the sockets that this process opens from now on.
    pub fn apply(self) {
        let release = release();
        let is_on = self.resolve(&release);
        IS_ON.store(is_on, Ordering::Relaxed);
        if self == Self::Auto && !is_on {
            tracing::info!(
                "each datagram is sent by itself, since Linux {release} may send several at once with \
                 wrong headers; set node.udp-segmentation to \"on\" if it is mended"
            );
        }
    }

    /// Returns the choice for a kernel of this release.
    fn resolve(self, release: &str) -> bool {
        match self {
            Self::Auto => !is_broken(release),
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl fmt::Display for Segmentation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// Returns whether the running kernel is one that splits messages wrongly.
#[must_use]
pub fn is_broken_here() -> bool {
    is_broken(&release())
}

/// Returns whether the kernel is to split messages: those of new sockets, and datagrams that are written
/// together to a TUN interface.
pub(in crate::datapath) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Returns the kernel's release; empty if it is not known.
fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Whether a kernel of this release, such as `7.1.0-rc2`, splits messages wrongly. Distributions may
/// have mended some of them; the setting is for those.
fn is_broken(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    match (next(), next()) {
        (Some(7), Some(0)) => true,
        (Some(7), Some(1)) => candidate(release).is_some_and(|candidate| candidate <= 4),
        _ => false,
    }
}

/// Returns the number of a release candidate.
fn candidate(release: &str) -> Option<u32> {
    let (_, rest) = release.split_once("-rc")?;
    let number = rest.split(|character: char| !character.is_ascii_digit());
    number.into_iter().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_from_7_0_to_7_1_rc4_are_broken() {
        for release in [
            "7.0.0",
            "7.0.0-rc1",
            "7.0.0-14-generic",
            "7.0.2-6-pve",
            "7.1.0-rc1",
            "7.1.0-rc4-next-20260520",
            "7.1-rc4",
        ] {
            assert!(is_broken(release), "{release}");
            assert!(!Segmentation::Auto.resolve(release), "{release}");
            assert!(Segmentation::On.resolve(release), "{release}");
        }
        for release in [
            "",
            "next",
            "6.18.44",
            "6.19.7-arch1-1",
            "7.1.0-rc5",
            "7.1.0-rc12",
            "7.1.0",
            "7.1.5-200.fc44",
            "7.2.0-rc1",
            "7.10.0-rc1",
            "17.0.0",
        ] {
            assert!(!is_broken(release), "{release}");
            assert!(Segmentation::Auto.resolve(release), "{release}");
            assert!(!Segmentation::Off.resolve(release), "{release}");
        }
    }
}
