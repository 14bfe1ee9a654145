//! The way of packets through the relay in one thread.

use std::{
    mem,
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, MutexGuard},
};

use teredo_common::time::Instant;
use teredo_proto::{
    dual::{Recipient, SharedPort},
    relay::Transmit,
    wire::ipv6::Header,
};

use super::shared::{Core, Shared};
use crate::{
    capture::{Reason, Tapped},
    datapath::{
        BATCH,
        tun::{PacketBatch, Queue},
        udp::{Datagram, ReceiveBatch, Sender},
    },
    node::{clock, server::ServerRole},
};

/// Placeholder of unused batch slots.
const UNUSED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);

/// What one thread needs to carry packets.
#[derive(Debug)]
pub struct Lane {
    /// Datagrams from clients, to be handled.
    pub datagrams: ReceiveBatch,
    /// Packets from the kernel, to be handled.
    pub packets: PacketBatch,
    outlet: Outlet,
}

/// The way out.
#[derive(Debug)]
struct Outlet {
    shared: Arc<Shared>,
    endpoint: SocketAddrV4,
    sender: Sender,
    transmits: Vec<Transmit>,
    /// Whether this is the event loop, which looks after a turn for what there is to do.
    is_event_loop: bool,
}

impl Lane {
    /// Creates a lane of the relay at this endpoint, for packets of at most `mtu` octets.
    pub fn new(shared: Arc<Shared>, endpoint: SocketAddrV4, sender: Sender, mtu: u16) -> Self {
        Self {
            datagrams: ReceiveBatch::new(),
            packets: PacketBatch::new(mtu),
            outlet: Outlet {
                shared,
                endpoint,
                sender,
                transmits: Vec::new(),
                is_event_loop: false,
            },
        }
    }

    /// Makes this the lane of the event loop.
    pub fn of_event_loop(mut self) -> Self {
        self.outlet.is_event_loop = true;
        self
    }

    /// Returns the sender.
    pub fn sender(&self) -> &Sender {
        &self.outlet.sender
    }

    /// Moves packets from clients to the kernel, and sends what the protocol answers.
    pub fn decapsulate(&mut self, queue: &Queue) {
        let Self {
            datagrams, outlet, ..
        } = self;
        let shared = outlet.shared.clone();
        let mut turn = shared.turn();
        let mut now = clock::now();
        for datagram in datagrams.datagrams() {
            if let Ok(header) = Header::parse(datagram.payload) {
                turn.relay.prefetch(&header.source());
            }
        }
        // There may be many more than messages, and others wait for their turns.
        let mut datagrams = datagrams.datagrams().peekable();
        loop {
            let core = &mut *turn;
            let mut packets: [&[u8]; BATCH] = [&[]; BATCH];
            let mut count = 0;
            for datagram in datagrams.by_ref().take(BATCH) {
                if let Some(packet) = core.decapsulate(now, outlet.endpoint, datagram) {
                    packets[count] = packet;
                    count += 1;
                }
            }
            outlet.finish_turn(turn, queue, |_| {
                shared.add_decapsulated(count - queue.write(&packets[..count]));
            });
            if datagrams.peek().is_none() {
                return;
            }
            turn = shared.turn();
            now = clock::now();
        }
    }

    /// Moves packets from clients to the server or the kernel, on a port that both share. What the protocol answers
    /// is sent later.
    pub fn decapsulate_shared(
        &mut self,
        queue: &Queue,
        shared_port: &SharedPort,
        server: &mut ServerRole,
    ) {
        let core = &mut *self.outlet.shared.turn();
        let now = clock::now();
        for datagram in self.datagrams.datagrams() {
            let recipient = shared_port.recipient(&core.relay, now, datagram.payload);
            if recipient == Recipient::Server {
                core.received[0] += 1;
                server.handle_shared(now, datagram.source.into(), datagram.payload);
            } else if let Some(packet) = core.decapsulate(now, self.outlet.endpoint, datagram) {
                let written = queue.write(&[packet]);
                self.outlet.shared.add_decapsulated(1 - written);
            }
        }
        server.flush();
    }

    /// Moves packets from the kernel to clients, and sends what the protocol answers.
    pub fn encapsulate(&mut self, queue: &Queue) {
        let Self {
            packets, outlet, ..
        } = self;
        let shared = outlet.shared.clone();
        let mut turn = shared.turn();
        let now = clock::now();
        let core = &mut *turn;
        for packet in packets.packets() {
            if let Ok(header) = Header::parse(packet) {
                core.relay.prefetch(&header.destination());
            }
        }
        let mut datagrams: [(SocketAddrV4, &[u8]); BATCH] = [(UNUSED, &[]); BATCH];
        let mut count = 0;
        for packet in packets.packets() {
            if let Some((to, payload)) = core.encapsulate(now, outlet.endpoint, packet) {
                datagrams[count] = (to, payload);
                count += 1;
            }
        }
        outlet.finish_turn(turn, queue, |sender| {
            shared.add_encapsulated(count - sender.send(&datagrams[..count]));
        });
    }

