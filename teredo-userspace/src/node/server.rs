//! The server role: its two addresses, its way into the native internet, its tunnel service, and
//! the protocol between them.

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
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    clock,
    port::{Port, register},
};
use teredo_proto::server::{Event, Server, ServerAddress};

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
    /// None where the relay listens.
    ports: [Option<Port>; 2],
    /// The prefixes of the tunnel service's clients.
    routed: Vec<Ipv6Net>,
    answers: Answers,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    is_at_home: bool,
}

/// What has come.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Datagrams to one of the addresses.
    Datagrams(ServerAddress),
    /// Packets for clients of the tunnel service.
    Packets,
}

/// Where one of the server's addresses listens.
#[derive(Debug)]
pub enum Socket {
    /// By itself.
    Own(UdpSocket),
    /// At the relay's port.
    Shared(SocketAddrV4, Sender),
}

impl Socket {
    fn open(self) -> io::Result<(Ipv4Addr, Option<Port>, Sender)> {
        Ok(match self {
            Self::Own(udp) => {
                // Clients' datagrams are independent of each other, so their order is nothing.
                let mailbox = udp.mailbox();
                let mut port = Port::new(udp.receiver, udp.marked)?;
                match mailbox {
                    Ok(mailbox) => port = port.with_mailbox(mailbox)?,
                    Err(error) => {
                        let error = anyhow::Error::new(error);
                        tracing::debug!("receiving takes longer: {error:#}");
                    }
                }
                (*udp.local.ip(), Some(port), udp.sender)
            }
            Self::Shared(local, sender) => (*local.ip(), None, sender),
        })
    }
}

impl ServerRole {
    /// Opens the ways into the native internet. `sockets` are those of the primary and the
    /// secondary address; `routed` are the prefixes of the tunnel service's clients.
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
            answers.tun = Some(register(Tun::open(&config.tun)?)?);
        }
        Ok(Self {
            prefix,
            addresses: [primary, secondary],
            ports: [primary_port, secondary_port],
            routed,
            answers,
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(MTU),
            is_at_home: true,
        })
    }

    /// The protocol.
    pub fn server(&mut self) -> &mut Server {
        &mut self.answers.server
    }

    /// The protocol, to look at.
    pub fn protocol(&self) -> &Server {
        &self.answers.server
    }

    /// Answers that the kernel did not accept.
    pub fn failures(&self) -> AnswerFailures {
        self.answers.failures
    }

    /// Datagrams that came faster than they were taken.
    pub fn overrun(&self) -> u64 {
        self.ports.iter().flatten().map(Port::lost).sum()
    }

    /// The TUN interface of the tunnel service.
    pub fn tun(&self) -> Option<&Tun> {
        self.answers.tun.as_ref().map(AsyncFd::get_ref)
    }

    /// Makes the TUN interface ready, and has the kernel route the clients' prefixes into it.
    pub async fn bring_up(&mut self, routes: &Routes) -> Result<()> {
        if let Some(tun) = self.tun() {
            routes.bring_up(tun.index(), MTU).await?;
            route::set_forwarding(Family::Ipv6, tun.name(), true)?;
            for prefix in &self.routed {
                routes.add_route(*prefix, tun.index()).await?;
            }
        }
        self.look_for_routes()
    }

    /// Waits for something to do. Cancelling loses nothing.
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
            read = read(self.answers.tun.as_ref(), &mut self.packets) => {
                read?;
                Ok(Input::Packets)
            }
        }
    }

    /// Does what there is to do.
    pub fn handle(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Datagrams(address) => {
                for datagram in self.datagrams.datagrams() {
                    let from = datagram.source.into();
                    self.answers.take(now, address, from, datagram.payload);
                }
            }
            Input::Packets => {
                for packet in self.packets.packets() {
                    self.answers.take_packet(now, packet);
                }
            }
        }
        self.answers.flush();
        self.tell();
    }

    /// Takes a datagram that came to the primary address, where the relay listens. Afterwards,
    /// [`Self::flush`].
    pub fn take_shared(&mut self, now: Instant, from: Endpoint, payload: &[u8]) {
        self.answers
            .take(now, ServerAddress::Primary, from, payload);
    }

    /// Forwards an indirect bubble of the relay in this process. Afterwards, [`Self::flush`].
    pub fn forward_for_relay(&mut self, relay: Endpoint, bubble: &[u8]) {
        self.answers.forward_for_relay(clock::now(), relay, bubble);
    }

    /// Sends what waits to be sent together.
    pub fn flush(&mut self) {
        self.answers.flush();
        self.tell();
    }

    /// Tells the operator what is rare enough to be told.
    fn tell(&mut self) {
        while let Some(event) = self.answers.server.poll_event() {
            tell(&event);
        }
    }

    /// Follows changes of the kernel's routing.
    pub fn follow(&mut self, addresses: Option<&OwnAddresses>) -> Result<()> {
        if let Some(addresses) = addresses {
            self.answers.server.set_own_addresses(&addresses.ipv4);
            let missing = self
                .addresses
                .iter()
                .find(|address| !addresses.ipv4.contains(address));
            match missing {
                Some(address) if self.is_at_home => tracing::warn!(
                    "{address} is no address of this host any more: nobody is served there until \
                     it is back"
                ),
                None if !self.is_at_home => tracing::info!("the server's addresses are back"),
                _ => {}
            }
            self.is_at_home = missing.is_none();
        }
        self.look_for_routes()
    }

    /// S-25: connectivity tests leave only if there is a way back for their answers.
    fn look_for_routes(&mut self) -> Result<()> {
        let has_route = native::has_route(self.prefix).context("cannot look for routes")?;
        if self.answers.may_send_native(has_route) {
            let prefix = self.prefix;
            if has_route {
                tracing::info!("there is a route for {prefix}: connectivity tests are forwarded");
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

/// Waits for datagrams; forever, if others get them.
async fn receive(port: Option<&Port>, batch: &RefCell<&mut ReceiveBatch>) -> io::Result<usize> {
    match port {
        Some(port) => port.receive(batch).await,
        None => pending().await,
    }
}

/// Waits for packets; forever, if there is no tunnel service.
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

fn tell(event: &Event) {
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
            "client \"{}\" moves again and again, now to {mapped}: two hosts may have its key",
            client.escape_ascii()
        ),
    }
}
