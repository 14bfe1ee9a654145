//! The server role: the sockets of its two addresses, its native socket, its tunnel service, and the
//! protocol between them.

mod answers;

use std::{cell::RefCell, future::pending, io, net::SocketAddrV4};

use anyhow::Result;
use teredo_common::{address::Endpoint, time::Instant, wire::MTU};
use teredo_proto::{
    ServerAddress,
    server::{self, Event, Server},
};

use super::{clock, port::Port, tunnel::Tunnel};
use crate::{
    capture::Tap,
    config,
    datapath::{
        route::OwnAddresses,
        tun::PacketBatch,
        udp::{ReceiveBatch, Sender, UdpSocket},
    },
    handover::descriptors::{self, Named},
};
pub use answers::AnswerFailures;
use answers::Answers;

/// The running server.
#[derive(Debug)]
pub struct ServerRole {
    /// The configuration of the protocol, on which the XDP program depends, too.
    parameters: server::Config,
    /// `None` for an address at which the relay listens.
    ports: [Option<Port>; 2],
    answers: Answers,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
}

/// An input that is ready.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Datagrams to one of the addresses.
    Datagrams(ServerAddress),
    /// Packets for clients of the tunnel service.
    Packets,
}

/// The socket of one of the server's addresses.
#[derive(Debug)]
pub enum Socket {
    /// The server has a socket of its own.
    Own(UdpSocket),
    /// The server shares the relay's port.
    Shared(Sender),
}

impl Socket {
    fn open(self) -> io::Result<(Option<Port>, Sender)> {
        Ok(match self {
            Self::Own(udp) => {
                // Clients' datagrams are independent of each other, so reordering is harmless.
                let mailbox = udp.mailbox();
                let mut port = Port::new(udp.receiver, udp.marked)?;
                match mailbox {
                    Ok(mailbox) => port = port.with_mailbox(mailbox)?,
                    Err(error) => {
                        let error = anyhow::Error::new(error);
                        tracing::debug!("mailbox unavailable, using recvmmsg: {error:#}");
                    }
                }
                (Some(port), udp.sender)
            }
            Self::Shared(sender) => (None, sender),
        })
    }
}

impl ServerRole {
    /// Opens the native socket, if it is needed. `sockets` are those of the primary and the secondary
    /// address, `tunnel` is the interface of the tunnel service.
    pub fn new(
        config: &config::ServerSection,
        parameters: server::Config,
        server: Server,
        sockets: [Socket; 2],
        tunnel: Option<Tunnel>,
    ) -> Result<Self> {
        let [primary, secondary] = sockets;
        let (primary_port, primary_sender) = primary.open()?;
        let (secondary_port, secondary_sender) = secondary.open()?;
        let endpoints = [parameters.primary, parameters.secondary]
            .map(|address| SocketAddrV4::new(address, parameters.port).into());
        let senders = [primary_sender, secondary_sender];
        let mut answers = Answers::new(server, senders, endpoints);
        if config.forward_echo || config.forward_echo_replies {
            answers.open_native()?;
        }
        answers.exits.tunnel = tunnel;
        Ok(Self {
            parameters,
            ports: [primary_port, secondary_port],
            answers,
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(MTU),
        })
    }

    /// Gives packets to those that capture from now on.
    pub fn set_tap(&mut self, tap: Tap) {
        self.answers.tap = tap;
    }

