//! The listening sockets of the API.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    mem,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, lchown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg},
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as listen_on, socket,
        },
        stat::{Mode, fchmod, umask},
    },
    unistd::{AccessFlags, faccessat},
};
use thiserror::Error;

use crate::{
    config::ApiAddress,
    handover::{Inheritance, descriptors},
    privileges::Owner,
};

/// The mode of the unix socket: its user and group may use it.
const SOCKET_MODE: u32 = 0o660;
/// The mask under which the socket is bound, so that it gets this mode at once.
const SOCKET_MASK: u32 = 0o007;
/// The mode of the directory that is made for the socket.
const DIRECTORY_MODE: u32 = 0o755;
/// The permission to write for group and others.
const OTHERS_WRITE: u32 = 0o022;
/// The pause between two attempts to take the lock of a directory.
const PAUSE: Duration = Duration::from_millis(2);
/// The attempts to bind a socket while other daemons start and stop in the same directory.
const ATTEMPTS: u32 = 100;

/// The reason why the API cannot listen. Each is a sentence for the user, with the remedy.
#[derive(Debug, Error)]
pub enum Error {
    /// Another daemon listens on the path.
    #[error(
        "already running: another daemon answers on unix:{}; stop it, or give this instance \
         another node.name or node.api", .0.display()
    )]
    AlreadyRunning(PathBuf),
    /// The path is a file that is not a socket.
    #[error("{} exists and is not a socket; remove it, or set another node.api", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refuses.
    #[error("the API cannot listen on {address}: {source}; set another node.api")]
    Refused {
        /// Address of the API.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// A listening socket that does not block.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

/// Listening sockets with their files.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: Vec<Listener>,
    files: Vec<SocketFile>,
    /// Those of sockets of an earlier process at other addresses.
    former: Vec<SocketFile>,
}

impl Listeners {
    /// Returns the sockets, and their files, which are removed when dropped.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Listener>, Vec<SocketFile>) {
        (self.sockets, self.files)
    }

    /// Goes on with the socket of an earlier process. Returns whether that still has its address.
    fn inherit(&mut self, address: &ApiAddress, descriptor: OwnedFd) -> bool {
        match address {
            ApiAddress::Unix(path) => {
                let Some(file) = SocketFile::inherited(path) else {
                    return false;
                };
                self.sockets.push(Listener::Unix(descriptor.into()));
                self.files.push(file);
            }
            ApiAddress::Tcp(_) => self.sockets.push(Listener::Tcp(descriptor.into())),
        }
        true
    }

    /// Takes the files of the sockets, which are this process's now and are removed when dropped. Those at other
    /// addresses are removed at once.
    #[must_use]
    pub fn take_files(&mut self) -> Vec<SocketFile> {
        for file in self.files.iter_mut().chain(&mut self.former) {
            file.is_ours = true;
        }
        self.former.clear();
        mem::take(&mut self.files)
    }

    /// Returns copies of the sockets' descriptors for the next process, each with its name.
    ///
    /// # Errors
    ///
    /// When too many files are open.
    pub fn copies(&self, addresses: &[ApiAddress]) -> io::Result<Vec<(String, OwnedFd)>> {
        let sockets = self.sockets.iter().zip(addresses);
        let copies = sockets.map(|(socket, address)| {
            let descriptor = match socket {
                Listener::Unix(socket) => socket.as_fd(),
                Listener::Tcp(socket) => socket.as_fd(),
            };
            let kind = descriptors::listener_kind(address);
            let (name, _) = descriptors::named(&kind, &descriptor).ok_or(ErrorKind::NotFound)?;
            Ok((name, descriptor.try_clone_to_owned()?))
        });
        copies.collect()
    }
}

