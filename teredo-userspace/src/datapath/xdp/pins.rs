//! Maps and links in the BPF file system, where they outlive the daemon.
//!
//! `/sys/fs/bpf/teredo/NAME/vABI/` holds the maps of peers and counters by name, and a link per
//! interface as `link-INDEX`. While the daemon runs it holds a lock on `NAME`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::maps::{MapInfo, MapType};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::statfs,
};
use teredo_common::maps::{ABI_VERSION, COUNTERS, COUNTERS_MAX, Counter, PEERS, Peer};

use super::{error::Error, sys};

/// Where the BPF file system is by convention.
const ROOT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of the kernel.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const LINK: &str = "link-";

/// The maps that outlive the daemon. The others are made anew and filled before they are used.
pub const PINNED: [&str; 2] = [PEERS, COUNTERS];

/// The pin directory of one daemon.
#[derive(Debug)]
pub struct Pins {
    instance: PathBuf,
    maps: [(&'static str, PathBuf); 2],
    directory: PathBuf,
    adopted: bool,
    _lock: Flock<File>,
}

impl Pins {
    /// Opens the directory of the daemon called `name`, mounting the BPF file system and making the
    /// directory if they are not there. What an earlier daemon left is kept if this one can use it.
    ///
    /// # Errors
    ///
    /// [`Error::Running`], [`Error::Permission`] or [`Error::Pin`].
    pub fn open(name: &str, max_peers: u32) -> Result<Self, Error> {
        mount_bpf()?;
        let instance = Path::new(ROOT).join("teredo").join(name);
        let directory = instance.join(format!("v{ABI_VERSION}"));
        fs::create_dir_all(&directory).map_err(failed("make the directory", &directory))?;
        let lock = lock(&instance, name)?;
        for other in entries(&instance)? {
            if other != directory {
                remove_directory(&other)?;
            }
        }
        let maps = PINNED.map(|name| (name, directory.join(name)));
        let mut adopted = true;
        for (name, path) in &maps {
            adopted &= is_usable(name, path, max_peers)?;
        }
        if !adopted {
            for (_, path) in &maps {
                remove_file(path)?;
            }
        }
        Ok(Self {
            instance,
            maps,
            directory,
            adopted,
            _lock: lock,
        })
    }

    /// Whether the maps of an earlier daemon are taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Names and files of the pinned maps.
    pub fn maps(&self) -> [(&'static str, &Path); 2] {
        [0, 1].map(|index| {
            let (name, path) = &self.maps[index];
            (*name, path.as_path())
        })
    }

    /// The file of the link to the interface with this index.
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

    /// Removes everything: the program is detached unless somebody else holds a link.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`].
    pub fn remove(self) -> Result<(), Error> {
        remove_instance(&self.instance)
    }
}

/// Removes what a daemon called `name` left behind when it crashed; detaches its program.
///
/// # Errors
///
/// [`Error::Running`] if it has not crashed, or [`Error::Pin`].
pub fn remove_leftovers(name: &str) -> Result<(), Error> {
    let instance = Path::new(ROOT).join("teredo").join(name);
    if !instance.exists() {
        return Ok(());
    }
    let _lock = lock(&instance, name)?;
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
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => Error::Running {
            name: name.to_owned(),
        },
        error => failed("lock", instance)(error.into()),
    })
}

/// Whether the pinned map is there and of the shape that this daemon wants.
fn is_usable(name: &str, path: &Path, max_peers: u32) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    let wanted = match name {
        PEERS => (MapType::Hash, 16, size_of::<Peer>(), max_peers),
        COUNTERS => (MapType::PerCpuArray, 4, size_of::<Counter>(), COUNTERS_MAX),
        _ => return Ok(false),
    };
    let found = MapInfo::from_pin(path).ok().and_then(|info| {
        let kind = info.map_type().ok()?;
        Some((
            kind,
            info.key_size(),
            info.value_size() as usize,
            info.max_entries(),
        ))
    });
    let usable = found == Some(wanted);
    if !usable {
        tracing::warn!(
            map = name,
            "the map of the last run has another size and is replaced; its peers become known again with their next packets"
        );
    }
    Ok(usable)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = fs::read_dir(directory).map_err(failed("read the directory", directory))?;
    Ok(list
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect())
}

/// Removes a directory of pins with all that is in it.
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
    // A link whose interface is gone is detached already; then only the pin is left.
    let _ = sys::detach_link(path);
    remove_file(path)
}

/// Removes a pin; no error if it is not there.
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
