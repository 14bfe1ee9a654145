//! The relay role: its socket, its TUN interface, and the protocol between them.

use std::{
    cell::RefCell,
    mem,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Result;
use teredo_common::{address::Endpoint, peers::Peer, wire::IPV6_HEADER};
use teredo_proto::{
    dual::{Recipient, SharedPort},
    relay::{Event, Relay, Transmit},
    wire::ipv6::Header,
};

use super::{
    clock,
    fast_path::FastPath,
    fleet::{self, FleetRole},
    port::Port,
    send_failures::SendFailures,
    server::ServerRole,
    timer::Timer,
    tunnel::Tunnel,
};
use crate::{
    capture::{Reason, Tap, Tapped},
    config,
    datapath::{
        BATCH,
        route::OwnAddresses,
        tun::PacketBatch,
        udp::{ReceiveBatch, Sender, UdpSocket},
    },
    handover::{
        Journal,
        descriptors::{self, JOURNAL, Named},
    },
    metrics::FleetStatus,
};

/// Slots of the list of peers that one step of the journal covers: a few tenths of a millisecond.
const NOTED: usize = 8192;

/// The running relay.
#[derive(Debug)]
pub struct RelayRole {
    pub relay: Relay,
    pub failures: SendFailures,
    pub tap: Tap,
    endpoint: SocketAddrV4,
    sender: Sender,
    port: Port,
    pub tunnel: Tunnel,
    /// Separates the datagrams for the server, if the server shares the port.
    shared_port: Option<SharedPort>,
    peer_lifetime: Duration,
    datagrams: ReceiveBatch,
    packets: PacketBatch,
    transmits: Vec<Transmit>,
    timer: Timer,
    /// Datagrams from clients, and packets from the kernel, since the start.
    received: [u64; 2],
    /// The relay's part in a fleet, if it has one.
    fleet: Option<FleetRole>,
    /// What was wrong with the fleet when it was last asked.
    fleet_trouble: Option<String>,
    /// The trusted peers, for the case of a crash.
    journal: Option<Journal>,
    /// The slot at which the next step of [`RelayRole::note_peers`] begins.
    next_noted: usize,
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
    /// Something of the fleet's.
    Fleet(fleet::Input),
}

impl RelayRole {
    /// Connects the protocol with its socket and TUN interface.
    pub fn new(
        config: &config::RelaySection,
        relay: Relay,
        peer_lifetime: Duration,
        udp: UdpSocket,
        tunnel: Tunnel,
        shared_port: Option<SharedPort>,
    ) -> Result<Self> {
        Ok(Self {
            relay,
            failures: SendFailures::default(),
            tap: Tap::default(),
            endpoint: udp.local,
            sender: udp.sender,
            port: Port::new(udp.receiver, udp.marked)?,
            tunnel,
            shared_port,
            peer_lifetime,
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(config.mtu),
            transmits: Vec::new(),
            timer: Timer::new(),
            received: [0; 2],
            fleet: None,
            fleet_trouble: None,
            journal: None,
            next_noted: 0,
        })
    }

    /// Makes the relay one of a fleet.
    pub fn join_fleet(&mut self, fleet: FleetRole) {
        self.fleet = Some(fleet);
    }

    /// Whether the relay may not draw packets yet, since it lacks peers of its fleet (F-19).
    pub fn waits_for_fleet(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| !fleet.has_joined())
    }

    /// Returns a sentence about what is wrong with the fleet.
    pub fn fleet_trouble(&self) -> Option<String> {
        self.fleet.as_ref().and_then(FleetRole::trouble)
    }

    /// Returns what the relay knows and counts of its fleet, if it is in one.
    pub fn fleet_status(&self) -> Option<FleetStatus> {
        self.fleet.as_ref().map(FleetRole::status)
    }

    /// Returns the state of the relay's part in its fleet for the next process.
    pub fn fleet_state(&self) -> Option<teredo_proto::fleet::State> {
        self.fleet.as_ref().map(FleetRole::state)
    }

    /// Returns `true` once after the relay has joined its fleet, or something else has become or ceased
    /// to be wrong with it.
    pub fn has_fleet_changed(&mut self) -> bool {
        let Some(fleet) = &mut self.fleet else {
            return false;
        };
        let (has_joined, trouble) = (fleet.take_joined(), fleet.trouble());
        let has_changed = has_joined || trouble != self.fleet_trouble;
        self.fleet_trouble = trouble;
        has_changed
    }

    /// Keeps a journal of the trusted peers from now on.
    pub fn keep_journal(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    /// Notes a change of a trusted peer.
    fn note(&self, event: &Event) {
        let Some(journal) = &self.journal else {
            return;
        };
        // A peer that is forgotten has lost its slot perhaps; the next pass clears that.
        if let Event::PeerTrusted {
            address,
            mapped,
            last_received,
            last_sent,
        } = *event
        {
            let octets = address.octets();
            let peer = Peer {
                mapped,
                last_received,
                last_sent,
            };
            if let Some(slot) = self.relay.slot(&octets) {
                journal.write(slot, Some((&octets, &peer)));
            }
        }
    }

    /// Brings the next part of the journal up to date, if there is one.
    pub fn note_peers(&mut self) {
        let Some(journal) = &self.journal else {
            return;
        };
        let slots = self.relay.slots();
        let start = if self.next_noted < slots {
            self.next_noted
        } else {
            0
        };
        let end = start.saturating_add(NOTED).min(slots);
        let mut slot = start;
        for (number, peer) in self.relay.peers_in(start..end) {
            (slot..number).for_each(|free| journal.write(free, None));
            let entry = Peer {
                mapped: peer.mapped,
                last_received: peer.last_received,
                last_sent: peer.last_sent,
            };
            let octets = peer.address.octets();
            let is_kept = peer.trusted && peer.proved;
            journal.write(number, is_kept.then_some((&octets, &entry)));
            slot = number + 1;
        }
        (slot..end).for_each(|free| journal.write(free, None));
        self.next_noted = end;
    }

    /// Empties the journal: its peers are trusted no more.
    pub fn clear_journal(&mut self) {
        if let Some(journal) = &self.journal {
            (0..self.relay.slots()).for_each(|slot| journal.write(slot, None));
        }
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
        let journal = self.journal.iter();
        let journal = journal.filter_map(|journal| descriptors::named(JOURNAL, journal));
        sockets.chain(self.tunnel.descriptor()).chain(journal)
    }

    /// Returns the local endpoint.
    pub fn endpoint(&self) -> SocketAddrV4 {
        self.endpoint
    }

    /// Returns the time for which a silent peer stays fresh.
    pub fn peer_lifetime(&self) -> Duration {
        self.peer_lifetime
    }

    /// Waits for input. Cancelling loses nothing.
    pub async fn input(&mut self) -> Input {
        self.timer.set(self.relay.poll_timeout());
        let datagrams = RefCell::new(&mut self.datagrams);
        tokio::select! {
            received = self.port.receive(&datagrams) => {
                self.received[0] += received as u64;
                Input::Datagrams
            }
            read = self.tunnel.read(&mut self.packets) => {
                self.received[1] += read as u64;
                Input::Packets
            }
            () = self.timer.expired() => Input::Time,
            input = fleet_input(self.fleet.as_mut()) => Input::Fleet(input),
        }
    }

    /// Returns the numbers of datagrams from clients and of packets from the kernel since the start.
    pub fn received(&self) -> [u64; 2] {
        self.received
    }

    /// Returns the numbers of datagrams from clients, and of packets from the kernel, that came faster
    /// than they were received.
    pub fn overrun(&self) -> [u64; 2] {
        [self.port.lost(), self.tunnel.dropped()]
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
            (Input::Fleet(input), _) => {
                if let Some(fleet) = &mut self.fleet {
                    fleet.handle(input, &mut self.relay);
                }
            }
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
        let (tun, failures) = (&self.tunnel, &mut self.failures.decapsulated);
        let mut packets: [&[u8]; BATCH] = [&[]; BATCH];
        let mut count = 0;
        let (tap, to) = (&self.tap, self.endpoint.into());
        for datagram in self.datagrams.datagrams() {
            let from = datagram.source.into();
            let tapped = tap.datagram(from, to, datagram.payload);
            let tapped = tapped.map(|tapped| (tapped, self.relay.statistics().dropped));
            let packet = self
                .relay
                .handle_datagram(now, from, datagram.ecn, datagram.payload);
            if let Some((tapped, before)) = tapped {
                let forwarded = packet.as_deref().map(Tapped::packet);
                let reason = Reason::counted(&before, &self.relay.statistics().dropped);
                tap.received(&tapped, reason, forwarded);
            }
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
            let tapped = (self.tap).datagram(from, self.endpoint.into(), datagram.payload);
            let tapped = tapped.map(|tapped| (tapped, self.relay.statistics().dropped));
            let packet = self
                .relay
                .handle_datagram(now, from, datagram.ecn, datagram.payload);
            if let Some((tapped, before)) = tapped {
                let forwarded = packet.as_deref().map(Tapped::packet);
                let reason = Reason::counted(&before, &self.relay.statistics().dropped);
                self.tap.received(&tapped, reason, forwarded);
            }
            if let Some(packet) = packet {
                let packet: &[u8] = packet;
                self.failures.decapsulated += (1 - self.tunnel.write(&[packet])) as u64;
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
            let tapped = self.tap.packet(packet);
            let tapped = tapped.map(|tapped| (tapped, self.relay.statistics().dropped));
            let datagram = self.relay.handle_ipv6(now, packet);
            if let Some((tapped, before)) = tapped {
                let from = self.endpoint.into();
                let forwarded =
                    (datagram.as_ref()).map(|(to, payload)| Tapped::datagram(from, *to, payload));
                let reason = Reason::counted(&before, &self.relay.statistics().dropped);
                self.tap.received(&tapped, reason, forwarded);
            }
            if let Some((to, payload)) = datagram {
                datagrams[count] = (to.into(), payload);
                count += 1;
            }
        }
        let sent = self.sender.send(&datagrams[..count]);
        self.failures.encapsulated += (count - sent) as u64;
    }

    /// Sends the packets of the protocol, then applies its events to the fast path.
    pub fn flush(&mut self, fast_path: &mut FastPath, mut server: Option<&mut ServerRole>) {
        if let Some(fleet) = &mut self.fleet {
            fleet.flush(&mut self.relay);
        }
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
            self.note(&event);
            fast_path.apply(event, clock::now());
        }
    }

    fn transmit(&mut self, server: Option<&mut ServerRole>) {
        let transmits = mem::take(&mut self.transmits);
        let (mut datagrams, mut packets) = (Vec::new(), Vec::new());
        let mut bubbles: Vec<&[u8; IPV6_HEADER]> = Vec::new();
        for transmit in &transmits {
            match transmit {
                Transmit::Datagram { to, payload } => {
                    let from = self.endpoint.into();
                    if let Some(tapped) = self.tap.datagram(from, *to, payload) {
                        self.tap.sent(tapped);
                    }
                    datagrams.push(((*to).into(), payload.as_slice()));
                }
                Transmit::OwnServer { bubble } => bubbles.push(bubble),
                Transmit::Ipv6(packet) => {
                    if let Some(tapped) = self.tap.packet(packet) {
                        self.tap.sent(tapped);
                    }
                    packets.push(packet.as_slice());
                }
            }
        }
        let sent = self.sender.send(&datagrams);
        self.failures.encapsulated += (datagrams.len() - sent) as u64;
        let written = self.tunnel.write(&packets);
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

    /// Sets this host's addresses.
    pub fn set_own_addresses(&mut self, addresses: &OwnAddresses) {
        self.relay
            .set_own_addresses(&addresses.ipv4, &addresses.ipv6);
    }
}

/// Waits for input of the fleet; forever without one.
async fn fleet_input(fleet: Option<&mut FleetRole>) -> fleet::Input {
    match fleet {
        Some(fleet) => fleet.input().await,
        None => std::future::pending().await,
    }
}
