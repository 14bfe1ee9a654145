//! The raw socket for a server's connectivity tests into the native IPv6 internet (RFC 4380 section
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

/// The port of the discard service; no packet is sent there.
const DISCARD: u16 = 9;

/// An error of [`Native::open`]. Each is a sentence for the user.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The process is not root, or its container lacks the capability.
    #[error(
        "no permission to send connectivity tests: grant CAP_NET_RAW, or set server.forward-echo = \
         false"
    )]
    Permission,
    /// Anything else.
    #[error("cannot open a raw IPv6 socket")]
    Other(#[from] io::Error),
}

/// A raw socket that sends IPv6 packets unchanged. The kernel routes them; neither a TUN interface
/// nor a relay on this host is needed.
#[derive(Debug)]
pub struct Native(OwnedFd);

impl Native {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`NativeError`].
    pub fn open() -> Result<Self, NativeError> {
        // With this protocol number packets include their headers. The socket never receives.
        let opened = socket(
            AddressFamily::Inet6,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        );
        match opened {
            Ok(socket) => Ok(Self(socket)),
            Err(nix::Error::EPERM | nix::Error::EACCES) => Err(NativeError::Permission),
            Err(error) => Err(NativeError::Other(error.into())),
        }
    }

    /// Sends a packet, including its header, and returns whether the kernel accepted it. The hop
    /// limit is left unchanged.
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

/// Returns whether this host has a route, of any prefix length, for the Teredo prefix. Only then can
/// it receive the answers to packets with Teredo sources (S-25).
///
/// # Errors
///
/// When the kernel provides no socket.
pub fn has_route(prefix: ServicePrefix) -> io::Result<bool> {
    let [a, b, c, d] = prefix.0;
    let client = Ipv6Addr::from([a, b, c, d, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]);
    let socket = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Connecting sends no packet; it makes the kernel look up a route.
    let to = SockaddrIn6::from(SocketAddrV6::new(client, DISCARD, 0, 0));
    Ok(connect(socket.as_raw_fd(), &to).is_ok())
}
