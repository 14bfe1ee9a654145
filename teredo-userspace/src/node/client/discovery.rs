//! Local client discovery on the links of this host.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use ipnet::Ipv4Net;
use teredo_proto::client::Attached;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use crate::{
    datapath::udp::DiscoverySocket,
    node::port::{RETRY, register},
};

/// Octets of the longest discovery bubble with its trailers. Longer datagrams are not bubbles.
const ROOM: usize = 2_048;

/// The socket of discovery, and the links that it has joined.
#[derive(Debug)]
pub struct LocalDiscovery {
    socket: AsyncFd<DiscoverySocket>,
    /// The addresses of each joined interface.
    joined: BTreeMap<u32, Vec<Attached>>,
    buffer: Box<[u8]>,
}

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Multicast {
    /// This host's address on the link.
    pub interface: Ipv4Addr,
    /// The sender.
    pub source: SocketAddrV4,
    /// Octets of the payload, at the beginning of [`LocalDiscovery::payload`].
    length: usize,
}

impl LocalDiscovery {
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: register(DiscoverySocket::open()?)?,
            joined: BTreeMap::new(),
            buffer: vec![0; ROOM].into(),
        })
    }

    /// Joins the links that have a private address, and leaves all others.
    pub fn set_links(&mut self, links: &BTreeMap<u32, Vec<Attached>>) {
        let wanted: BTreeMap<_, _> = links
            .iter()
            .filter(|(_, attached)| attached.iter().any(is_private))
            .map(|(&interface, attached)| (interface, attached.clone()))
            .collect();
        let socket = self.socket.get_ref();
        for interface in self.joined.keys() {
            if !wanted.contains_key(interface) {
                socket.leave(*interface);
            }
        }
        let joined = wanted.into_iter().filter(|(interface, _)| {
            let is_new = !self.joined.contains_key(interface);
            // An interface without multicast has no neighbours to find.
            !is_new || socket.join(*interface).is_ok()
        });
        self.joined = joined.collect();
    }

    /// Waits for a datagram on a joined link. Cancelling loses nothing.
    pub async fn receive(&mut self) -> Multicast {
        loop {
            let buffer = &mut self.buffer;
            let arrival = self
                .socket
                .async_io(Interest::READABLE, |socket| socket.receive(buffer))
                .await;
            let Ok(arrival) = arrival else {
                sleep(RETRY).await;
                continue;
            };
            let on_link = self.joined.get(&arrival.interface);
            let on_link = on_link.map(Vec::as_slice).unwrap_or_default();
            if let Some(attached) = neighbour_of(*arrival.source.ip(), on_link) {
                return Multicast {
                    interface: attached.address,
                    source: arrival.source,
                    length: arrival.length,
                };
            }
        }
    }

    /// Returns the payload of the datagram received last.
    pub fn payload(&self, received: Multicast) -> &[u8] {
        &self.buffer[..received.length]
    }
}

/// Returns the address on a link whose network contains the sender, or else any.
fn neighbour_of(sender: Ipv4Addr, on_link: &[Attached]) -> Option<&Attached> {
    let contains = |local: &&Attached| {
        Ipv4Net::new(local.address, local.prefix_length)
            .is_ok_and(|network| network.contains(&sender))
    };
    on_link.iter().find(contains).or(on_link.first())
}

/// Returns whether an address is private, so that its link is behind a NAT.
fn is_private(local: &Attached) -> bool {
    local.address.is_private() || local.address.is_link_local()
}
