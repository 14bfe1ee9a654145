//! The trust in what is in the BPF file system.
//!
//! By default every user may make files and directories in its root. The daemon uses none that another
//! user made, or could have changed.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat},
    unistd::{Uid, User},
};

use super::{error::Error, pins::failed};

/// The conventional mount point of the BPF file system.
pub const ROOT: &str = "/sys/fs/bpf";
/// The mode of directories of pins: others cannot even open them, to take a lock.
const MODE: Mode = Mode::S_IRWXU;
/// The permission to write for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Only the owner of a file in the directory may remove it.
const STICKY: u32 = 0o1000;
/// The attempts to make a directory while other daemons remove an empty one above it.
const ATTEMPTS: u32 = 100;

/// Opens a directory below the BPF file system's root.
///
/// # Errors
///
/// [`Error::Planted`] or [`Error::Exposed`] if others made or could change a part of the path, and
/// [`Error::Permission`] or [`Error::Pin`].
pub fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    walk(path, |_, _| Ok(()))
}

/// Makes a directory below the BPF file system's root, with those above it, and opens it.
///
/// # Errors
///
/// As [`open_directory`].
pub fn make_directory(path: &Path) -> Result<OwnedFd, Error> {
    let make = |parent: &OwnedFd, name: &Path| match mkdirat(parent, name, MODE) {
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    };
    let mut attempts = 1;
    loop {
        match walk(path, make) {
            Err(Error::Pin { source, .. })
                if source.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS =>
            {
                attempts += 1;
            }
            opened => return opened,
        }
    }
}

/// Examines a pinned map or link.
///
/// # Errors
///
/// As [`open_directory`].
pub fn examine_pin(path: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(path).map_err(failed("examine", path))?;
    examine_owner(path, metadata.uid())?;
    if metadata.is_file() {
        Ok(())
    } else {
        Err(failed("use", path)(io::ErrorKind::InvalidInput.into()))
    }
}

/// Opens one part of the path after the other, so that none can be exchanged between examination and use.
fn walk(
    path: &Path,
    prepare: impl Fn(&OwnedFd, &Path) -> nix::Result<()>,
) -> Result<OwnedFd, Error> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut reached = PathBuf::from(ROOT);
    let refused = |action, path: &Path, error: Errno| failed(action, path)(error.into());
    let mut directory =
        open(&reached, flags, Mode::empty()).map_err(|error| refused("open", &reached, error))?;
    examine_directory(&reached, &directory, STICKY)?;
    for part in path.strip_prefix(ROOT).unwrap_or(path) {
        let part = Path::new(part);
        reached.push(part);
        prepare(&directory, part).map_err(|error| refused("make", &reached, error))?;
        directory = openat(&directory, part, flags, Mode::empty())
            .map_err(|error| refused("open", &reached, error))?;
        examine_directory(&reached, &directory, 0)?;
    }
    // The other descriptors only stand for their places.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(&directory, ".", flags, Mode::empty()).map_err(|error| refused("open", path, error))
}

/// Examines owner and mode. Others may write in a directory that has all bits of `protection`, unless
/// there are none.
fn examine_directory(path: &Path, directory: &OwnedFd, protection: u32) -> Result<(), Error> {
    let status = fstat(directory).map_err(|error| failed("examine", path)(error.into()))?;
    examine_owner(path, status.st_uid)?;
    if !is_directory(&status) {
        return Err(failed("open", path)(Errno::ENOTDIR.into()));
    }
    let is_protected = protection != 0 && status.st_mode & protection == protection;
    if status.st_mode & OTHERS_WRITE != 0 && !is_protected {
        return Err(Error::Exposed {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn examine_owner(path: &Path, owner: u32) -> Result<(), Error> {
    let owner = Uid::from_raw(owner);
    if owner.is_root() || owner == Uid::effective() {
        return Ok(());
    }
    let name = User::from_uid(owner).ok().flatten();
    Err(Error::Planted {
        path: path.to_owned(),
        owner: name.map_or_else(|| owner.to_string(), |user| user.name),
    })
}

fn is_directory(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}
