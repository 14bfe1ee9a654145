//! Notice of changes in the kernel's routing.

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use rtnetlink::{
    packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// Groups of rtnetlink whose messages can mean another next hop.
const GROUPS: u32 = (1 << (libc::RTNLGRP_LINK - 1))
    | (1 << (libc::RTNLGRP_NEIGH - 1))
    | (1 << (libc::RTNLGRP_IPV4_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV4_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV4_RULE - 1))
    | (1 << (libc::RTNLGRP_IPV6_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV6_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV6_RULE - 1));

/// Octets of the buffer for one datagram of messages; what the kernel itself uses.
const BUFFER: usize = 32 << 10;

/// A neighbour that the kernel is no longer sure of, though it still uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaleNeighbour {
    /// Index of the interface it is on.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// Tells when links, addresses, routes, rules or neighbours have changed. Needs a tokio runtime.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Begins to watch: every later change will be told.
    ///
    /// # Errors
    ///
    /// When the kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // Losing messages does no harm, since loss is told; having less of it saves work.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(1 << 20));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // SAFETY: the descriptor is owned, so it stays open and the same until the end.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER].into(),
        })
    }

    /// Waits for a change, takes in all that are there, and returns the neighbours that have
    /// become stale among them. Several changes in a row make one. Cancelling loses nothing.
    ///
    /// # Errors
    ///
    /// Only what is wrong with the socket itself.
    pub async fn changed(&mut self) -> io::Result<HashSet<StaleNeighbour>> {
        loop {
            let mut guard = self.socket.readable().await?;
            let mut changed = false;
            let mut stale = HashSet::new();
            loop {
                let socket = guard.get_inner().as_raw_fd();
                match recv(socket, &mut self.buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        changed = true;
                        take_stale(&self.buffer[..length], &mut stale);
                    }
                    // The kernel had more to say than fitted into the queue.
                    Err(nix::Error::ENOBUFS) => changed = true,
                    Err(nix::Error::EINTR) => {}
                    Err(nix::Error::EAGAIN) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if changed {
                return Ok(stale);
            }
        }
    }
}

/// Collects the neighbours that a datagram of messages calls stale.
fn take_stale(mut messages: &[u8], stale: &mut HashSet<StaleNeighbour>) {
    while let Ok(header) = NetlinkBuffer::new_checked(&messages) {
        let length = header.length() as usize;
        if header.message_type() == libc::RTM_NEWNEIGH {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&messages[..length]);
            if let Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message))) =
                message.map(|message| message.payload)
            {
                stale.extend(stale_neighbour(&message));
            }
        }
        messages = messages
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
}

fn stale_neighbour(message: &NeighbourMessage) -> Option<StaleNeighbour> {
    if message.header.state != NeighbourState::Stale {
        return None;
    }
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        })?;
    Some(StaleNeighbour {
        interface: message.header.ifindex,
        address,
    })
}
