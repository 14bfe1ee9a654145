//! The client role: its ports, its TUN interface, its view of the host's network, and the protocol
//! between them.

mod capture;
mod discovery;
mod encapsulation;
mod port_mapping;
mod ports;
mod record;
mod servers;

use std::{
    cell::RefCell,
    future::pending,
    net::{Ipv4Addr, SocketAddrV4},
    pin::Pin,
    time::Duration,
};

use anyhow::Result;
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    scope::Ipv4Scope,
    wire::MTU,
};
use teredo_proto::{
    client::{
        self, Client, Credentials, Event, Extensions, Identity, Offline, Refresh, SavedClient,
        State, Transmit,
    },
    nat::Behaviour,
};
use tokio::time::{Sleep, sleep};

use super::{
    clock,
    port::Port,
    send_failures::SendFailures,
    timer::Timer,
    tunnel::{self, Lifetime, Tunnel},
};
use crate::{
    condition::{Condition, Kind},
    config::{self, RefreshInterval},
    datapath::{
        BATCH,
        offload::Coalescer,
        tun::PacketBatch,
        udp::{BindError, ReceiveBatch, Sender, UdpSocket},
    },
    handover::{
        Inheritance,
        descriptors::{self, Named},
        state::ServerNames,
    },
    host::{HostNetwork, Snapshot},
    metrics::{ClientStatus, Role},
    plan::Tunnelled,
};
use capture::ClientTap;
use discovery::{LocalDiscovery, Multicast};
use port_mapping::{GatewayLink, PortMapping};
use ports::ExtraPorts;
pub use record::directory as port_mapping_directory;
use servers::Servers;

/// The interval between maintenance solicitations until it is measured (RFC 4380 section 2.15).
const REFRESH: Duration = Duration::from_secs(30);
/// The longest wait for the gateway before the protocol starts.
const GATEWAY_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Most packets that are written together: several times those that the kernel coalesces.
const WRITTEN: usize = 4 * BATCH;

/// The running client.
#[derive(Debug)]
pub struct ClientRole {
    pub client: Client,
    pub failures: SendFailures,
    pub tap: ClientTap,
    config: config::ClientSection,
    prefix: ServicePrefix,
    /// The service port, host byte order.
    service_port: u16,
    port: Port,
    sender: Sender,
    ports: ExtraPorts,
    discovery: Option<LocalDiscovery>,
    pub tunnel: Tunnel,
    /// The address and the MTU, while the client is qualified.
    tunnelled: Option<Tunnelled>,
    servers: Servers,
    mapping: PortMapping,
    /// Ends the wait for the gateway.
    gateway_timeout: Pin<Box<Sleep>>,
    is_started: bool,
    /// Whether an earlier process has left everything.
    goes_on: bool,
    is_qualified: bool,
    host: HostNetwork,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    /// Memory for the headers of segments.
    headers: Vec<u8>,
    coalescer: Coalescer,
    timer: Timer,
    /// The interval that was measured.
    refresh: Option<Duration>,
    /// The reason why the client has no address, while it has none.
    offline: Option<Offline>,
    /// Whether the node has to look at the client again.
    has_changed: bool,
}

/// An input that is ready.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Datagrams to this local port.
    Datagrams(u16),
    /// A datagram to the discovery address.
    Discovery(Multicast),
    /// Packets from the kernel.
    Packets,
    /// The deadline of the protocol has passed.
    Time,
    /// The known servers have changed.
    Servers,
    /// The gateway has answered, or the wait for it has ended.
    Gateway,
}

