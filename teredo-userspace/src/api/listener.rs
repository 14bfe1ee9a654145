//! Where the API listens.

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

/// Who may use the unix socket: its user and group.
const SOCKET_MODE: u32 = 0o660;
/// The directory made for it, if there is none.
const DIRECTORY_MODE: u32 = 0o755;

/// Why the API does not listen, in one sentence with the mend.
#[derive(Debug, Error)]
pub enum Error {
    /// A daemon answers there.
    #[error(
        "already running: another daemon answers on unix:{}; stop it, or give this instance \
         another node.name or node.api", .0.display()
    )]
    AlreadyRunning(PathBuf),
    /// There is a file that is no socket.
    #[error("{} is there and is not a socket; remove it, or set another node.api", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refuses.
    #[error("the API cannot listen on {address}: {source}; set another node.api")]
    Refused {
        /// Where.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// On a path.
    Unix(UnixListener),
    /// On a port.
    Tcp(TcpListener),
}

/// Listening sockets, with their files.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: Vec<Listener>,
    files: Vec<SocketFile>,
}

impl Listeners {
    /// The sockets, and their files, which are removed when they are dropped.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Listener>, Vec<SocketFile>) {
        (self.sockets, self.files)
    }
}

/// Listens on every address, or on none. Needs a tokio runtime.
///
/// The socket that a dead daemon has left is replaced.
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

/// What is on the path of a unix socket that may be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    Nothing,
    /// The socket of a dead daemon.
    DeadSocket,
}

/// Looks whether `path` is free to listen on, and changes nothing.
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
        // Its queue may be full, or it may be another user's: it lives.
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
        // Nobody connects before the mode is right: it does not listen yet.
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
                // Empty, as it was made a moment ago.
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

/// The file of a unix socket. Dropping it removes the file, and the directory made for it, unless
/// somebody has replaced it.
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
            // It stays if others use it.
            let _ = fs::remove_dir(directory);
        }
    }
}
