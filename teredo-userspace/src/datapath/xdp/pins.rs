//! Maps and links in the BPF file system, in which they outlive the daemon.
//!
//! `/sys/fs/bpf/teredo/NAME/vABI/` holds the maps of peers and counters, and that of
//! the program for rare frames, by name, and a link per
//! interface as `link-INDEX`. While the daemon runs it holds a lock on `NAME`, which only its user can
//! open.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapInfo, MapType};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::{
        stat::{Mode, fchmod},
        statfs::statfs,
    },
};
use teredo_common::maps::{ABI_VERSION, COUNTERS, COUNTERS_MAX, Counter, Line, PEERS};

use super::{
    error::Error,
    link::Link,
    trust::{self, ROOT},
};

/// `BPF_FS_MAGIC` of the kernel.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const LINK: &str = "link-";
/// The pin of a new map before it replaces the old one.
const NEW: &str = "new";

/// The pin directory of one daemon.
#[derive(Debug)]
pub struct Pins {
    instance: PathBuf,
    directory: PathBuf,
    lock: Flock<OwnedFd>,
}

impl Pins {
    /// Opens the directory of the daemon called `name`; mounts the BPF file system and makes the
    /// directory if necessary. Maps of an earlier daemon are kept if this one can use them.
    ///
    /// # Errors
    ///
    /// [`Error::Running`], [`Error::Planted`], [`Error::Exposed`], [`Error::Permission`] or
    /// [`Error::Pin`].
    pub fn open(name: &str, lock_of_predecessor: Option<OwnedFd>) -> Result<Self, Error> {
        mount_bpf()?;
        let instance = instance_of(name);
        let opened = trust::make_directory(&instance)?;
        // Both have the lock of a predecessor then.
        let lock = lock(lock_of_predecessor.unwrap_or(opened), &instance, name)?;
        let directory = directory_of(name);
        trust::make_directory(&directory)?;
        for pin in entries(&directory)? {
            trust::examine_pin(&pin)?;
        }
        for other in entries(&instance)? {
            if other != directory {
                remove_directory(&other)?;
            }
        }
        let pins = Self {
            instance,
            directory,
            lock,
        };
        // Left by a crash in the middle of `keep`.
        remove_file(&pins.directory.join(NEW))?;
        for name in [PEERS, COUNTERS] {
            let path = pins.directory.join(name);
            if path.exists() && !is_usable(name, &path) {
                tracing::warn!("the map {name} of the last run has another shape and is replaced");
                remove_file(&path)?;
            }
        }
        Ok(pins)
    }

    /// Returns the lock.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Returns the path of the counters' pin, whether it exists or not.
    pub fn counters(&self) -> PathBuf {
        self.directory.join(COUNTERS)
    }

    /// Opens the table of peers that an earlier daemon left.
    pub fn peers(&self) -> Option<MapData> {
        MapData::from_pin(self.directory.join(PEERS)).ok()
    }

    /// Pins a map under this name, replacing that of an earlier daemon.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`].
    pub fn keep(&self, name: &str, map: &MapData) -> Result<(), Error> {
        let new = self.directory.join(NEW);
        map.pin(&new)
            .map_err(io::Error::other)
            .map_err(failed("pin", &new))?;
        let path = self.directory.join(name);
        fs::rename(&new, &path).map_err(failed("pin", &path))
    }

    /// Returns the path of the pin of the link to the interface with this index.
    pub fn link(&self, index: u32) -> PathBuf {
        self.directory.join(format!("{LINK}{index}"))
    }

    /// Removes the links of interfaces that are not among `indices`, which detaches the program
    /// from them.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`].
    pub fn retain_links(&self, indices: &[u32]) -> Result<(), Error> {
        for path in entries(&self.directory)? {
            let kept = indices.iter().any(|&index| self.link(index) == path);
            if is_link(&path) && !kept {
                remove_link(&path)?;
            }
        }
        Ok(())
    }

    /// Removes all pins, which detaches the program unless another process holds a link.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`].
    pub fn remove(self) -> Result<(), Error> {
        remove_instance(&self.instance)
    }
}

/// Returns the number of the program that the pinned link of a daemon called `name` attaches to the
/// interface with this index, whether that daemon runs or not.
#[must_use]
pub fn pinned_program(name: &str, index: u32) -> Option<u32> {
    let directory = directory_of(name);
    trust::open_directory(&directory).ok()?;
    let path = directory.join(format!("{LINK}{index}"));
    trust::examine_pin(&path).ok()?;
    Some(Link::open(&path).ok()?.info().ok()?.program)
}

/// Returns the directory of a daemon called `name`.
fn instance_of(name: &str) -> PathBuf {
    Path::new(ROOT).join("teredo").join(name)
}

