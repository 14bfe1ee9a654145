//! The listening sockets of the API.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as listen_on, socket,
};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

use crate::config::ApiAddress;

/// The mode of the unix socket: its user and group may use it.
const SOCKET_MODE: u32 = 0o660;
/// The mode of the directory that is made for the socket.
const DIRECTORY_MODE: u32 = 0o755;

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

/// A listening socket.
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
}

impl Listeners {
    /// Returns the sockets, and their files, which are removed when dropped.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Listener>, Vec<SocketFile>) {
        (self.sockets, self.files)
    }
}

/// Listens on all addresses, or fails and listens on none. Needs a tokio runtime.
///
/// Sockets that a dead daemon left are replaced.
///
/// # Errors
///
/// When an address is taken or not allowed.
pub fn listen(addresses: &[ApiAddress]) -> Result<Listeners, Error> {
    let mut listeners = Listeners::default();
    for address in addresses {
        let refused = |source| Error::Refused {
            address: address.to_string(),
            source,
        };
        match address {
            ApiAddress::Unix(path) => {
                clear(path)?;
                let (socket, file) = bind_unix(path).map_err(refused)?;
                listeners.sockets.push(Listener::Unix(socket));
                listeners.files.push(file);
            }
            ApiAddress::Tcp(address) => {
                let socket = bind_tcp(*address).map_err(refused)?;
                listeners.sockets.push(Listener::Tcp(socket));
            }
        }
    }
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

/// Examines whether a unix socket may be bound to `path`. Changes nothing.
///
/// # Errors
///
/// [`Error::AlreadyRunning`] or [`Error::NotASocket`].
pub fn examine(path: &Path) -> Result<Leftover, Error> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(Leftover::Nothing);
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Leftover::DeadSocket),
        // A full queue or another user's socket: the daemon is alive.
        _ => Err(Error::AlreadyRunning(path.to_owned())),
    }
}

/// Removes the socket of a dead daemon.
fn clear(path: &Path) -> Result<(), Error> {
    match examine(path)? {
        Leftover::Nothing => Ok(()),
        Leftover::DeadSocket => fs::remove_file(path).map_err(|source| Error::Refused {
            address: format!("unix:{}", path.display()),
            source,
        }),
    }
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let mut directory = None;
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        fs::DirBuilder::new().mode(DIRECTORY_MODE).create(parent)?;
        directory = Some(parent.to_owned());
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let bound = bind_raw(&socket, path);
    let metadata = bound.and_then(|()| {
        // The socket does not listen yet, so no client connects before the mode is right.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        fs::symlink_metadata(path)
    });
    let file = match metadata {
        Ok(metadata) => SocketFile {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            directory,
        },
        Err(error) => {
            if let Some(directory) = directory {
                // It is empty, since it was made a moment ago.
                let _ = fs::remove_dir(directory);
            }
            return Err(error);
        }
    };
    listen_on(&socket, Backlog::MAXCONN)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

fn bind_raw(socket: &impl std::os::fd::AsRawFd, path: &Path) -> io::Result<()> {
    Ok(bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// The file of a unix socket. Dropping it removes the file, unless that was replaced, and the
/// directory made for it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    directory: Option<PathBuf>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.directory {
            // The directory stays if it has other files.
            let _ = fs::remove_dir(directory);
        }
    }
}
