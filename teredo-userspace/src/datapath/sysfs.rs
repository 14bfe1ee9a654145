//! The files of interfaces in sysfs.
//!
//! A process in a network namespace may see the sysfs of another one. Then that of its own is mounted,
//! in no directory, so that only the process sees it.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::OnceLock,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The directory of virtual interfaces, below sysfs.
const VIRTUAL: &str = "devices/virtual/net";
const MOUNTED: &str = "/sys/devices/virtual/net";

static PREPARED: OnceLock<OwnedFd> = OnceLock::new();

/// Opens the directory of virtual interfaces of this network namespace, for a process that is about to
/// lose the right to.
pub fn prepare() {
    match mount() {
        Ok(directory) => {
            let _ = PREPARED.set(directory);
        }
        Err(error) => tracing::debug!("sysfs cannot be mounted: {error}"),
    }
}

/// Returns the directory that was opened by [`prepare`].
pub fn prepared() -> Option<BorrowedFd<'static>> {
    PREPARED.get().map(OwnedFd::as_fd)
}

/// Writes to a file of the virtual interface with this name and index.
///
/// # Errors
///
/// When the file does not exist, or only the sysfs of another namespace is within reach.
pub fn write(interface: &str, index: u32, file: &str, value: &str) -> io::Result<()> {
    let mut opened = File::from(open_of(interface, index, file, OFlag::O_WRONLY)?);
    opened.write_all(value.as_bytes())
}

/// Returns whether the virtual interface with this name and index has a file, as far as its sysfs is within reach.
#[must_use]
pub fn has(interface: &str, index: u32, file: &str) -> bool {
    open_of(interface, index, file, OFlag::O_PATH).is_ok()
}

/// Opens a file of the virtual interface with this name and index.
fn open_of(interface: &str, index: u32, file: &str, how: OFlag) -> io::Result<OwnedFd> {
    let mounted = File::open(MOUNTED)?;
    if shows(mounted.as_fd(), interface, index) {
        return open(mounted.as_fd(), interface, file, how);
    }
    let own;
    let directory = match prepared() {
        Some(directory) => directory,
        None => {
            own = mount()?;
            own.as_fd()
        }
    };
    if !shows(directory, interface, index) {
        return Err(io::ErrorKind::NotFound.into());
    }
    open(directory, interface, file, how)
}

/// Mounts the sysfs of this network namespace, which takes `CAP_SYS_ADMIN`.
fn mount() -> io::Result<OwnedFd> {
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(&root, VIRTUAL, flags, Mode::empty())?)
}

/// Returns whether the directory has an interface of this name and index.
fn shows(directory: BorrowedFd<'_>, interface: &str, index: u32) -> bool {
    let mut text = String::new();
    let read = open(directory, interface, "ifindex", OFlag::O_RDONLY)
        .and_then(|file| File::from(file).read_to_string(&mut text));
    read.is_ok() && text.trim() == index.to_string()
}

fn open(directory: BorrowedFd<'_>, interface: &str, file: &str, how: OFlag) -> io::Result<OwnedFd> {
    let path = Path::new(interface).join(file);
    Ok(openat(
        directory,
        &path,
        how | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}
