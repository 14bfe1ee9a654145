//! What the server sends, and where.

use std::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::Result;
use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::server::{Output, Server, ServerAddress};
use tokio::io::unix::AsyncFd;

use crate::datapath::{BATCH, native::Native, tun::Tun, udp::Sender};

/// The protocol, and the ways out for what it says.
#[derive(Debug)]
pub struct Answers {
    pub server: Server,
    pub failures: AnswerFailures,
    /// The tunnel service's way.
    pub tun: Option<AsyncFd<Tun>>,
    outlets: [Outlet; 2],
    native: Option<Native>,
    has_route: Option<bool>,
    /// Room for what the protocol says next.
    output: Vec<u8>,
}

/// Answers of the server that the kernel did not accept.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerFailures {
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
            failures: AnswerFailures::default(),
            tun: None,
            outlets: senders.map(|sender| Outlet {
                sender,
                to: Vec::with_capacity(BATCH),
                payloads: Vec::new(),
            }),
            native: None,
            has_route: None,
            output: Vec::new(),
        }
    }

    /// Opens the way for connectivity tests.
    pub fn open_native(&mut self) -> Result<()> {
        self.native = Some(Native::open()?);
        Ok(())
    }

    /// Whether answers to connectivity tests find their way (S-25). Returns whether that is news.
    pub fn may_send_native(&mut self, has_route: bool) -> bool {
        self.server.may_send_native(has_route);
        self.native.is_some() && self.has_route.replace(has_route).unwrap_or(true) != has_route
    }

    /// Takes a datagram.
    pub fn take(&mut self, now: Instant, to: ServerAddress, from: Endpoint, payload: &[u8]) {
        let output = self
            .server
            .handle_datagram(now, to, from, payload, &mut self.output);
        self.send(output);
    }

    /// Takes a packet that the kernel routed to a client of the tunnel service.
    pub fn take_packet(&mut self, now: Instant, packet: &[u8]) {
        let output = self.server.handle_ipv6(now, packet, &mut self.output);
        self.send(output);
    }

    /// Takes an indirect bubble of the relay in this process.
    pub fn forward_for_relay(&mut self, now: Instant, relay: Endpoint, bubble: &[u8]) {
        let output = self
            .server
            .forward_for_relay(now, relay, bubble, &mut self.output);
        self.send(output);
    }

    fn send(&mut self, output: Option<Output>) {
        match output {
            None => {}
            Some(Output::Datagram { from, to }) => {
                let outlet = &mut self.outlets[from as usize];
                if outlet.push(to, &mut self.output) {
                    self.failures.datagrams += outlet.flush();
                }
            }
            Some(Output::Native) => {
                let native = self.native.as_ref();
                let is_sent = native.is_some_and(|native| native.send(&self.output));
                self.failures.native += u64::from(!is_sent);
            }
            Some(Output::Tunnel) => {
                let written = self.tun.as_ref().map_or(0, |tun| {
                    let packets: [&[u8]; 1] = [&self.output];
                    tun.get_ref().write(&packets)
                });
                self.failures.tunnel += 1 - written as u64;
            }
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        for outlet in &mut self.outlets {
            self.failures.datagrams += outlet.flush();
        }
    }
}

impl Outlet {
    /// Adds a datagram, in exchange for the room of one that was sent, and tells whether there is
    /// no place for another.
    fn push(&mut self, to: Endpoint, payload: &mut Vec<u8>) -> bool {
        let place = self.to.len();
        if place == self.payloads.len() {
            self.payloads.push(Vec::new());
        }
        mem::swap(&mut self.payloads[place], payload);
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
