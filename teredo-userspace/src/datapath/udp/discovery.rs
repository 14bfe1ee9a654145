//! The socket of local client discovery (RFC 4380 section 5.2.8): multicasts of clients on the links
//! of this host.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    libc::in_pktinfo,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, sockopt,
    },
};
use teredo_common::wire::SERVER_PORT;

use super::{Sender, socket};

/// The IPv4 discovery address.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 253);

/// A socket that receives datagrams to the IPv4 discovery address, and no others. Other programs on
/// this host may share the port.
#[derive(Debug)]
pub struct DiscoverySocket(OwnedFd);

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Index of the interface.
    pub interface: u32,
    /// The sender.
    pub source: SocketAddrV4,
    /// Octets of the payload, at the beginning of the buffer.
    pub length: usize,
}

impl DiscoverySocket {
    /// Opens the socket, with no interface joined yet.
    ///
    /// # Errors
    ///
    /// When another program has bound the port exclusively.
    pub fn open() -> io::Result<Self> {
        let opened = socket::open()?;
        socket::set(&opened, sockopt::ReuseAddr, true)?;
        socket::set(&opened, sockopt::Ipv4PacketInfo, true)?;
        // Without the groups that other sockets of this host have joined.
        socket::set_option(&opened, libc::IP_MULTICAST_ALL, 0)?;
        socket::bind(&opened, SocketAddrV4::new(GROUP, SERVER_PORT))?;
        Ok(Self(opened))
    }

    /// Joins the group on the interface with this index.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or it does not support multicast.
    pub fn join(&self, interface: u32) -> io::Result<()> {
        Ok(socket::set_member(&self.0, GROUP, interface, true)?)
    }

    /// Leaves the group on the interface. An interface that is gone is no error.
    pub fn leave(&self, interface: u32) {
        let _ = socket::set_member(&self.0, GROUP, interface, false);
    }

    /// Receives one datagram, truncated to the size of the buffer.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Arrival> {
        loop {
            let mut control = nix::cmsg_space!(in_pktinfo);
            let mut parts = [IoSliceMut::new(buffer)];
            let received = recvmsg::<SockaddrIn>(
                self.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::empty(),
            )?;
            let interface = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
                _ => None,
            });
            // The kernel supplies both for every datagram.
            if let (Some(interface), Some(source)) = (interface, received.address) {
                return Ok(Arrival {
                    interface,
                    source: source.into(),
                    length: received.bytes,
                });
            }
        }
    }
}

impl AsFd for DiscoverySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for DiscoverySocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Sender {
    /// Sends a payload to the IPv4 discovery address, with a time to live of 1, through the
    /// interface with this index, from its address `source`.
    ///
    /// # Errors
    ///
    /// When the interface is gone, or the kernel has no buffer space.
    pub fn discover(&self, interface: u32, source: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        let info = in_pktinfo {
            ipi_ifindex: interface as i32,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from(source).to_be(),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(GROUP, SERVER_PORT));
        sendmsg(
            self.socket().as_raw_fd(),
            &[IoSlice::new(payload)],
            &[ControlMessage::Ipv4PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }
}
