//! The sending side of the server.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use teredo_common::{address::Endpoint, time::Instant};
use teredo_proto::{
    ServerAddress,
    server::{Server, Statistics, Transmit},
};

use crate::{
    capture::{Reason, Tap, Tapped},
    datapath::{BATCH, native::Native, udp::Sender},
    node::tunnel::Tunnel,
};

/// The protocol, and the sockets for its answers.
#[derive(Debug)]
pub struct Answers {
    pub server: Server,
    pub exits: Exits,
    pub tap: Tap,
    /// The primary and the secondary endpoint.
    endpoints: [Endpoint; 2],
}

/// The sockets and the interface that answers leave through.
#[derive(Debug)]
pub struct Exits {
    pub failures: AnswerFailures,
    /// The interface of the tunnel service.
    pub tunnel: Option<Tunnel>,
    batches: [SendBatch; 2],
    native: Option<Native>,
}

/// Answers of the server that the kernel did not accept.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerFailures {
    /// Datagrams to clients.
    pub datagrams: u64,
    /// Connectivity tests.
    pub native: u64,
    /// Packets of the tunnel service.
    pub tunnel: u64,
}

/// Datagrams that are sent together from one address.
#[derive(Debug)]
struct SendBatch {
    sender: Sender,
    to: Vec<SocketAddrV4>,
    /// At least as many buffers as destinations.
    payloads: Vec<Vec<u8>>,
}

impl Answers {
    /// Returns the sending side without a native socket and a tunnel service. `senders` are those of
    /// the primary and the secondary address.
    pub fn new(server: Server, senders: [Sender; 2], endpoints: [Endpoint; 2]) -> Self {
        Self {
            server,
            tap: Tap::default(),
            endpoints,
            exits: Exits {
                failures: AnswerFailures::default(),
                tunnel: None,
                batches: senders.map(|sender| SendBatch {
                    sender,
                    to: Vec::with_capacity(BATCH),
                    payloads: Vec::new(),
                }),
                native: None,
            },
        }
    }

    /// Returns the senders of the primary and the secondary address.
    pub fn senders(&self) -> [&Sender; 2] {
        self.exits.batches.each_ref().map(|batch| &batch.sender)
    }

    /// Opens the native socket for connectivity tests.
    pub fn open_native(&mut self) -> Result<()> {
        self.exits.native = Some(Native::open()?);
        Ok(())
    }

    /// Handles a datagram.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        to: ServerAddress,
        from: Endpoint,
        payload: &[u8],
    ) {
        let tapped = (self.tap).datagram(from, self.endpoints[to as usize], payload);
        let tapped = tapped.map(|tapped| (tapped, *self.server.statistics()));
        let answer = self.server.handle_datagram(now, to, from, payload);
        let forwarded = match &tapped {
            Some(_) => tapped_answer(answer.as_ref(), &self.endpoints),
            None => None,
        };
        self.exits.send(answer);
        if let Some((tapped, before)) = tapped {
            let reason = reason(&before, self.server.statistics());
            self.tap.received(&tapped, reason, forwarded);
        }
    }

    /// Handles a packet that the kernel routed to a client of the tunnel service.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let tapped = self.tap.packet(packet);
        let tapped = tapped.map(|tapped| (tapped, *self.server.statistics()));
        let answer = self.server.handle_ipv6(now, packet);
        let forwarded = match &tapped {
            Some(_) => tapped_answer(answer.as_ref(), &self.endpoints),
            None => None,
        };
        self.exits.send(answer);
        if let Some((tapped, before)) = tapped {
            let reason = reason(&before, self.server.statistics());
            self.tap.received(&tapped, reason, forwarded);
        }
    }

    /// Forwards an indirect bubble of the relay in this process.
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
                let batch = &mut self.batches[from as usize];
                if batch.push(to, payload) {
                    self.failures.datagrams += batch.flush();
                }
            }
            Some(Transmit::Native(packet)) => {
                let native = self.native.as_ref();
                let is_sent = native.is_some_and(|native| native.send(packet));
                self.failures.native += u64::from(!is_sent);
            }
            Some(Transmit::Tunnel(packet)) => {
                let tunnel = self.tunnel.as_ref();
                let written = tunnel.map_or(0, |tunnel| tunnel.write(&[packet]));
                self.failures.tunnel += 1 - written as u64;
            }
        }
    }

    /// Sends the collected datagrams.
    pub fn flush(&mut self) {
        for batch in &mut self.batches {
            self.failures.datagrams += batch.flush();
        }
    }
}

impl SendBatch {
    /// Adds a datagram, in the buffer of one that was sent, and returns whether the batch is full.
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

    /// Sends the datagrams and returns how many the kernel did not accept.
    fn flush(&mut self) -> u64 {
        /// Placeholder of unused slots.
        const UNUSED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        if self.to.is_empty() {
            return 0;
        }
        let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(UNUSED, &[]); BATCH];
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

/// Returns an answer for those who capture.
fn tapped_answer(answer: Option<&Transmit<'_>>, endpoints: &[Endpoint; 2]) -> Option<Tapped> {
    Some(match answer? {
        Transmit::Datagram { from, to, payload } => {
            Tapped::datagram(endpoints[*from as usize], *to, payload)
        }
        Transmit::Native(packet) | Transmit::Tunnel(packet) => Tapped::packet(packet),
    })
}

/// Returns what the server did with a packet since it had counted so much: why it dropped that, or how it served it.
fn reason(before: &Statistics, after: &Statistics) -> Option<Reason> {
    let dropped = Reason::counted(&before.dropped, &after.dropped);
    dropped.or_else(|| Reason::counted(&before.served, &after.served))
}
