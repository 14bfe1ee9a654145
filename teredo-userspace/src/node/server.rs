//! The server role: the sockets of its two addresses, its native socket, its tunnel service, and the
//! protocol between them.

mod answers;

use std::{
    cell::RefCell,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use ipnet::Ipv6Net;
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    time::Instant,
    wire::MTU,
};
use teredo_proto::{
    ServerAddress,
    server::{Event, Server},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    clock,
    port::{Port, register},
};
use crate::{
    config,
    datapath::{
        native,
        route::{self, Family, OwnAddresses, Routes},
        tun::{PacketBatch, Tun},
        udp::{ReceiveBatch, Sender, UdpSocket},
    },
};
pub use answers::AnswerFailures;
use answers::Answers;

/// The running server.
#[derive(Debug)]
pub struct ServerRole {
    prefix: ServicePrefix,
    /// The primary and the secondary address.
    addresses: [Ipv4Addr; 2],
    /// `None` for an address at which the relay listens.
    ports: [Option<Port>; 2],
    /// The prefixes of the tunnel service's clients.
    routed: Vec<Ipv6Net>,
    answers: Answers,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    has_addresses: bool,
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
    Shared(SocketAddrV4, Sender),
}

impl Socket {
    fn open(self) -> io::Result<(Ipv4Addr, Option<Port>, Sender)> {
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
                (*udp.local.ip(), Some(port), udp.sender)
            }
            Self::Shared(local, sender) => (*local.ip(), None, sender),
        })
    }
}

impl ServerRole {
    /// Opens the native socket and the tunnel service's interface, if they are needed. `sockets` are
    /// those of the primary and the secondary address; `routed` are the prefixes of the tunnel
    /// service's clients.
    pub fn new(
        config: &config::ServerSection,
        prefix: ServicePrefix,
        server: Server,
        sockets: [Socket; 2],
        routed: Vec<Ipv6Net>,
    ) -> Result<Self> {
        let [primary, secondary] = sockets;
        let (primary, primary_port, primary_sender) = primary.open()?;
        let (secondary, secondary_port, secondary_sender) = secondary.open()?;
        let mut answers = Answers::new(server, [primary_sender, secondary_sender]);
        if config.forward_echo || config.forward_echo_replies {
            answers.open_native()?;
        }
        if !routed.is_empty() {
            answers.exits.tun = Some(register(Tun::open(&config.tun)?)?);
        }
        Ok(Self {
            prefix,
            addresses: [primary, secondary],
            ports: [primary_port, secondary_port],
            routed,
            answers,
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(MTU),
            has_addresses: true,
        })
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

    /// Returns the TUN interface of the tunnel service.
    pub fn tun(&self) -> Option<&Tun> {
        self.answers.exits.tun.as_ref().map(AsyncFd::get_ref)
    }

    /// Brings up the TUN interface, and routes the clients' prefixes into it.
    pub async fn bring_up(&mut self, routes: &Routes) -> Result<()> {
        if let Some(tun) = self.tun() {
            routes.bring_up(tun.index(), MTU).await?;
            route::set_forwarding(Family::Ipv6, tun.name(), true)?;
            for prefix in &self.routed {
                routes.add_route(*prefix, tun.index()).await?;
            }
        }
        self.check_native_route()
    }

    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Result<Input> {
        let [primary, secondary] = &self.ports;
        let datagrams = RefCell::new(&mut self.datagrams);
        tokio::select! {
            received = receive(primary.as_ref(), &datagrams) => {
                received.with_context(|| failure(self.addresses[0]))?;
                Ok(Input::Datagrams(ServerAddress::Primary))
            }
            received = receive(secondary.as_ref(), &datagrams) => {
                received.with_context(|| failure(self.addresses[1]))?;
                Ok(Input::Datagrams(ServerAddress::Secondary))
            }
            read = read(self.answers.exits.tun.as_ref(), &mut self.packets) => {
                read?;
                Ok(Input::Packets)
            }
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

    /// Applies changes of the kernel's routing; `addresses` are this host's, if they changed.
    pub fn handle_changes(&mut self, addresses: Option<&OwnAddresses>) -> Result<()> {
        if let Some(addresses) = addresses {
            self.answers.server.set_own_addresses(&addresses.ipv4);
            let missing = self
                .addresses
                .iter()
                .find(|address| !addresses.ipv4.contains(address));
            match missing {
                Some(address) if self.has_addresses => tracing::warn!(
                    "{address} is no longer an address of this host: no client is served there until \
                     it is back"
                ),
                None if !self.has_addresses => tracing::info!("the server's addresses are back"),
                _ => {}
            }
            self.has_addresses = missing.is_none();
        }
        self.check_native_route()
    }

    /// Checks for a route for the service prefix. Without one the answers to connectivity tests could
    /// not return, so the tests are not sent (S-25).
    fn check_native_route(&mut self) -> Result<()> {
        let has_route = native::has_route(self.prefix).context("cannot look for routes")?;
        if self.answers.set_native_reachable(has_route) {
            let prefix = self.prefix;
            if has_route {
                tracing::info!(
                    "this host has a route for {prefix}: connectivity tests are forwarded"
                );
            } else {
                tracing::warn!(
                    "this host has no route for {prefix}: connectivity tests are not forwarded, so \
                     clients will not find their relays; add the route, or an IPv6 default route"
                );
            }
        }
        Ok(())
    }
}

/// Waits for datagrams; forever without a port.
async fn receive(port: Option<&Port>, batch: &RefCell<&mut ReceiveBatch>) -> io::Result<usize> {
    match port {
        Some(port) => port.receive(batch).await,
        None => pending().await,
    }
}

/// Waits for packets; forever without a tunnel service.
async fn read(tun: Option<&AsyncFd<Tun>>, packets: &mut PacketBatch) -> Result<usize> {
    let Some(tun) = tun else {
        return pending().await;
    };
    tun.async_io(Interest::READABLE, |tun| tun.read(packets))
        .await
        .with_context(|| tun.get_ref().read_failure())
}

fn failure(address: Ipv4Addr) -> String {
    format!("the UDP socket of {address} failed")
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
