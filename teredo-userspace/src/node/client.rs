//! The client role: its ports, its TUN interface, what it knows of its host, and the protocol
//! between them.

mod discovery;
mod interface;
pub mod network;
mod port_mapping;
mod ports;
mod record;
pub mod servers;
mod suspend;

use std::{
    cell::RefCell,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    pin::Pin,
    time::Duration,
};

use anyhow::{Context as _, Result};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    scope::Ipv4Scope,
    time::Instant,
    wire::MTU,
};
use teredo_proto::client::{
    self, Client, Credentials, Event, Extensions, Identity, Nat, Offline, Refresh, Transmit,
};
use tokio::{
    io::Interest,
    time::{Sleep, sleep},
};

use super::{
    clock,
    port::Port,
    relay::{Losses, arm, tun_failure},
};
use crate::{
    config::{self, RefreshInterval},
    datapath::{
        BATCH,
        route::Routes,
        tun::{PacketBatch, Tun},
        udp::{ReceiveBatch, Sender, UdpSocket},
    },
    metrics::ClientStatus,
};
use discovery::{LocalDiscovery, Multicast};
use interface::Interface;
use network::Surroundings;
use port_mapping::{Link, PortMapping};
use ports::Ports;
use servers::Servers;
use suspend::SuspendClock;

/// The interval between maintenance solicitations until it is measured (RFC 4380 section 2.15).
const REFRESH: Duration = Duration::from_secs(30);
/// For how long the gateway is waited for before the protocol starts.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The destination of no datagram.
const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// The running client.
#[derive(Debug)]
pub struct ClientRole {
    pub client: Client,
    pub losses: Losses,
    config: config::Client,
    prefix: ServicePrefix,
    /// The service port.
    number: u16,
    port: Port,
    sender: Sender,
    ports: Ports,
    discovery: Option<LocalDiscovery>,
    interface: Interface,
    servers: Servers,
    mapping: PortMapping,
    /// When the protocol starts even if the gateway has not answered.
    patience: Pin<Box<Sleep>>,
    is_started: bool,
    surroundings: Surroundings,
    suspend: SuspendClock,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    timer: Pin<Box<Sleep>>,
    armed: Option<Instant>,
    /// What the NAT was measured to need.
    refresh: Option<Duration>,
}

/// What has come.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Datagrams to this local port.
    Datagrams(u16),
    /// A datagram to the discovery address.
    Discovery(Multicast),
    /// Packets from the kernel.
    Packets,
    /// The time that the protocol waits for.
    Time,
    /// Other servers are known.
    Servers,
    /// The gateway has answered, or was waited for long enough.
    Gateway,
}

