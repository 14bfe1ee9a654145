//! The BPF file system, in which maps and links survive a crash.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use caps::{CapSet, Capability};
use nix::sys::statfs::{FsType, statfs};

use super::{Host, Report};
use crate::{datapath::xdp, privileges};

/// The place at which the system mounts it.
const MOUNT_POINT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`.
const MAGIC: FsType = FsType(0xcafe_4a11);
/// The permission to write for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of a file in the directory may remove it.
const STICKY: u32 = 0o1000;

/// The facts about the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Facts {
    /// It is not mounted.
    Missing {
        /// Whether this process may mount it.
        may_mount: bool,
    },
    /// It is mounted, with this owner and mode of its root.
    Mounted { owner: u32, mode: u32 },
}

/// Examines whether the pins are safe there.
pub fn examine(host: &Host<'_>, report: &mut Report) {
    let pins = host.config.fast_path().is_some_and(|wanted| wanted.pin);
    if !pins || privileges::has_descriptor_store() {
        return;
    }
    // A process without access finds nothing out.
    let Ok(facts) = read() else { return };
    match judge(facts) {
        Ok(()) => report.fine("bpffs", format!("{MOUNT_POINT} is root's")),
        Err((false, text)) => report.note("bpffs", text),
        // The text on what is planted says more.
        Err(_) if xdp::examine_pins(&host.config.node.name).is_err() => {}
        Err((true, text)) => report.degraded("bpffs", text),
    }
    if let Err(error) = xdp::examine_pins(&host.config.node.name) {
        report.degraded("bpffs", error.to_string());
    }
}

fn read() -> io::Result<Facts> {
    let path = Path::new(MOUNT_POINT);
    if !path.exists() || statfs(path)?.filesystem_type() != MAGIC {
        let may_mount = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN);
        return Ok(Facts::Missing {
            may_mount: may_mount.unwrap_or_default(),
        });
    }
    let metadata = fs::metadata(path)?;
    Ok(Facts::Mounted {
        owner: metadata.uid(),
        mode: metadata.permissions().mode(),
    })
}

/// Returns whether it is a defect, and a sentence.
fn judge(facts: Facts) -> Result<(), (bool, String)> {
    match facts {
        Facts::Missing { may_mount } => Err((
            !may_mount,
            format!(
                "no BPF file system is mounted, {}: `mount -t bpf -o mode=0700 bpf {MOUNT_POINT}`, or set \
                 xdp.pin = false",
                if may_mount {
                    "so the daemon mounts one"
                } else {
                    "and this process may not mount one (CAP_SYS_ADMIN)"
                }
            ),
        )),
        Facts::Mounted { owner: 0, mode } if mode & OTHERS_WRITE == 0 => Ok(()),
        Facts::Mounted { owner: 0, mode } if mode & STICKY != 0 => Err((
            false,
            format!(
                "every user may make files in {MOUNT_POINT}, and so take the place of the daemon's pins, \
                 which then has none: `chmod 0700 {MOUNT_POINT}`"
            ),
        )),
        Facts::Mounted { owner: 0, .. } => Err((
            true,
            format!(
                "every user may write in {MOUNT_POINT}, and so take or remove the daemon's pins, which \
                 has none there: `chmod 0700 {MOUNT_POINT}`"
            ),
        )),
        Facts::Mounted { owner, .. } => Err((
            true,
            format!(
                "{MOUNT_POINT} belongs to user {owner}, who may take or remove the daemon's pins: `chown \
                 root {MOUNT_POINT}`"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_must_be_roots() {
        assert_eq!(
            judge(Facts::Mounted {
                owner: 0,
                mode: 0o40700
            }),
            Ok(())
        );
        assert_eq!(
            judge(Facts::Mounted {
                owner: 0,
                mode: 0o40755
            }),
            Ok(())
        );
        for (facts, is_defect, remedy) in [
            (Facts::Missing { may_mount: true }, false, "mount -t bpf"),
            (Facts::Missing { may_mount: false }, true, "CAP_SYS_ADMIN"),
            (
                Facts::Mounted {
                    owner: 0,
                    mode: 0o41777,
                },
                false,
                "chmod 0700 /sys/fs/bpf",
            ),
            (
                Facts::Mounted {
                    owner: 0,
                    mode: 0o40777,
                },
                true,
                "chmod 0700 /sys/fs/bpf",
            ),
            (
                Facts::Mounted {
                    owner: 1000,
                    mode: 0o40700,
                },
                true,
                "chown root /sys/fs/bpf",
            ),
        ] {
            let (found, text) = judge(facts).unwrap_err();
            assert!(found == is_defect && text.contains(remedy), "{text}");
        }
    }
}