impl ClientRole {
    /// Opens the ports and the TUN interface, or goes on with those of an earlier process.
    pub fn new(
        config: config::ClientSection,
        node: &config::NodeSection,
        credentials: Option<Credentials>,
        seed: [u8; 32],
        left: &mut Inheritance,
    ) -> Result<Self> {
        let prefix = node.prefix;
        let saved = left.state.client.take();
        let udp = open(config.port, saved.as_ref(), left)?;
        let service_port = udp.local.port();
        let names = left.state.server_names.take().unwrap_or_default();
        let servers = Servers::new(&config, &names);
        let protocol = client::Config {
            credentials,
            ..protocol_config(&config, prefix, servers.known(), service_port)
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
        let saved = saved.filter(|saved| is_fit(saved, &protocol));
        let is_started = saved.as_ref().is_some_and(SavedClient::is_started);
        let tun = left.take_tun(&config.tun);
        let goes_on = saved.is_some() && !tun.is_empty();
        let client = match saved {
            Some(saved) => Client::restore(protocol, seed, clock::now(), saved),
            None => Client::new(protocol, seed),
        };
        let tunnel = tunnel::Options {
            role: Role::Client,
            name: config.tun.clone(),
            lifetime: Lifetime::Process,
            ends_here: true,
            is_offloaded: config.tun_offload,
            threads: 1,
        };
        let mut role = Self {
            client,
            failures: SendFailures::default(),
            tap: ClientTap::new(service_port),
            prefix,
            service_port,
            port: Port::new(udp.receiver, udp.marked)?,
            sender: udp.sender,
            ports: ExtraPorts::new(left.take_ports())?,
            discovery,
            tunnel: Tunnel::open(tunnel, tun)?,
            goes_on,
            tunnelled: None,
            servers,
            mapping: PortMapping::new(&node.name),
            gateway_timeout: Box::pin(sleep(GATEWAY_TIMEOUT)),
            is_started,
            is_qualified: false,
            host: HostNetwork::default(),
            datagrams: ReceiveBatch::new(),
            packets: packets(&config, MTU),
            headers: Vec::new(),
            coalescer: Coalescer::default(),
            timer: Timer::new(),
            refresh: None,
            offline: None,
            has_changed: false,
            config,
        };
        // The address, and the ports that were open.
        role.flush();
        Ok(role)
    }

    /// Returns whether the client goes on where an earlier process ended, whose interface has its address.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Ends [`Self::make_room`] of an earlier process.
    pub fn end_room(&self) {
        self.port.end_room();
    }

    /// Makes room for what comes until the next process receives it.
    pub fn make_room(&self) {
        self.port.make_room();
    }

    /// Returns the descriptors that outlive the process.
    pub fn descriptors(&self) -> impl Iterator<Item = Named<'_>> {
        let sockets = descriptors::udp(&self.sender, self.port.receivers());
        let ports = self.ports.descriptors();
        sockets.chain(ports).chain(self.tunnel.descriptors())
    }

    /// Returns the addresses that the next process goes on with, of each server that has a name.
    pub fn server_names(&self) -> ServerNames {
        self.servers.names(self.client.server())
    }

    /// Returns the address and the MTU of the tunnel, while the client is qualified.
    pub fn tunnelled(&self) -> Option<Tunnelled> {
        self.tunnelled
    }

    /// Returns the numbers of datagrams to the service port, and of packets of this host, that came
    /// faster than they were received.
    pub fn overrun(&self) -> [u64; 2] {
        [self.port.lost(), self.tunnel.dropped()]
    }

    /// Returns the status of the client.
    pub fn status(&self) -> ClientStatus {
        let refresh = match self.config.refresh {
            RefreshInterval::Auto => self.refresh.unwrap_or(REFRESH),
            RefreshInterval::Seconds(seconds) => Duration::from_secs(u64::from(seconds)),
        };
        ClientStatus {
            port_mapping: self.mapping.external().map(Into::into),
            ..ClientStatus::of(&self.client, self.service_port, refresh)
        }
    }