    /// Returns the descriptors that outlive the process.
    pub fn descriptors(&self) -> impl Iterator<Item = Named<'_>> {
        let ports = self.ports.iter().zip(self.answers.senders());
        let sockets = ports.filter_map(|(port, sender)| {
            let port = port.as_ref()?;
            Some(descriptors::udp(sender, port.receivers()))
        });
        let tunnel = self.tunnel().map(Tunnel::descriptors);
        sockets.flatten().chain(tunnel.into_iter().flatten())
    }

    /// Answers what is in the mailboxes, which end with this process, and lets sockets have what comes from
    /// now on.
    pub fn empty_mailboxes(&mut self) {
        for address in [ServerAddress::Primary, ServerAddress::Secondary] {
            let Some(port) = &self.ports[address as usize] else {
                continue;
            };
            port.end_mailbox();
            while port.receive_mail_now(&mut self.datagrams) {
                let now = clock::now();
                for datagram in self.datagrams.datagrams() {
                    let from = datagram.source.into();
                    (self.answers).handle_datagram(now, address, from, datagram.payload);
                }
                self.answers.exits.flush();
            }
        }
    }

    /// Returns the configuration of the protocol.
    pub fn parameters(&self) -> &server::Config {
        &self.parameters
    }

    /// Returns the protocol, to change its state.
    pub fn protocol_mut(&mut self) -> &mut Server {
        &mut self.answers.server
    }

    /// Returns the protocol.
    pub fn protocol(&self) -> &Server {
        &self.answers.server
    }

    /// Returns the answers that the kernel did not accept.
    pub fn failures(&self) -> AnswerFailures {
        self.answers.exits.failures
    }

    /// Returns the number of datagrams that arrived faster than they were received.
    pub fn overrun(&self) -> u64 {
        self.ports.iter().flatten().map(Port::lost).sum()
    }

    /// Returns the tunnel interface of the tunnel service.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.answers.exits.tunnel.as_ref()
    }

    /// Returns the tunnel interface of the tunnel service, to open it again.
    pub fn tunnel_mut(&mut self) -> Option<&mut Tunnel> {
        self.answers.exits.tunnel.as_mut()
    }

    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Input {
        let [primary, secondary] = &self.ports;
        let datagrams = RefCell::new(&mut self.datagrams);
        tokio::select! {
            _ = receive(primary.as_ref(), &datagrams) => Input::Datagrams(ServerAddress::Primary),
            _ = receive(secondary.as_ref(), &datagrams) => {
                Input::Datagrams(ServerAddress::Secondary)
            }
            _ = read(self.answers.exits.tunnel.as_mut(), &mut self.packets) => Input::Packets,
        }
    }

    /// Handles an input.
    pub fn handle(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Datagrams(address) => {
                for datagram in self.datagrams.datagrams() {
                    let from = datagram.source.into();
                    self.answers
                        .handle_datagram(now, address, from, datagram.payload);
                }
            }
            Input::Packets => {
                for packet in self.packets.packets() {
                    self.answers.handle_packet(now, packet);
                }
            }
        }
        self.flush();
    }

    /// Handles a datagram to the primary address, whose port the relay shares. Call [`Self::flush`]
    /// afterwards.
    pub fn handle_shared(&mut self, now: Instant, from: Endpoint, payload: &[u8]) {
        self.answers
            .handle_datagram(now, ServerAddress::Primary, from, payload);
    }

    /// Forwards an indirect bubble of the relay in this process. Call [`Self::flush`] afterwards.
    pub fn forward_for_relay(&mut self, relay: Endpoint, bubble: &[u8]) {
        self.answers.forward_for_relay(clock::now(), relay, bubble);
    }

    /// Sends the collected answers, and logs the events of the protocol.
    pub fn flush(&mut self) {
        self.answers.exits.flush();
        while let Some(event) = self.answers.server.poll_event() {
            log_event(&event);
        }
    }

    /// Sets this host's addresses, and whether it has a route for the Teredo prefix. Without one the
    /// answers to connectivity tests could not return, so the tests are not sent (S-25).
    pub fn handle_changes(&mut self, own: &OwnAddresses, has_native_route: Option<bool>) {
        self.answers.server.set_own_addresses(&own.ipv4);
        // If it is unknown, the last state stays.
        if let Some(has_route) = has_native_route {
            self.answers.server.set_native_reachable(has_route);
        }
    }
}

/// Waits for datagrams; forever without a port.
async fn receive(port: Option<&Port>, batch: &RefCell<&mut ReceiveBatch>) -> usize {
    match port {
        Some(port) => port.receive(batch).await,
        None => pending().await,
    }
}

/// Waits for packets; forever without a tunnel service.
async fn read(tunnel: Option<&mut Tunnel>, packets: &mut PacketBatch) -> usize {
    match tunnel {
        Some(tunnel) => tunnel.read(packets).await,
        None => pending().await,
    }
}

/// Logs a rare event of the protocol.
fn log_event(event: &Event) {
    match event {
        Event::RetiredKey { client, mapped } => tracing::warn!(
            "client \"{}\" at {mapped} has a retired key: give it the new one",
            client.escape_ascii()
        ),
        Event::TunnelBound { client, mapped } => {
            tracing::info!("client \"{}\" is at {mapped}", client.escape_ascii());
        }
        Event::TunnelMoved { client, from, to } => tracing::info!(
            "client \"{}\" moved from {from} to {to}",
            client.escape_ascii()
        ),
        Event::TunnelFlapping { client, mapped } => tracing::warn!(
            "client \"{}\" keeps moving, now to {mapped}: two hosts may have its key",
            client.escape_ascii()
        ),
    }
}
