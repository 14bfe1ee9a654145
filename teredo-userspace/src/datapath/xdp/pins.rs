//! Maps and links in the BPF file system, in which they outlive the daemon.
//!
//! `/sys/fs/bpf/teredo/NAME/vABI/` holds the maps of peers and counters, and that of
//! the program for rare frames, by name, and a link per
//! interface as `link-INDEX`. While the daemon runs it holds a lock on `NAME`.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapInfo, MapType};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::statfs,
};
use teredo_common::maps::{ABI_VERSION, COUNTERS, COUNTERS_MAX, Counter, Line, PEERS};

use super::{error::Error, link::Link};

/// The conventional mount point of the BPF file system.
const ROOT: &str = "/sys/fs/bpf";
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
    lock: Flock<File>,
}

impl Pins {
    /// Opens the directory of the daemon called `name`; mounts the BPF file system and makes the
    /// directory if necessary. Maps of an earlier daemon are kept if this one can use them.
    ///
    /// # Errors
    ///
    /// [`Error::Running`], [`Error::Permission`] or [`Error::Pin`].
    pub fn open(name: &str, lock_of_predecessor: Option<OwnedFd>) -> Result<Self, Error> {
        mount_bpf()?;
        let instance = Path::new(ROOT).join("teredo").join(name);
        let directory = instance.join(format!("v{ABI_VERSION}"));
        fs::create_dir_all(&directory).map_err(failed("make the directory", &directory))?;
        let lock = match lock_of_predecessor {
            // Both have the lock then.
            Some(file) => take(file.into(), &instance, name)?,
            None => lock(&instance, name)?,
        };
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
    let path = directory_of(name).join(format!("{LINK}{index}"));
    Some(Link::open(&path).ok()?.info().ok()?.program)
}

/// Returns the directory of the pins of a daemon called `name`.
fn directory_of(name: &str) -> PathBuf {
    let instance = Path::new(ROOT).join("teredo").join(name);
    instance.join(format!("v{ABI_VERSION}"))
}

/// Removes the pins that a daemon called `name` left when it crashed, and detaches its program.
///
/// # Errors
///
/// [`Error::Running`] if that daemon is running, unless this is its lock, or [`Error::Pin`].
pub fn remove_leftovers(name: &str, lock_of_predecessor: Option<OwnedFd>) -> Result<(), Error> {
    let instance = Path::new(ROOT).join("teredo").join(name);
    if !instance.exists() {
        return Ok(());
    }
    let _lock = match lock_of_predecessor {
        Some(file) => take(file.into(), &instance, name)?,
        None => lock(&instance, name)?,
    };
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

fn mount_bpf() -> Result<(), Error> {
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

fn lock(instance: &Path, name: &str) -> Result<Flock<File>, Error> {
    let directory = File::open(instance).map_err(failed("open", instance))?;
    take(directory, instance, name)
}

fn take(directory: File, instance: &Path, name: &str) -> Result<Flock<File>, Error> {
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
        if path.is_dir() {
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
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