    /// Starts the protocol once a server is known and the wait for the gateway has ended: a port
    /// mapping must exist before the server sees the mapped endpoint.
    pub fn start_when_ready(&mut self) {
        let is_waiting = self.mapping.is_pending() && !self.gateway_timeout.is_elapsed();
        if !self.is_started && !is_waiting && !self.servers.known().is_empty() {
            self.is_started = true;
            self.client.start(clock::now());
        }
        self.flush();
    }

    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Input {
        self.timer.set(self.client.poll_timeout());
        let datagrams = RefCell::new(&mut self.datagrams);
        tokio::select! {
            _ = self.port.receive(&datagrams) => Input::Datagrams(self.service_port),
            port = self.ports.receive(&datagrams) => Input::Datagrams(port),
            _ = self.tunnel.read(&mut self.packets) => Input::Packets,
            multicast = discovered(self.discovery.as_mut()) => Input::Discovery(multicast),
            () = self.timer.expired() => Input::Time,
            () = self.servers.changed() => Input::Servers,
            () = self.mapping.answered() => Input::Gateway,
            () = &mut self.gateway_timeout,
                if !self.is_started && !self.gateway_timeout.is_elapsed() => Input::Gateway,
        }
    }

    /// Handles an input.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Datagrams(port) => self.decapsulate(port),
            Input::Packets => self.encapsulate(),
            Input::Time => self.client.handle_timeout(clock::now()),
            Input::Discovery(multicast) => {
                if let Some(discovery) = &self.discovery {
                    let payload = discovery.payload(multicast);
                    (self.tap).handle_discovery(&mut self.client, clock::now(), multicast, payload);
                }
            }
            Input::Servers => {
                self.has_changed = true;
                self.servers.forget(self.client.server());
                self.client.set_servers(self.servers.known());
                self.start_when_ready();
            }
            Input::Gateway => {
                self.update_network();
                self.start_when_ready();
            }
        }
        self.flush();
    }

    /// Moves packets from the tunnel to the kernel.
    fn decapsulate(&mut self, to: u16) {
        let now = clock::now();
        let (tun, failures) = (&self.tunnel, &mut self.failures.decapsulated);
        let mut write = |packets: &[&[u8]]| {
            let written = tun.write_coalesced(packets, &mut self.coalescer);
            *failures += (packets.len() - written) as u64;
        };
        let mut packets: [&[u8]; WRITTEN] = [&[]; WRITTEN];
        let mut count = 0;
        for datagram in self.datagrams.datagrams() {
            let packet = (self.tap).handle_datagram(&mut self.client, now, to, datagram);
            if let Some(packet) = packet {
                packets[count] = packet;
                count += 1;
            }
            if count == WRITTEN {
                write(&packets);
                count = 0;
            }
        }
        write(&packets[..count]);
    }

    /// Sends the packets of the protocol and handles its events.
    fn flush(&mut self) {
        loop {
            self.transmit();
            let Some(event) = self.client.poll_event() else {
                self.note_qualification();
                return;
            };
            self.handle_event(event);
        }
    }

    /// Renews the port mapping at each qualification: no event tells those with the same address.
    fn note_qualification(&mut self) {
        let is_qualified = self.client.state() == State::Qualified;
        if is_qualified && !self.is_qualified {
            self.mapping.renew();
        }
        self.is_qualified = is_qualified;
    }

    fn transmit(&mut self) {
        let (mut packets, mut datagrams) = (Vec::new(), Vec::new());
        let mut port = self.service_port;
        while let Some(transmit) = self.client.poll_transmit() {
            self.tap.sent(&transmit);
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
        let written = self.tunnel.write(&packets);
        self.failures.decapsulated += (packets.len() - written) as u64;
    }

    /// Sends datagrams from one port, together.
    fn send(&mut self, from: u16, datagrams: &mut Vec<(Endpoint, Vec<u8>)>) {
        let sender = if from == self.service_port {
            Some(&mut self.sender)
        } else {
            self.ports.sender(from)
        };
        let borrowed: Vec<(SocketAddrV4, &[u8])> = datagrams
            .iter()
            .map(|(to, payload)| ((*to).into(), payload.as_slice()))
            .collect();
        let sent = sender.map_or(0, |sender| sender.send(&borrowed));
        self.failures.encapsulated += (borrowed.len() - sent) as u64;
        datagrams.clear();
    }

    fn discover(&mut self, source: Ipv4Addr, payload: &[u8]) {
        // Without the address there is no link to announce the client on.
        let Some(interface) = self.host.interface_with(source) else {
            return;
        };
        if let Err(error) = self.sender.discover(interface, source, payload) {
            tracing::debug!("cannot send a discovery bubble from {source}: {error}");
        }
    }

    fn handle_event(&mut self, event: Event) {
        self.has_changed = true;
        match event {
            Event::Qualified(identity) => {
                tracing::info!("Teredo address {}", describe(&identity));
                self.refresh = None;
                if usize::from(identity.mtu) > self.packets.room() {
                    self.packets = packets(&self.config, identity.mtu);
                }
                self.tunnelled = Some(Tunnelled {
                    address: identity.address,
                    mtu: identity.mtu,
                });
                self.offline = None;
            }
            Event::Unqualified => {
                tracing::info!("Teredo address withdrawn");
                self.tunnelled = None;
            }
            Event::Offline(reason) => {
                self.offline = Some(reason);
                if matches!(reason, Offline::NoAnswer | Offline::SecondarySilent) {
                    // The server may have another address now.
                    self.servers.look_up();
                }
            }
            Event::RenewKey => tracing::warn!(
                "the server asks for a new key: get it from the operator and replace the file of \
                 client.secret-file"
            ),
            Event::RefreshFound(interval) => {
                let seconds = interval.as_secs();
                tracing::info!("the NAT keeps its mapping for at least {seconds} s");
                self.refresh = Some(interval);
            }
        }
    }

    /// Applies a snapshot of the host's network.
    pub fn handle_changes(&mut self, snapshot: &Snapshot) {
        let tunnel = self.tunnel.index().unwrap_or(0);
        let mut servers: Vec<_> = self.client.server().into_iter().collect();
        servers.extend(self.servers.known());
        let found = HostNetwork::of(snapshot, tunnel, self.prefix, &servers);
        let links = std::mem::replace(&mut self.host, found).links;
        self.tap.set_address(self.host.network.source);
        if let Some(discovery) = &mut self.discovery {
            discovery.set_links(&self.host.links);
        }
        if links != self.host.links {
            self.servers.retry_now();
        }
        self.mapping.set_link(self.gateway_link());
        self.update_network();
        if self.offline == Some(Offline::NoNetwork) && self.host.network.source.is_some() {
            // Another reason follows, if there is one.
            self.offline = None;
            self.has_changed = true;
        }
        self.start_when_ready();
    }

    /// Passes the state of the network to the protocol.
    fn update_network(&mut self) {
        let mut network = self.host.network.clone();
        network.native_ipv6 &= self.config.only_without_ipv6;
        network.port_mapping = self.mapping.external();
        self.client.set_network(clock::now(), network);
    }

    /// Returns the link to the gateway that should forward the service port: none if the host itself
    /// has a global address, or the client is off (Z-01).
    fn gateway_link(&self) -> Option<GatewayLink> {
        let network = &self.host.network;
        let is_off = network.native_ipv6 && self.config.only_without_ipv6;
        let source = network
            .source
            .filter(|_| self.config.port_mapping && !is_off)?;
        let is_translated = !Ipv4Scope::Strict.accepts(source.octets());
        is_translated.then_some(GatewayLink {
            local: SocketAddrV4::new(source, self.service_port),
            gateway: self.host.gateway?,
        })
    }

    /// Tries to qualify at once if the client waits after a failure.
    pub fn hasten(&mut self) {
        self.client.hasten(clock::now());
        self.flush();
    }

    /// Handles that the host was suspended for this time.
    pub fn handle_suspension(&mut self, duration: Duration) {
        self.client.handle_suspension(clock::now(), duration);
        self.flush();
    }

    /// Stops the protocol and removes the port mapping.
    pub async fn stop(&mut self) {
        self.client.stop(clock::now());
        self.mapping.stop().await;
        self.flush();
    }

    /// Returns whether the address or a condition may have changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Returns the reasons why the client has no address, and what it cannot use.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let mut add = |kind, subject: &str, text: String| {
            conditions.push(Condition {
                kind,
                role: Role::Client,
                subject: subject.to_owned(),
                text,
            });
        };
        for (name, reason) in self.servers.failures() {
            add(
                Kind::NameUnknown,
                &name,
                format!("the server {name} cannot be looked up: {reason}; it is tried again"),
            );
        }
        if self.servers.known().is_empty() {
            let text = "no server is known, since no name of client.server can be looked up: is the name \
                        server reachable, or client.server wrong? It is tried again";
            add(Kind::ServerSilent, "", text.to_owned());
        } else if let Some(reason) = self.offline
            && let Some(kind) = kind_of(reason)
        {
            add(kind, "", format!("off-line: {}", explain(reason)));
        }
        conditions
    }
}