impl ClientRole {
    /// Opens the ports and the TUN interface.
    pub fn new(
        config: config::Client,
        node: &config::Node,
        credentials: Option<Credentials>,
        seed: [u8; 32],
    ) -> Result<Self> {
        let prefix = node.prefix;
        let udp = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, config.port))?;
        let number = udp.local.port();
        let servers = Servers::new(&config.servers, config.secondary, config.ipv4_scope);
        let protocol = client::Config {
            credentials,
            ..protocol_config(&config, prefix, servers.known(), number)
        };
        let discovery = match config.local_discovery.then(LocalDiscovery::open) {
            Some(Ok(discovery)) => Some(discovery),
            Some(Err(error)) => {
                tracing::warn!(
                    "clients on the same link are not found, since UDP port 3544 of 224.0.0.253 \
                     cannot be opened: {error}"
                );
                None
            }
            None => None,
        };
        let network = config::network(prefix);
        Ok(Self {
            client: Client::new(protocol, seed),
            losses: Losses::default(),
            prefix,
            number,
            port: Port::new(udp.receiver, udp.marked)?,
            sender: udp.sender,
            ports: Ports::new()?,
            discovery,
            interface: Interface::open(&config.tun, network, config.default_route)?,
            servers,
            mapping: PortMapping::new(&node.name),
            patience: Box::pin(sleep(PATIENCE)),
            is_started: false,
            surroundings: Surroundings::default(),
            suspend: SuspendClock::new(),
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(MTU),
            timer: Box::pin(sleep(clock::NEVER)),
            armed: None,
            refresh: None,
            config,
        })
    }

    /// The TUN interface.
    pub fn tun(&self) -> &Tun {
        self.interface.tun.get_ref()
    }

    /// How the client is.
    pub fn status(&self) -> ClientStatus {
        let refresh = match self.config.refresh {
            RefreshInterval::Auto => self.refresh.unwrap_or(REFRESH),
            RefreshInterval::Seconds(seconds) => Duration::from_secs(u64::from(seconds)),
        };
        ClientStatus {
            port_mapping: self.mapping.external().map(Into::into),
            ..ClientStatus::of(&self.client, self.number, refresh)
        }
    }

    /// Makes the TUN interface ready, and begins.
    pub async fn bring_up(&mut self, routes: &Routes) -> Result<()> {
        self.interface.bring_up(routes).await?;
        self.follow(routes).await?;
        self.start_when_ready(routes).await
    }

    /// Starts the protocol once a server is known, and the gateway has answered or was waited for
    /// long enough: what it forwards is to be there before the server sees the mapping.
    async fn start_when_ready(&mut self, routes: &Routes) -> Result<()> {
        let is_waiting = self.mapping.is_pending() && !self.patience.is_elapsed();
        if !self.is_started && !is_waiting && !self.servers.known().is_empty() {
            self.is_started = true;
            self.client.start(clock::now());
        }
        self.settle(routes).await
    }

    /// Waits for something to do. Cancelling loses nothing.
    pub async fn input(&mut self) -> Result<Input> {
        let deadline = self.client.poll_timeout();
        if deadline != self.armed {
            self.armed = deadline;
            arm(self.timer.as_mut(), deadline);
        }
        let datagrams = RefCell::new(&mut self.datagrams);
        let (tun, packets) = (&self.interface.tun, &mut self.packets);
        tokio::select! {
            received = self.port.receive(&datagrams) => {
                received.context("the UDP socket failed")?;
                Ok(Input::Datagrams(self.number))
            }
            port = self.ports.receive(&datagrams) => {
                Ok(Input::Datagrams(port.context("the UDP sockets failed")?))
            }
            read = tun.async_io(Interest::READABLE, |tun| tun.read(packets)) => {
                read.with_context(|| tun_failure(tun.get_ref()))?;
                Ok(Input::Packets)
            }
            multicast = discovered(self.discovery.as_mut()) => {
                Ok(Input::Discovery(multicast.context("the port of local discovery failed")?))
            }
            () = &mut self.timer => {
                self.armed = None;
                Ok(Input::Time)
            }
            () = self.servers.changed() => Ok(Input::Servers),
            () = self.mapping.answered() => Ok(Input::Gateway),
            () = &mut self.patience, if !self.is_started && !self.patience.is_elapsed() => {
                Ok(Input::Gateway)
            }
        }
    }

    /// Does what there is to do.
    pub async fn handle(&mut self, input: Input, routes: &Routes) -> Result<()> {
        match input {
            Input::Datagrams(port) => self.decapsulate(port),
            Input::Packets => self.encapsulate(),
            Input::Time => self.client.handle_timeout(clock::now()),
            Input::Discovery(multicast) => {
                if let Some(discovery) = &self.discovery {
                    let (interface, source) = (multicast.interface, multicast.source.into());
                    let payload = discovery.payload(multicast);
                    self.client
                        .handle_discovery(clock::now(), interface, source, payload);
                }
            }
            Input::Servers => {
                self.client.set_servers(self.servers.known());
                self.follow(routes).await?;
                return self.start_when_ready(routes).await;
            }
            Input::Gateway => {
                self.tell_network();
                return self.start_when_ready(routes).await;
            }
        }
        self.settle(routes).await
    }

    /// From the tunnel to the kernel.
    fn decapsulate(&mut self, to: u16) {
        let now = clock::now();
        let (tun, losses) = (self.interface.tun.get_ref(), &mut self.losses.decapsulated);
        let mut packets: [&[u8]; BATCH] = [&[]; BATCH];
        let mut count = 0;
        for datagram in self.datagrams.datagrams() {
            let (from, ecn) = (datagram.source.into(), datagram.ecn);
            let packet = self
                .client
                .handle_datagram(now, to, from, ecn, datagram.payload);
            if let Some(packet) = packet {
                packets[count] = packet;
                count += 1;
            }
            if count == BATCH {
                *losses += (count - tun.write(&packets)) as u64;
                count = 0;
            }
        }
        *losses += (count - tun.write(&packets[..count])) as u64;
    }

    /// From the kernel into the tunnel. Nearly everything leaves from the service port.
    fn encapsulate(&mut self) {
        let now = clock::now();
        let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(NOWHERE, &[]); BATCH];
        let mut count = 0;
        for packet in self.packets.packets() {
            let Some((from, to, payload)) = self.client.handle_ipv6(now, packet) else {
                continue;
            };
            if from == self.number {
                datagrams[count] = (to.into(), payload);
                count += 1;
            } else {
                let sender = self.ports.sender(from);
                let sent = sender.map_or(0, |sender| sender.send(&[(to.into(), payload)]));
                self.losses.encapsulated += 1 - sent as u64;
            }
        }
        let sent = self.sender.send(&datagrams[..count]);
        self.losses.encapsulated += (count - sent) as u64;
    }

    /// Does what the protocol wants to have done, then follows what it tells.
    async fn settle(&mut self, routes: &Routes) -> Result<()> {
        loop {
            self.transmit();
            let Some(event) = self.client.poll_event() else {
                return Ok(());
            };
            self.take(event, routes).await?;
        }
    }

    fn transmit(&mut self) {
        let (mut packets, mut datagrams) = (Vec::new(), Vec::new());
        let mut port = self.number;
        while let Some(transmit) = self.client.poll_transmit() {
            match transmit {
                Transmit::Datagram { from, to, payload } => {
                    if from != port {
                        self.send(port, &mut datagrams);
                        port = from;
                    }
                    datagrams.push((to, payload));
                }
                Transmit::Ipv6(packet) => packets.push(packet),
                Transmit::Discovery { interface, payload } => self.discover(interface, &payload),
                Transmit::OpenPort(number) => {
                    if let Err(error) = self.ports.open(number) {
                        tracing::debug!("{error}");
                        self.client.handle_port_failure(clock::now(), number);
                    }
                }
                Transmit::ClosePort(number) => {
                    self.send(port, &mut datagrams);
                    self.ports.close(number);
                }
            }
        }
        self.send(port, &mut datagrams);
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let taken = self.interface.tun.get_ref().write(&packets);
        self.losses.decapsulated += (packets.len() - taken) as u64;
    }

    /// Sends datagrams from one port, together.
    fn send(&mut self, from: u16, datagrams: &mut Vec<(Endpoint, Vec<u8>)>) {
        let sender = if from == self.number {
            Some(&mut self.sender)
        } else {
            self.ports.sender(from)
        };
        let borrowed: Vec<(SocketAddrV4, &[u8])> = datagrams
            .iter()
            .map(|(to, payload)| ((*to).into(), payload.as_slice()))
            .collect();
        let sent = sender.map_or(0, |sender| sender.send(&borrowed));
        self.losses.encapsulated += (borrowed.len() - sent) as u64;
        datagrams.clear();
    }

    fn discover(&mut self, source: Ipv4Addr, payload: &[u8]) {
        // Who has the address no longer need not tell anybody.
        let Some(interface) = self.surroundings.interface_with(source) else {
            return;
        };
        if let Err(error) = self.sender.discover(interface, source, payload) {
            tracing::debug!("cannot send a discovery bubble from {source}: {error}");
        }
    }

    async fn take(&mut self, event: Event, routes: &Routes) -> Result<()> {
        match event {
            Event::Qualified(identity) => {
                tracing::info!("the address is {}", describe(&identity));
                self.refresh = None;
                if usize::from(identity.mtu) > self.packets.room() {
                    self.packets = PacketBatch::new(identity.mtu);
                }
                let is_only_way = !self.surroundings.has_default;
                self.interface
                    .set_address(routes, identity.address, identity.mtu, is_only_way)
                    .await?;
            }
            Event::Unqualified => {
                tracing::info!("there is no address any more");
                self.interface.clear(routes).await?;
            }
            Event::Offline(reason) => {
                tracing::warn!("off-line: {}", explain(reason));
                if reason == Offline::NoAnswer {
                    // It may have moved.
                    self.servers.look_up();
                }
            }
            Event::RenewKey => tracing::warn!(
                "the server wants another key to be used: get the new one and replace the file of \
                 client.secret-file"
            ),
            Event::RefreshFound(interval) => {
                let seconds = interval.as_secs();
                tracing::info!("the NAT keeps its mapping for {seconds} s or longer");
                self.refresh = Some(interval);
            }
        }
        Ok(())
    }

    /// Follows changes of the host's network.
    pub async fn follow(&mut self, routes: &Routes) -> Result<()> {
        let tunnel = self.tun().index();
        let mut servers: Vec<_> = self.client.server().into_iter().collect();
        servers.extend(self.servers.known());
        let found = Surroundings::read(routes, tunnel, self.prefix, &servers).await?;
        let links = std::mem::replace(&mut self.surroundings, found).links;
        if let Some(discovery) = &mut self.discovery {
            discovery.follow(&self.surroundings.links);
        }
        if links != self.surroundings.links {
            self.servers.hurry();
        }
        self.mapping.follow(self.link_to_gateway());
        self.tell_network();
        let is_only_way = !self.surroundings.has_default;
        self.interface.hold_default(routes, is_only_way).await?;
        self.settle(routes).await
    }

    /// Tells the protocol what the network is like.
    fn tell_network(&mut self) {
        let mut network = self.surroundings.network.clone();
        network.native_ipv6 &= self.config.only_without_ipv6;
        network.port_mapping = self.mapping.external();
        self.client.set_network(clock::now(), network);
    }

    /// Where a gateway is to forward the service port: nowhere, if the host has a global address
    /// itself, or no use for the port (Z-01).
    fn link_to_gateway(&self) -> Option<Link> {
        let network = &self.surroundings.network;
        let is_off = network.native_ipv6 && self.config.only_without_ipv6;
        let source = network
            .source
            .filter(|_| self.config.port_mapping && !is_off)?;
        let is_translated = !Ipv4Scope::Strict.accepts(source.octets());
        is_translated.then_some(Link {
            local: SocketAddrV4::new(source, self.number),
            gateway: self.surroundings.gateway?,
        })
    }

    /// Looks whether the host was suspended; to be called about once a second.
    pub async fn look_at_the_clocks(&mut self, routes: &Routes) -> Result<()> {
        if self.suspend.was_suspended() {
            tracing::info!("the host was suspended: the server is asked for the address again");
            self.client.recheck_mapping(clock::now());
            self.settle(routes).await?;
        }
        Ok(())
    }

    /// Gives the address back.
    pub async fn stop(&mut self, routes: &Routes) {
        self.client.stop(clock::now());
        self.mapping.stop().await;
        if let Err(error) = self.settle(routes).await {
            tracing::warn!("{error:#}");
        }
    }
}

