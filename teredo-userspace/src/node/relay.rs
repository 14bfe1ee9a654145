//! The relay role: its socket, its TUN interface, and the protocol between them.

use std::{
    cell::RefCell,
    mem,
    net::{Ipv4Addr, SocketAddrV4},
};

use anyhow::{Context as _, Result};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    wire::IPV6_HEADER,
};
use teredo_proto::{
    dual::{Recipient, SharedPort},
    relay::{self, Relay, Transmit},
    wire::ipv6::Header,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    clock,
    fast_path::FastPath,
    port::{Port, register},
    send_failures::SendFailures,
    server::ServerRole,
    timer::Timer,
};
use crate::{
    config,
    datapath::{
        BATCH,
        route::{self, Family, OwnAddresses, Routes},
        tun::{PacketBatch, Tun},
        udp::{ReceiveBatch, Sender, UdpSocket},
    },
};

/// The running relay.
#[derive(Debug)]
pub struct RelayRole {
    pub config: config::RelaySection,
    pub relay: Relay,
    pub failures: SendFailures,
    prefix: ServicePrefix,
    endpoint: SocketAddrV4,
    sender: Sender,
    port: Port,
    tun: AsyncFd<Tun>,
    /// Separates the datagrams for the server, if the server shares the port.
    shared_port: Option<SharedPort>,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    transmits: Vec<Transmit>,
    timer: Timer,
    has_address: bool,
}

/// An input that is ready.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Datagrams from clients.
    Datagrams,
    /// Packets from the kernel.
    Packets,
    /// The deadline of the protocol has passed.
    Time,
}

impl RelayRole {
    /// Opens the socket and the TUN interface.
    pub fn new(
        config: config::RelaySection,
        protocol: relay::Config,
        seed: [u8; 32],
        udp: UdpSocket,
        shared_port: Option<SharedPort>,
    ) -> Result<Self> {
        let prefix = protocol.prefix;
        let relay = Relay::new(protocol, seed);
        let tun = Tun::open(&config.tun)?;
        Ok(Self {
            relay,
            failures: SendFailures::default(),
            prefix,
            endpoint: udp.local,
            sender: udp.sender,
            port: Port::new(udp.receiver, udp.marked)?,
            tun: register(tun)?,
            shared_port,
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(config.mtu),
            transmits: Vec::new(),
            timer: Timer::new(),
            has_address: true,
            config,
        })
    }

    /// Returns the local endpoint.
    pub fn endpoint(&self) -> SocketAddrV4 {
        self.endpoint
    }

    /// Returns the TUN interface.
    pub fn tun(&self) -> &Tun {
        self.tun.get_ref()
    }

    /// Brings up the TUN interface.
    pub async fn bring_up(&self, routes: &Routes) -> Result<()> {
        let tun = self.tun();
        routes.bring_up(tun.index(), self.config.mtu).await?;
        if !self.config.host_specific {
            for family in [Family::Ipv4, Family::Ipv6] {
                route::set_forwarding(family, tun.name(), true)?;
            }
        }
        Ok(())
    }

    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Result<Input> {
        self.timer.set(self.relay.poll_timeout());
        let datagrams = RefCell::new(&mut self.datagrams);
        tokio::select! {
            received = self.port.receive(&datagrams) => {
                received.context("the UDP socket failed")?;
                Ok(Input::Datagrams)
            }
            read = self.tun.async_io(Interest::READABLE, |tun| tun.read(&mut self.packets)) => {
                read.with_context(|| self.tun.get_ref().read_failure())?;
                Ok(Input::Packets)
            }
            () = self.timer.expired() => Ok(Input::Time),
        }
    }

    /// Handles an input. Call [`Self::flush`] afterwards.
    pub fn handle(&mut self, input: Input, server: Option<&mut ServerRole>) {
        match (input, server) {
            (Input::Datagrams, Some(server)) if self.shared_port.is_some() => {
                self.decapsulate_shared(server)
            }
            (Input::Datagrams, _) => self.decapsulate(),
            (Input::Packets, _) => self.encapsulate(),
            (Input::Time, _) => self.relay.handle_timeout(clock::now()),
        }
    }

    /// Moves packets from clients to the kernel.
    fn decapsulate(&mut self) {
        let now = clock::now();
        for datagram in self.datagrams.datagrams() {
            if let Ok(header) = Header::parse(datagram.payload) {
                self.relay.prefetch(&header.source());
            }
        }
        let (tun, failures) = (self.tun.get_ref(), &mut self.failures.decapsulated);
        let mut packets: [&[u8]; BATCH] = [&[]; BATCH];
        let mut count = 0;
        for datagram in self.datagrams.datagrams() {
            let packet = self.relay.handle_datagram(
                now,
                datagram.source.into(),
                datagram.ecn,
                datagram.payload,
            );
            if let Some(packet) = packet {
                packets[count] = packet;
                count += 1;
            }
            if count == BATCH {
                *failures += (count - tun.write(&packets)) as u64;
                count = 0;
            }
        }
        *failures += (count - tun.write(&packets[..count])) as u64;
    }