/// Listens on all addresses, or fails and listens on none.
///
/// Sockets that an earlier process has left open are used, those that a dead daemon left are replaced. If root calls this for a daemon that will run as
/// another user, `owner`, the sockets are that user's, also in a directory where only root may write.
/// There must not be a second thread then.
///
/// # Errors
///
/// When an address is taken or not allowed.
pub fn listen(
    addresses: &[ApiAddress],
    owner: Option<Owner>,
    left: &mut Inheritance,
) -> Result<Listeners, Error> {
    let mut listeners = Listeners::default();
    for address in addresses {
        if let Some(descriptor) = left.take_listener(address)
            && listeners.inherit(address, descriptor)
        {
            continue;
        }
        match address {
            ApiAddress::Unix(path) => {
                let (socket, file) = listen_unix(path, owner)?;
                listeners.sockets.push(Listener::Unix(socket));
                listeners.files.push(file);
            }
            ApiAddress::Tcp(socket) => {
                let socket = bind_tcp(*socket).map_err(|source| Error::Refused {
                    address: address.to_string(),
                    source,
                })?;
                listeners.sockets.push(Listener::Tcp(socket));
            }
        }
    }
    let former = left.left_sockets();
    listeners.former = former
        .filter_map(|path| SocketFile::inherited(&path))
        .collect();
    Ok(listeners)
}

/// The state of a path that a unix socket may be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// The path is free.
    Nothing,
    /// The path is the socket of a dead daemon.
    DeadSocket,
}

/// Examines whether a unix socket may be bound to `path`, for `owner` as in [`listen`]. Changes nothing.
///
/// # Errors
///
/// The error that [`listen`] would return.
pub fn examine(path: &Path, owner: Option<Owner>) -> Result<Leftover, Error> {
    let leftover = examine_file(path)?;
    may_bind(path, owner).map_err(|source| refused(path, source))?;
    Ok(leftover)
}

fn examine_file(path: &Path) -> Result<Leftover, Error> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(Leftover::Nothing);
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Leftover::DeadSocket),
        // Another daemon stopped at this moment.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Leftover::Nothing),
        // A full queue or another user's socket: the daemon is alive.
        _ => Err(Error::AlreadyRunning(path.to_owned())),
    }
}

/// Examines whether there is, or can be made, a directory to bind in.
fn may_bind(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    match fs::metadata(directory) {
        Ok(metadata) if owner.is_some_and(|owner| !may_have_sockets(&metadata, owner)) => {
            Err(ErrorKind::PermissionDenied.into())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match directory.parent() {
            Some(parent) => may_write(parent),
            None => Err(error),
        },
        Err(error) => Err(error),
        Ok(_) => may_write(directory),
    }
}

fn may_write(directory: &Path) -> io::Result<()> {
    let mode = AccessFlags::W_OK | AccessFlags::X_OK;
    Ok(faccessat(AT_FDCWD, directory, mode, AtFlags::AT_EACCESS)?)
}

/// Returns whether sockets of a user can be bound in a directory: by that user, or by root.
fn may_have_sockets(directory: &Metadata, owner: Owner) -> bool {
    let mode = directory.mode();
    let is_writable = (directory.uid() == owner.uid.as_raw() && mode & 0o200 != 0)
        || (directory.gid() == owner.gid.as_raw() && mode & 0o020 != 0)
        || mode & 0o002 != 0;
    is_writable || is_roots_alone(directory)
}

/// Returns whether only root can replace files in a directory.
fn is_roots_alone(directory: &Metadata) -> bool {
    directory.uid() == 0 && directory.mode() & OTHERS_WRITE == 0
}

fn refused(path: &Path, source: io::Error) -> Error {
    Error::Refused {
        address: format!("unix:{}", path.display()),
        source,
    }
}

/// Binds and listens, however many daemons start and stop in the same directory.
fn listen_unix(path: &Path, owner: Option<Owner>) -> Result<(UnixListener, SocketFile), Error> {
    let refused = |source| refused(path, source);
    let mut directory = None;
    for _ in 0..ATTEMPTS {
        if let Some(parent) = path.parent()
            && make_directory(parent, owner).map_err(refused)?
        {
            directory = Some(parent.to_owned());
        }
        // A daemon that replaces a dead socket and one that binds must not meet.
        let _turn = path.parent().and_then(lock);
        match bind_for(path, owner) {
            Ok((socket, identity)) => {
                let file = SocketFile {
                    is_ours: true,
                    path: path.to_owned(),
                    identity,
                    directory,
                };
                return Ok((socket, file));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => clear(path)?,
            // The directory was another daemon's, which has stopped.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                if let Some(directory) = directory {
                    // It stays if it has files of others.
                    let _ = fs::remove_dir(directory);
                }
                return Err(refused(error));
            }
        }
    }
    Err(refused(ErrorKind::ResourceBusy.into()))
}

