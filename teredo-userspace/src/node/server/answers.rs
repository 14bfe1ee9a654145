//! What the server sends, and where.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    ServerAddress,
    server::{Server, Transmit},
};
use tokio::io::unix::AsyncFd;

use crate::datapath::{BATCH, native::Native, tun::Tun, udp::Sender};

/// The protocol, and the ways out for what it says.
#[derive(Debug)]
pub struct Answers {
    pub server: Server,
    pub exits: Exits,
    has_route: Option<bool>,
}

/// The ways out.
#[derive(Debug)]
pub struct Exits {
    pub losses: Losses,
    /// The tunnel service's way.
    pub tun: Option<AsyncFd<Tun>>,
    outlets: [Outlet; 2],
    native: Option<Native>,
}

/// What the server sent and the kernel did not take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// Datagrams.
    pub datagrams: u64,
    /// Connectivity tests.
    pub native: u64,
    /// Packets of the tunnel service.
    pub tunnel: u64,
}

/// Datagrams that wait to be sent together from one address.
#[derive(Debug)]
struct Outlet {
    sender: Sender,
    to: Vec<SocketAddrV4>,
    /// At least as many as destinations.
    payloads: Vec<Vec<u8>>,
}

impl Answers {
    /// `senders` are those of the primary and the secondary address.
    pub fn new(server: Server, senders: [Sender; 2]) -> Self {
        Self {
            server,
            exits: Exits {
                losses: Losses::default(),
                tun: None,
                outlets: senders.map(|sender| Outlet {
                    sender,
                    to: Vec::with_capacity(BATCH),
                    payloads: Vec::new(),
                }),
                native: None,
            },
            has_route: None,
        }
    }

    /// Opens the way for connectivity tests.
    pub fn open_native(&mut self) -> Result<()> {
        self.exits.native = Some(Native::open()?);
        Ok(())
    }

    /// Tells the protocol whether answers to connectivity tests find their way (S-25). Returns
    /// whether that is news.
    pub fn set_native_reachable(&mut self, has_route: bool) -> bool {
        self.server.set_native_reachable(has_route);
        let is_changed = self.has_route.replace(has_route).unwrap_or(true) != has_route;
        self.exits.native.is_some() && is_changed
    }

    /// Takes a datagram.
    pub fn take(&mut self, now: Instant, to: ServerAddress, from: Endpoint, payload: &[u8]) {
        let answer = self.server.handle_datagram(now, to, from, payload);
        self.exits.send(answer);
    }

    /// Takes a packet that the kernel routed to a client of the tunnel service.
    pub fn take_packet(&mut self, now: Instant, packet: &[u8]) {
        let answer = self.server.handle_ipv6(now, packet);
        self.exits.send(answer);
    }

    /// Takes an indirect bubble of the relay in this process.
    pub fn forward_for_relay(&mut self, now: Instant, relay: Endpoint, bubble: &[u8]) {
        let answer = self.server.handle_relay_bubble(now, relay, bubble);
        self.exits.send(answer);
    }
}

impl Exits {
    /// Sends an answer, or keeps it to be sent with others.
    fn send(&mut self, answer: Option<Transmit<'_>>) {
        match answer {
            None => {}
            Some(Transmit::Datagram { from, to, payload }) => {
                let outlet = &mut self.outlets[from as usize];
                if outlet.push(to, payload) {
                    self.losses.datagrams += outlet.flush();
                }
            }
            Some(Transmit::Native(packet)) => {
                let native = self.native.as_ref();
                let is_sent = native.is_some_and(|native| native.send(packet));
                self.losses.native += u64::from(!is_sent);
            }
            Some(Transmit::Tunnel(packet)) => {
                let tun = self.tun.as_ref();
                let written = tun.map_or(0, |tun| tun.get_ref().write(&[packet]));
                self.losses.tunnel += 1 - written as u64;
            }
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        for outlet in &mut self.outlets {
            self.losses.datagrams += outlet.flush();
        }
    }
}

impl Outlet {
    /// Adds a datagram, in the room of one that was sent, and tells whether there is no place for
    /// another.
    fn push(&mut self, to: Endpoint, payload: &[u8]) -> bool {
        let place = self.to.len();
        if place == self.payloads.len() {
            self.payloads.push(Vec::new());
        }
        let room = &mut self.payloads[place];
        room.clear();
        room.extend_from_slice(payload);
        self.to.push(to.into());
        place + 1 == BATCH
    }

    /// Sends what waits and returns how many datagrams the kernel did not take.
    fn flush(&mut self) -> u64 {
        const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        if self.to.is_empty() {
            return 0;
        }
        let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(NOWHERE, &[]); BATCH];
        for (datagram, (to, payload)) in
            datagrams.iter_mut().zip(self.to.iter().zip(&self.payloads))
        {
            *datagram = (*to, payload);
        }
        let count = self.to.len();
        let sent = self.sender.send(&datagrams[..count]);
        self.to.clear();
        (count - sent) as u64
    }
}