    /// Moves packets from clients to the server or the kernel, on a shared port.
    fn decapsulate_shared(&mut self, server: &mut ServerRole) {
        let Some(shared_port) = &self.shared_port else {
            return;
        };
        let now = clock::now();
        for datagram in self.datagrams.datagrams() {
            let from = datagram.source.into();
            if shared_port.recipient(&self.relay, now, datagram.payload) == Recipient::Server {
                server.handle_shared(now, from, datagram.payload);
                continue;
            }
            let packet = self
                .relay
                .handle_datagram(now, from, datagram.ecn, datagram.payload);
            if let Some(packet) = packet {
                let packet: &[u8] = packet;
                self.failures.decapsulated += (1 - self.tun.get_ref().write(&[packet])) as u64;
            }
        }
        server.flush();
    }

    /// Moves packets from the kernel to clients.
    fn encapsulate(&mut self) {
        /// Placeholder of unused batch slots.
        const UNUSED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let now = clock::now();
        for packet in self.packets.packets() {
            if let Ok(header) = Header::parse(packet) {
                self.relay.prefetch(&header.destination());
            }
        }
        let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(UNUSED, &[]); BATCH];
        let mut count = 0;
        for packet in self.packets.packets() {
            if let Some((to, payload)) = self.relay.handle_ipv6(now, packet) {
                datagrams[count] = (to.into(), payload);
                count += 1;
            }
        }
        let sent = self.sender.send(&datagrams[..count]);
        self.failures.encapsulated += (count - sent) as u64;
    }

    /// Sends the packets of the protocol, then applies its events to the fast path.
    pub fn flush(
        &mut self,
        fast_path: &mut FastPath,
        mut server: Option<&mut ServerRole>,
    ) -> Result<()> {
        while let Some(first) = self.relay.poll_transmit() {
            self.transmits.push(first);
            while self.transmits.len() < BATCH
                && let Some(next) = self.relay.poll_transmit()
            {
                self.transmits.push(next);
            }
            self.transmit(server.as_deref_mut());
        }
        while let Some(event) = self.relay.poll_event() {
            fast_path.apply(event)?;
        }
        Ok(())
    }

    fn transmit(&mut self, server: Option<&mut ServerRole>) {
        let transmits = mem::take(&mut self.transmits);
        let (mut datagrams, mut packets) = (Vec::new(), Vec::new());
        let mut bubbles: Vec<&[u8; IPV6_HEADER]> = Vec::new();
        for transmit in &transmits {
            match transmit {
                Transmit::Datagram { to, payload } => {
                    datagrams.push(((*to).into(), payload.as_slice()));
                }
                Transmit::OwnServer { bubble } => bubbles.push(bubble),
                Transmit::Ipv6(packet) => packets.push(packet.as_slice()),
            }
        }
        let sent = self.sender.send(&datagrams);
        self.failures.encapsulated += (datagrams.len() - sent) as u64;
        let written = self.tun.get_ref().write(&packets);
        self.failures.decapsulated += (packets.len() - written) as u64;
        if let Some(server) = server {
            let relay = Endpoint::from(self.endpoint);
            for bubble in bubbles {
                server.forward_for_relay(relay, bubble);
            }
            server.flush();
        }
        // Keep the allocation.
        self.transmits = transmits;
        self.transmits.clear();
    }

    /// Sets this host's addresses. If the relay's own is missing, replies cannot arrive, so the route
    /// is withdrawn.
    pub async fn set_own_addresses(
        &mut self,
        addresses: &OwnAddresses,
        routes: &Routes,
    ) -> Result<()> {
        self.relay
            .set_own_addresses(&addresses.ipv4, &addresses.ipv6);
        let address = *self.endpoint.ip();
        let has_address = addresses.ipv4.contains(&address);
        if has_address == self.has_address {
            return Ok(());
        }
        self.has_address = has_address;
        if has_address {
            tracing::info!("{address} is an address of this host again");
        } else {
            tracing::warn!(
                "{address} is no longer an address of this host: no packets are relayed until it is \
                 back, or the daemon is restarted with another"
            );
        }
        self.update_route(routes).await
    }

    /// Adds the route of the service prefix, or removes it if the relay has lost its address.
    pub async fn update_route(&self, routes: &Routes) -> Result<()> {
        if !self.config.route {
            return Ok(());
        }
        let prefix = config::network(self.prefix);
        if self.has_address {
            routes.add_route(prefix, self.tun().index()).await?;
        } else {
            routes.remove_route(prefix, self.tun().index()).await?;
        }
        Ok(())
    }
}