/// Takes the lock of a directory until the value is dropped. It keeps daemons apart that start at the
/// same moment, and is no defence: every process that can read the directory can take it, so that no daemon
/// waits for long.
fn lock(directory: &Path) -> Option<Flock<fs::File>> {
    let mut file = fs::File::open(directory).ok()?;
    for _ in 0..ATTEMPTS {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((again, _)) => file = again,
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// Makes the directory, and returns whether it was missing.
fn make_directory(directory: &Path, owner: Option<Owner>) -> io::Result<bool> {
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => {
            if let Some(owner) = owner {
                lchown(
                    directory,
                    Some(owner.uid.as_raw()),
                    Some(owner.gid.as_raw()),
                )?;
            }
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Binds as the socket's owner. In a directory that is root's alone, root binds and hands the socket
/// over: nobody can put another file in its place there.
fn bind_for(path: &Path, owner: Option<Owner>) -> io::Result<(UnixListener, Identity)> {
    let Some(owner) = owner else {
        return bind_unix(path);
    };
    match owner.act(|| bind_unix(path))? {
        Err(error)
            if error.kind() == ErrorKind::PermissionDenied
                && path
                    .parent()
                    .map(fs::metadata)
                    .transpose()?
                    .is_some_and(|directory| is_roots_alone(&directory)) =>
        {
            let bound = bind_unix(path)?;
            lchown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
            Ok(bound)
        }
        bound => bound,
    }
}

/// Binds and listens under another name, and then gives the socket its name: so that the socket of a
/// daemon that starts is never taken for that of a dead one.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, Identity)> {
    let temporary = beside(path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::from_bits_truncate(SOCKET_MODE))?;
    let address = UnixAddr::new(&temporary)?;
    let mask = umask(Mode::from_bits_truncate(SOCKET_MASK));
    let bound = bind(socket.as_raw_fd(), &address);
    umask(mask);
    bound?;
    let linked = listen_on(&socket, Backlog::MAXCONN)
        .map_err(io::Error::from)
        .and_then(|()| fs::symlink_metadata(&temporary))
        .and_then(|metadata| fs::hard_link(&temporary, path).map(|()| identity(&metadata)));
    let _ = fs::remove_file(&temporary);
    Ok((socket.into(), linked?))
}

/// Removes the socket of a dead daemon, but not that of one which has replaced it meanwhile.
fn clear(path: &Path) -> Result<(), Error> {
    let Ok(before) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if examine_file(path)? == Leftover::Nothing {
        return Ok(());
    }
    let aside = beside(path);
    match fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(|source| refused(path, source))?,
    }
    let moved = fs::symlink_metadata(&aside);
    let is_dead = moved.is_ok_and(|moved| identity(&moved) == identity(&before));
    if !is_dead {
        let _ = fs::hard_link(&aside, path);
    }
    let _ = fs::remove_file(&aside);
    Ok(())
}

/// Returns an unused name in the directory of `path`.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{:08x}", rand::random::<u32>()))
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// The file of a unix socket. Dropping it removes the file, unless that was replaced or is still another
/// process's, and the directory made for it.
#[derive(Debug)]
pub struct SocketFile {
    /// Whether the file is this process's.
    is_ours: bool,
    path: PathBuf,
    identity: Identity,
    directory: Option<PathBuf>,
}

impl SocketFile {
    /// Returns the file of an earlier process's socket, if it is there.
    fn inherited(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        metadata.file_type().is_socket().then(|| Self {
            is_ours: false,
            path: path.to_owned(),
            identity: identity(&metadata),
            directory: None,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_there = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| identity(&metadata) == self.identity);
        if self.is_ours && is_there {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.directory {
            // The directory stays if it has other files.
            let _ = fs::remove_dir(directory);
        }
    }
}