/// Goes on with the service port of an earlier process, or opens it. Port 0 lets the kernel choose.
fn open(
    port: u16,
    saved: Option<&SavedClient>,
    left: &mut Inheritance,
) -> Result<UdpSocket, BindError> {
    let of_port = |port| SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let before = match port {
        0 => saved.map(SavedClient::port),
        port => Some(port),
    };
    let local = before.map(of_port);
    if let Some(local) = local
        && let Some(sockets) = left.take_udp(local)
    {
        return Ok(UdpSocket::inherited(local, sockets, Vec::new()));
    }
    UdpSocket::bind(of_port(port))
}

/// Returns whether a client can go on from a state. The log says why it cannot.
fn is_fit(saved: &SavedClient, config: &client::Config) -> bool {
    let checked = saved.check(config);
    if let Err(misfit) = checked {
        tracing::warn!(
            "the client does not go on as in the process before, and gets another address: {misfit}"
        );
    }
    checked.is_ok()
}

/// Waits for a datagram to the discovery address; forever without its socket.
async fn discovered(discovery: Option<&mut LocalDiscovery>) -> Multicast {
    match discovery {
        Some(discovery) => discovery.receive().await,
        None => pending().await,
    }
}

fn protocol_config(
    config: &config::ClientSection,
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
        ..
    } = identity;
    let nat = Behaviour::from(identity);
    let server = server.primary;
    if identity.tunnel {
        format!("{address}, a tunnel through the server {server}, which sees {mapped}")
    } else {
        format!("{address}; the server {server} sees {mapped}; NAT {nat}")
    }
}

