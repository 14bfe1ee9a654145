//! The way of a server's connectivity tests into the native IPv6 internet (RFC 4380 section
//! 5.3.1): whole IPv6 packets whose source is a client's Teredo address.

use std::{
    io,
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, connect, sendto, socket,
};
use teredo_common::address::ServicePrefix;
use thiserror::Error;

/// Port of the discard service; nothing is sent there.
const DISCARD: u16 = 9;

/// Why there is no socket. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Not root, or a container without rights.
    #[error(
        "no permission to send connectivity tests: they take CAP_NET_RAW, or server.forward-echo = \
         false"
    )]
    Permission,
    /// Anything else.
    #[error("cannot open a raw IPv6 socket")]
    Other(#[from] io::Error),
}

/// Sends IPv6 packets as they are. The kernel routes them; no interface of ours is needed, nor a
/// relay on this host.
#[derive(Debug)]
pub struct Native(OwnedFd);

impl Native {
    /// Opens the way.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`OpenError`].
    pub fn open() -> Result<Self, OpenError> {
        // This protocol number says that packets come with their headers. Nothing is received.
        let opened = socket(
            AddressFamily::Inet6,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        );
        match opened {
            Ok(socket) => Ok(Self(socket)),
            Err(nix::Error::EPERM | nix::Error::EACCES) => Err(OpenError::Permission),
            Err(error) => Err(OpenError::Other(error.into())),
        }
    }

    /// Sends a packet with its header and tells whether the kernel took it. Its hop limit leaves
    /// as it is.
    #[must_use]
    pub fn send(&self, packet: &[u8]) -> bool {
        let Some(destination) = packet.get(24..40) else {
            return false;
        };
        let octets: [u8; 16] = destination.try_into().unwrap_or_default();
        let to = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::from(octets), 0, 0, 0));
        sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::empty()) == Ok(packet.len())
    }
}

/// Whether this host has a route, of whatever length, for the Teredo service: only then answers to
/// packets with Teredo sources can find their way (requirement S-25).
///
/// # Errors
///
/// When the kernel gives no socket.
pub fn has_route(prefix: ServicePrefix) -> io::Result<bool> {
    let [a, b, c, d] = prefix.0;
    let client = Ipv6Addr::from([a, b, c, d, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]);
    let socket = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Connecting sends nothing; it makes the kernel look for a route.
    let to = SockaddrIn6::from(SocketAddrV6::new(client, DISCARD, 0, 0));
    Ok(connect(socket.as_raw_fd(), &to).is_ok())
}