/// Returns the directory of the pins of a daemon called `name`.
fn directory_of(name: &str) -> PathBuf {
    instance_of(name).join(format!("v{ABI_VERSION}"))
}

/// Examines whether a daemon called `name` could keep pins, as far as that can be seen.
///
/// # Errors
///
/// [`Error::Planted`] or [`Error::Exposed`].
pub fn examine(name: &str) -> Result<(), Error> {
    let directory = directory_of(name);
    let examined = trust::open_directory(&directory).and_then(|_| {
        let pins = entries(&directory)?;
        pins.iter().try_for_each(|pin| trust::examine_pin(pin))
    });
    match examined {
        Err(error @ (Error::Planted { .. } | Error::Exposed { .. })) => Err(error),
        _ => Ok(()),
    }
}

/// Removes the pins that a daemon called `name` left when it crashed, and detaches its program. What
/// other users put there stays.
///
/// # Errors
///
/// [`Error::Running`] if that daemon is running, unless this is its lock, or [`Error::Pin`].
pub fn remove_leftovers(name: &str, lock_of_predecessor: Option<OwnedFd>) -> Result<(), Error> {
    let instance = instance_of(name);
    if !instance.exists() {
        return Ok(());
    }
    let directory = match trust::open_directory(&instance) {
        Err(error @ (Error::Planted { .. } | Error::Exposed { .. })) => {
            tracing::debug!("{error}");
            return Ok(());
        }
        opened => opened?,
    };
    let _lock = lock(lock_of_predecessor.unwrap_or(directory), &instance, name)?;
    remove_instance(&instance)
}

fn remove_instance(instance: &Path) -> Result<(), Error> {
    remove_directory(instance)?;
    // The parent may hold the directories of other daemons.
    if let Some(parent) = instance.parent() {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

/// Mounts the BPF file system unless it is mounted.
///
/// # Errors
///
/// [`Error::Permission`] or [`Error::Pin`].
pub fn mount_bpf() -> Result<(), Error> {
    let root = Path::new(ROOT);
    let status = statfs(root).map_err(|error| failed("find", root)(error.into()))?;
    if status.filesystem_type().0 as i64 == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(
        Some("bpf"),
        root,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=700"),
    )
    .map_err(|error| failed("mount the BPF file system on", root)(error.into()))
}

fn lock(directory: OwnedFd, instance: &Path, name: &str) -> Result<Flock<OwnedFd>, Error> {
    // Earlier versions let others open it.
    fchmod(&directory, Mode::S_IRWXU).map_err(|error| failed("protect", instance)(error.into()))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => Error::Running {
            name: name.to_owned(),
        },
        error => failed("lock", instance)(error.into()),
    })
}

/// Type, octets of the key and octets of the value of a map of peers.
const PEER_MAP: (Option<MapType>, u32, u32) = (Some(MapType::Array), 4, size_of::<Line>() as u32);

/// Returns whether the map has the shape of a map of peers.
pub(super) fn is_peer_map(map: &MapData) -> bool {
    map.info().is_ok_and(|info| {
        let shape = (info.map_type().ok(), info.key_size(), info.value_size());
        shape == PEER_MAP
    })
}

/// Returns whether the pinned map has the shape that this daemon expects. The number of peers may
/// differ, since the table is copied.
fn is_usable(name: &str, path: &Path) -> bool {
    let Ok(info) = MapInfo::from_pin(path) else {
        return false;
    };
    let shape = (info.map_type().ok(), info.key_size(), info.value_size());
    match name {
        PEERS => shape == PEER_MAP,
        _ => {
            let counters = (Some(MapType::PerCpuArray), 4, size_of::<Counter>() as u32);
            shape == counters && info.max_entries() == COUNTERS_MAX
        }
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = fs::read_dir(directory).map_err(failed("read the directory", directory))?;
    Ok(list
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect())
}

/// Removes a directory of pins with its contents.
fn remove_directory(directory: &Path) -> Result<(), Error> {
    for path in entries(directory)? {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            remove_directory(&path)?;
        } else if is_link(&path) {
            remove_link(&path)?;
        } else {
            remove_file(&path)?;
        }
    }
    fs::remove_dir(directory).map_err(failed("remove", directory))
}

fn is_link(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(LINK))
}

/// Detaches a pinned link and removes the pin.
///
/// # Errors
///
/// [`Error::Pin`].
pub fn remove_link(path: &Path) -> Result<(), Error> {
    // A link whose interface is gone is already detached, so a failure leaves only the pin.
    let _ = Link::open(path).and_then(|link| link.detach());
    remove_file(path)
}

/// Removes a pin. An absent pin is no error.
fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Returns a function that turns the kernel's answer into an error.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Permission {
            action: format!("to {action} {}", path.display()),
        },
        _ => Error::Pin {
            action,
            path: path.to_owned(),
            source,
        },
    }
}