    /// Sends the packets of the protocol.
    pub fn transmit(&mut self, core: &mut Core, queue: &Queue) {
        self.outlet.transmit(core, queue);
    }
}

impl Outlet {
    /// Ends a turn. `send` sends the packets that were forwarded in it.
    fn finish_turn(
        &mut self,
        mut turn: MutexGuard<'_, Core>,
        queue: &Queue,
        send: impl FnOnce(&mut Sender),
    ) {
        if turn.relay.has_packets() {
            // A packet of the protocol may follow a forwarded one of its flow.
            send(&mut self.sender);
            self.transmit(&mut turn, queue);
            self.call_event_loop(&turn);
        } else {
            self.call_event_loop(&turn);
            let shared = self.shared.clone();
            let _sending = shared.send();
            drop(turn);
            send(&mut self.sender);
        }
    }

    /// Wakes the event loop for what a turn of another thread left to it.
    fn call_event_loop(&self, core: &Core) {
        if !self.is_event_loop && core.needs_event_loop() {
            self.shared.call.notify_one();
        }
    }

    /// Sends the packets of the protocol.
    fn transmit(&mut self, core: &mut Core, queue: &Queue) {
        while let Some(first) = core.relay.poll_transmit() {
            self.transmits.push(first);
            while self.transmits.len() < BATCH
                && let Some(next) = core.relay.poll_transmit()
            {
                self.transmits.push(next);
            }
            self.transmit_batch(core, queue);
        }
    }

    fn transmit_batch(&mut self, core: &mut Core, queue: &Queue) {
        let transmits = mem::take(&mut self.transmits);
        let (mut datagrams, mut packets) = (Vec::new(), Vec::new());
        for transmit in &transmits {
            match transmit {
                Transmit::Datagram { to, payload } => {
                    let from = self.endpoint.into();
                    if let Some(tapped) = core.tap.datagram(from, *to, payload) {
                        core.tap.sent(tapped);
                    }
                    datagrams.push(((*to).into(), payload.as_slice()));
                }
                Transmit::OwnServer { bubble } => core.bubbles.push(*bubble),
                Transmit::Ipv6(packet) => {
                    if let Some(tapped) = core.tap.packet(packet) {
                        core.tap.sent(tapped);
                    }
                    packets.push(packet.as_slice());
                }
            }
        }
        let sent = self.sender.send(&datagrams);
        self.shared.add_encapsulated(datagrams.len() - sent);
        let written = queue.write(&packets);
        self.shared.add_decapsulated(packets.len() - written);
        // Keep the allocation.
        self.transmits = transmits;
        self.transmits.clear();
    }
}

impl Core {
    /// Handles a datagram to `endpoint`, and returns the packet in it if that is to be forwarded.
    fn decapsulate<'a>(
        &mut self,
        now: Instant,
        endpoint: SocketAddrV4,
        datagram: Datagram<'a>,
    ) -> Option<&'a [u8]> {
        self.received[0] += 1;
        let from = datagram.source.into();
        let tapped = self.tap.datagram(from, endpoint.into(), datagram.payload);
        let tapped = tapped.map(|tapped| (tapped, self.relay.statistics().dropped));
        let packet = self
            .relay
            .handle_datagram(now, from, datagram.ecn, datagram.payload);
        if let Some((tapped, before)) = tapped {
            let forwarded = packet.as_deref().map(Tapped::packet);
            let reason = Reason::counted(&before, &self.relay.statistics().dropped);
            self.tap.received(&tapped, reason, forwarded);
        }
        packet.map(|packet| &*packet)
    }

    /// Handles a packet from the kernel, and returns the payload of the datagram to be sent from `endpoint`, if any, with
    /// its destination.
    fn encapsulate<'a>(
        &mut self,
        now: Instant,
        endpoint: SocketAddrV4,
        packet: &'a mut [u8],
    ) -> Option<(SocketAddrV4, &'a [u8])> {
        self.received[1] += 1;
        let tapped = self.tap.packet(packet);
        let tapped = tapped.map(|tapped| (tapped, self.relay.statistics().dropped));
        let datagram = self.relay.handle_ipv6(now, packet);
        if let Some((tapped, before)) = tapped {
            let from = endpoint.into();
            let forwarded =
                (datagram.as_ref()).map(|(to, payload)| Tapped::datagram(from, *to, payload));
            let reason = Reason::counted(&before, &self.relay.statistics().dropped);
            self.tap.received(&tapped, reason, forwarded);
        }
        datagram.map(|(to, payload)| (to.into(), payload))
    }
}
