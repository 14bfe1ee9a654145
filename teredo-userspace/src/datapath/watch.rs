//! Notifications of changes in the kernel's routing.

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

/// The groups of rtnetlink whose messages may imply another next hop.
const GROUPS: u32 = (1 << (libc::RTNLGRP_LINK - 1))
    | (1 << (libc::RTNLGRP_NEIGH - 1))
    | (1 << (libc::RTNLGRP_IPV4_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV4_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV4_RULE - 1))
    | (1 << (libc::RTNLGRP_IPV6_IFADDR - 1))
    | (1 << (libc::RTNLGRP_IPV6_ROUTE - 1))
    | (1 << (libc::RTNLGRP_IPV6_RULE - 1));

/// Octets of the buffer for one datagram of messages, the size that the kernel itself uses.
const BUFFER: usize = 32 << 10;

/// A neighbour whose reachability the kernel has not confirmed lately, though it still uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaleNeighbour {
    /// Index of its interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// Changes of the kernel's routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether interfaces or their addresses changed.
    pub addresses: bool,
    /// Whether routes or rules changed.
    pub routes: bool,
    /// Neighbours that became stale.
    pub stale: HashSet<StaleNeighbour>,
}

/// A subscription to changes of links, addresses, routes, rules and neighbours. Needs a tokio
/// runtime.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Subscribes to every later change.
    ///
    /// # Errors
    ///
    /// When the kernel provides no netlink socket.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        // Lost messages do no harm, since loss is reported; fewer losses save work.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(1 << 20));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // SAFETY: the descriptor is owned, so it stays open and the same as long as it is registered.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER].into(),
        })
    }

    /// Waits for changes and returns all that are pending. Cancelling loses nothing.
    ///
    /// # Errors
    ///
    /// Errors of the socket itself.
    pub async fn changed(&mut self) -> io::Result<Changes> {
        loop {
            let mut guard = self.socket.readable().await?;
            let mut changed = false;
            let mut changes = Changes::default();
            loop {
                let socket = guard.get_inner().as_raw_fd();
                match recv(socket, &mut self.buffer, MsgFlags::empty()) {
                    Ok(length) => {
                        changed = true;
                        add_changes(&self.buffer[..length], &mut changes);
                    }
                    // The queue overflowed, so anything may have changed.
                    Err(nix::Error::ENOBUFS) => {
                        changed = true;
                        changes.addresses = true;
                        changes.routes = true;
                    }
                    Err(nix::Error::EINTR) => {}
                    Err(nix::Error::EAGAIN) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if changed {
                return Ok(changes);
            }
        }
    }
}

/// Adds the changes that a datagram of messages reports.
fn add_changes(mut messages: &[u8], changes: &mut Changes) {
    while let Ok(header) = NetlinkBuffer::new_checked(&messages) {
        let length = header.length() as usize;
        match header.message_type() {
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                changes.addresses = true;
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE | libc::RTM_NEWRULE | libc::RTM_DELRULE => {
                changes.routes = true;
            }
            libc::RTM_NEWNEIGH => {
                let message = NetlinkMessage::deserialize(&messages[..length]);
                if let Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry))) =
                    message.map(|message| message.payload)
                {
                    changes.stale.extend(stale_neighbour(&entry));
                }
            }
            _ => {}
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