/// Waits for a datagram to the discovery address; forever, if nobody listens.
async fn discovered(discovery: Option<&mut LocalDiscovery>) -> io::Result<Multicast> {
    match discovery {
        Some(discovery) => discovery.receive().await,
        None => pending().await,
    }
}

fn protocol_config(
    config: &config::Client,
    prefix: ServicePrefix,
    servers: Vec<client::ServerEndpoints>,
    port: u16,
) -> client::Config {
    client::Config {
        prefix,
        ipv4_scope: config.ipv4_scope,
        refresh: match config.refresh {
            RefreshInterval::Auto => Refresh::Auto,
            RefreshInterval::Seconds(seconds) => {
                Refresh::Fixed(Duration::from_secs(u64::from(seconds)))
            }
        },
        cone_probe: config.cone_probe,
        draft_flags: config.draft_flags,
        random_link_local: config.random_link_local,
        honor_cone: config.honor_cone,
        legacy_server: config.legacy_server,
        legacy_prefix: config.legacy_prefix,
        allow_tunnel: config.allow_tunnel,
        accept_unsolicited: config.accept_unsolicited,
        local_discovery: config.local_discovery,
        extensions: Extensions {
            symmetric: config.symmetric,
            port_preserving: config.port_preserving,
            sequential: config.sequential,
            hairpinning: config.hairpinning,
            load_reduction: config.load_reduction,
        },
        max_peers: config.max_peers,
        queue_per_peer: config.queue_per_peer,
        queue_total_bytes: config.queue_total_bytes,
        ..client::Config::new(servers, port)
    }
}

fn describe(identity: &Identity) -> String {
    let Identity {
        address,
        mapped,
        server,
        nat,
        ..
    } = identity;
    let nat = match nat {
        Nat::Cone => "no NAT or a cone NAT",
        Nat::Restricted => "a NAT with endpoint-independent mapping, or none",
        Nat::Symmetric => "a symmetric NAT",
    };
    let server = server.primary;
    if identity.tunnel {
        format!("{address}, a tunnel through the server {server}, which sees {mapped}")
    } else {
        format!("{address}; the server {server} sees {mapped}, behind {nat}")
    }
}

/// Why a client is off-line, and what helps.
fn explain(reason: Offline) -> &'static str {
    match reason {
        Offline::NoAnswer => {
            "no server answers; is UDP to port 3544 blocked, or client.server wrong? It is tried \
             again"
        }
        Offline::Symmetric => {
            "the NAT is symmetric: set client.symmetric = true, or forward a port to this host and \
             set client.port to it"
        }
        Offline::NoNetwork => "this host has no way to the IPv4 internet",
        Offline::NativeIpv6 => {
            "this host has other IPv6 connectivity, which is better; set client.only-without-ipv6 = \
             false to run nevertheless"
        }
    }
}