/// Returns the condition of a client that is off-line; `None` if the host needs no client.
fn kind_of(reason: Offline) -> Option<Kind> {
    match reason {
        Offline::NoAnswer => Some(Kind::ServerSilent),
        Offline::SecondarySilent => Some(Kind::SecondarySilent),
        Offline::Symmetric => Some(Kind::SymmetricNat),
        Offline::NoNetwork => Some(Kind::NoNetwork),
        Offline::NativeIpv6 => None,
    }
}

/// Returns memory for the packets of the tunnel, of this MTU in octets.
fn packets(config: &config::ClientSection, mtu: u16) -> PacketBatch {
    match config.tun_offload {
        true => PacketBatch::of_super_packets(),
        false => PacketBatch::new(mtu),
    }
}

/// Explains why a client is off-line, with the remedy.
fn explain(reason: Offline) -> &'static str {
    match reason {
        Offline::NoAnswer => {
            "no server answers; is UDP to port 3544 blocked, or client.server wrong? The client \
             tries again"
        }
        Offline::SecondarySilent => {
            "the server answers, but not from its secondary address, which tells what the NAT does; \
             is UDP to that address blocked, or does the server have only one? The client tries again"
        }
        Offline::Symmetric => {
            "the NAT is symmetric: set client.symmetric = true, or forward a port to this host and \
             set client.port to it"
        }
        Offline::NoNetwork => "this host has no route to the IPv4 internet",
        Offline::NativeIpv6 => {
            "this host has other IPv6 connectivity, which is better; set client.only-without-ipv6 = \
             false to run nevertheless"
        }
    }
}
