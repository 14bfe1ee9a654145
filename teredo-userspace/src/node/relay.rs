//! The relay role: its socket, its TUN interface, and the protocol between them.

mod lane;
mod shared;
mod threads;

use std::{cell::RefCell, io, mem, net::SocketAddrV4, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use teredo_common::{address::Endpoint, peers::Peer};
use teredo_proto::{
    dual::SharedPort,
    relay::{Event, Relay},
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
    capture::Tap,
    config,
    datapath::{
        route::OwnAddresses,
        tun::{TunError, queue_program},
        udp::{Receiver, UdpSocket},
    },
    handover::{
        Journal,
        descriptors::{self, JOURNAL, Named, QUEUE_PROGRAM},
    },
    metrics::FleetStatus,
};
use lane::Lane;
use shared::{Shared, Turn};
use threads::{Ends, Threads};

/// Slots of the list of peers that one step of the journal covers: a few tenths of a millisecond.
const NOTED: usize = 8192;

/// The running relay.
#[derive(Debug)]
pub struct RelayRole {
    /// Dropped first: nothing is carried when the rest goes. `None` while the relay rests.
    threads: Option<Threads>,
    shared: Arc<Shared>,
    endpoint: SocketAddrV4,
    port: Port,
    /// The sockets of the threads.
    further: Vec<Arc<Receiver>>,
    /// The number of threads that carry packets, the event loop's among them.
    wanted: usize,
    pub tunnel: Tunnel,
    /// Separates the datagrams for the server, if the server shares the port.
    shared_port: Option<SharedPort>,
    peer_lifetime: Duration,
    mtu: u16,
    /// The way of packets through the event loop.
    lane: Lane,
    timer: Timer,
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
    /// A thread has left work for the event loop.
    Call,
    /// Something of the fleet's.
    Fleet(fleet::Input),
}

impl RelayRole {
    /// Connects the protocol with its sockets and its TUN interface, and starts as many threads as are wanted, the event
    /// loop's among them.
    pub fn new(
        config: &config::RelaySection,
        relay: Relay,
        peer_lifetime: Duration,
        udp: UdpSocket,
        tunnel: Tunnel,
        shared_port: Option<SharedPort>,
        wanted: usize,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(relay));
        let further: Vec<_> = udp.further.into_iter().map(Arc::new).collect();
        let mut role = Self {
            threads: None,
            lane: Lane::new(shared.clone(), udp.local, udp.sender, config.mtu).of_event_loop(),
            shared,
            endpoint: udp.local,
            port: Port::new(udp.receiver, udp.marked)?,
            further,
            wanted,
            tunnel,
            shared_port,
            peer_lifetime,
            mtu: config.mtu,
            timer: Timer::new(),
            fleet: None,
            fleet_trouble: None,
            journal: None,
            next_noted: 0,
        };
        let started = role.start_threads();
        started.context("the relay has no threads for its packets")?;
        Ok(role)
    }

    /// Starts the threads, each with its share of the further sockets and queues.
    fn start_threads(&mut self) -> io::Result<()> {
        let (sockets, queues) = (&self.further, self.tunnel.further());
        let shares = sockets.len().max(queues.len());
        // One even if none is wanted, for what an earlier process opened.
        let count = shares.min(self.wanted.saturating_sub(1).max(1));
        let mut lanes = Vec::new();
        for number in 0..count {
            let sender = self.lane.sender().try_clone()?;
            let lane = Lane::new(self.shared.clone(), self.endpoint, sender, self.mtu);
            let queues: Vec<_> = queues.iter().skip(number).step_by(count).cloned().collect();
            let receivers = sockets.iter().skip(number).step_by(count).cloned();
            let out = queues.first().unwrap_or(self.tunnel.queue()).clone();
            let ends = Ends {
                receivers: receivers.collect(),
                queues,
                out,
            };
            lanes.push((lane, ends));
        }
        self.threads = Some(Threads::start(lanes)?);
        Ok(())
    }

    /// Opens the tunnel interface again, which is lost or was moved away.
    ///
    /// # Errors
    ///
    /// When no new one can be opened.
    pub fn reopen_tunnel(&mut self) -> Result<(), TunError> {
        self.tunnel.reopen()?;
        self.come_to_rest();
        self.go_on();
        Ok(())
    }

    /// Ends the threads. Their packets wait in the kernel from now on.
    pub fn come_to_rest(&mut self) {
        self.threads = None;
    }

    /// Starts the threads if they do not run. Call it again after a failure, for example for want of memory.
    pub fn go_on(&mut self) {
        if self.threads.is_some() {
            return;
        }
        // A process that has failed to take over may have had more sockets.
        let [receiver, _] = self.port.receivers();
        let divided = receiver.divide_among(self.further.len() + 1);
        if let Err(error) = divided.and_then(|()| self.start_threads()) {
            tracing::warn!("the relay has no threads for its packets: {error}");
        }
    }

    /// Waits until no thread handles a packet, and returns the protocol.
    pub fn relay(&self) -> Turn<'_> {
        self.shared.relay()
    }

    /// Returns the protocol as [`Self::relay`] does, when no packets are on their way out that the fast path could overtake.
    pub fn settled_relay(&self) -> Turn<'_> {
        let relay = self.shared.relay();
        self.shared.wait_for_sent();
        relay
    }

    /// Returns the packets that the kernel did not take.
    pub fn failures(&self) -> SendFailures {
        self.shared.failures()
    }

    /// Gives packets to those that capture with this tap.
    pub fn set_tap(&mut self, tap: Tap) {
        self.shared.turn().tap = tap;
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
    fn note(&self, relay: &Relay, event: &Event) {
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
            if let Some(slot) = relay.slot(&octets) {
                journal.write(slot, Some((&octets, &peer)));
            }
        }
    }

    /// Brings the next part of the journal up to date, if there is one.
    pub fn note_peers(&mut self) {
        let Some(journal) = &self.journal else {
            return;
        };
        let relay = self.shared.relay();
        let slots = relay.slots();
        let start = if self.next_noted < slots {
            self.next_noted
        } else {
            0
        };
        let end = start.saturating_add(NOTED).min(slots);
        let mut slot = start;
        for (number, peer) in relay.peers_in(start..end) {
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
            let slots = self.shared.relay().slots();
            (0..slots).for_each(|slot| journal.write(slot, None));
        }
    }

    /// Ends [`Self::make_room`] of an earlier process.
    pub fn end_room(&self) {
        self.port.end_room();
        self.further.iter().for_each(|receiver| receiver.end_room());
    }

    /// Makes room for what comes until the next process receives it.
    pub fn make_room(&self) {
        let receivers = self.further.len() + 1;
        self.port.make_room_among(receivers);
        for receiver in &self.further {
            receiver.make_room_among(receivers);
        }
    }

    /// Returns the descriptors that outlive the process.
    pub fn descriptors(&self) -> impl Iterator<Item = Named<'_>> {
        let sockets = descriptors::udp(self.lane.sender(), self.port.receivers());
        let further = descriptors::further(self.further.iter().map(|socket| &**socket));
        let journal = self.journal.iter();
        let journal = journal.filter_map(|journal| descriptors::named(JOURNAL, journal));
        let program = queue_program();
        let program =
            program.map(|(program, number)| (format!("{QUEUE_PROGRAM}.{number}"), program));
        let sockets = sockets.chain(further).chain(program);
        sockets.chain(self.tunnel.descriptors()).chain(journal)
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
        {
            let mut core = self.shared.turn();
            core.deadline = core.relay.poll_timeout();
            self.timer.set(core.deadline);
        }
        let datagrams = RefCell::new(&mut self.lane.datagrams);
        tokio::select! {
            _ = self.port.receive(&datagrams) => Input::Datagrams,
            _ = self.tunnel.read(&mut self.lane.packets) => Input::Packets,
            () = self.timer.expired() => Input::Time,
            () = self.shared.call.notified() => Input::Call,
            input = fleet_input(self.fleet.as_mut()) => Input::Fleet(input),
        }
    }

    /// Returns the numbers of datagrams from clients and of packets from the kernel since the start.
    pub fn received(&self) -> [u64; 2] {
        self.shared.turn().received
    }

    /// Returns the numbers of datagrams from clients, and of packets from the kernel, that came faster
    /// than they were received.
    pub fn overrun(&self) -> [u64; 2] {
        let further = self.further.iter().map(|receiver| receiver.lost());
        [
            self.port.lost() + further.sum::<u64>(),
            self.tunnel.dropped(),
        ]
    }

    /// Handles an input. Call [`Self::flush`] afterwards.
    pub fn handle(&mut self, input: Input, server: Option<&mut ServerRole>) {
        match input {
            Input::Datagrams => match (&self.shared_port, server) {
                (Some(shared_port), Some(server)) => {
                    let queue = self.tunnel.queue();
                    self.lane.decapsulate_shared(queue, shared_port, server);
                }
                _ => self.lane.decapsulate(self.tunnel.queue()),
            },
            Input::Packets => self.lane.encapsulate(self.tunnel.queue()),
            Input::Time => self.shared.relay().handle_timeout(clock::now()),
            Input::Fleet(input) => {
                if let Some(fleet) = &mut self.fleet {
                    fleet.handle(input, &mut self.shared.relay());
                }
            }
            Input::Call => {}
        }
    }

    /// Sends the packets of the protocol, then applies its events to the fast path.
    pub fn flush(&mut self, fast_path: &mut FastPath, server: Option<&mut ServerRole>) {
        let shared = self.shared.clone();
        let core = &mut *shared.turn();
        if let Some(fleet) = &mut self.fleet {
            fleet.flush(&mut core.relay);
        }
        self.lane.transmit(core, self.tunnel.queue());
        let bubbles = mem::take(&mut core.bubbles);
        if let Some(server) = server
            && !bubbles.is_empty()
        {
            let relay = Endpoint::from(self.endpoint);
            for bubble in &bubbles {
                server.forward_for_relay(relay, bubble);
            }
            server.flush();
        }
        if core.relay.has_news() && fast_path.peers().is_some() {
            // It must not overtake packets to or from its new peers.
            shared.wait_for_sent();
        }
        while let Some(event) = core.relay.poll_event() {
            self.note(&core.relay, &event);
            fast_path.apply(event, clock::now());
        }
    }

    /// Sets this host's addresses.
    pub fn set_own_addresses(&mut self, addresses: &OwnAddresses) {
        self.shared
            .relay()
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
