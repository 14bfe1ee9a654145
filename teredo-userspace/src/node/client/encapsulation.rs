//! From the TUN interface into the tunnel.

use std::{mem, net::SocketAddrV4};

use teredo_common::address::Endpoint;
use teredo_proto::client::Segments;

use super::{ClientRole, clock, ports::ExtraPorts};
use crate::datapath::{
    BATCH,
    offload::{Split, complete},
    udp::{Payload, Sender},
};

/// The payload of a datagram: the headers of a segment and its data, or a packet and nothing.
type Parts<'p> = [&'p [u8]; 2];

impl ClientRole {
    /// Moves packets from the kernel into the tunnel. A super-packet is decided on once, if all of its
    /// segments are sent at once, as almost always.
    pub(super) fn encapsulate(&mut self) {
        let now = clock::now();
        let splits = self.packets.super_packets().map(|(header, packet)| {
            let split = header.and_then(|header| Split::new(&header, packet).ok()?);
            split.map_or(0, |split| split.room())
        });
        let needed = splits.sum();
        if self.headers.len() < needed {
            self.headers.resize(needed, 0);
        }
        let mut room = &mut self.headers[..];
        let mut outbox = Outbox::new(self.service_port, &mut self.sender, &mut self.ports);
        for (header, packet) in self.packets.super_packets() {
            let Some(header) = header else {
                outbox.failed += 1;
                continue;
            };
            if header.segments.is_none() {
                if complete(&header, packet).is_err() {
                    outbox.failed += 1;
                } else if let Some((from, to, payload)) =
                    (self.tap).handle_ipv6(&mut self.client, now, packet)
                {
                    outbox.put(from, to, [[payload, &[]]]);
                }
                continue;
            }
            let packet = &*packet;
            let Ok(Some(split)) = Split::new(&header, packet) else {
                outbox.failed += 1;
                continue;
            };
            let (headers, rest) = mem::take(&mut room).split_at_mut(split.room());
            room = rest;
            let segments = Segments {
                count: split.count(),
                largest: split.largest(),
                octets: split.octets(),
            };
            if let Some((from, to)) = self.client.handle_segments(now, packet, segments) {
                let packets = split.packets(headers);
                let packets = packets.inspect(|parts| self.tap.segment(*parts, from, to));
                outbox.put(from, to, packets);
                continue;
            }
            outbox.flush();
            for parts in split.packets(headers) {
                let mut packet = parts.concat();
                let datagram = (self.tap).handle_ipv6(&mut self.client, now, &mut packet);
                if let Some((from, to, payload)) = datagram {
                    outbox.send(from, &[(to.into(), payload)]);
                }
            }
        }
        outbox.flush();
        self.failures.encapsulated += outbox.failed;
    }
}

/// Datagrams on their way out. Almost all leave from the service port: those are sent together.
struct Outbox<'o, 'p> {
    service_port: u16,
    sender: &'o mut Sender,
    ports: &'o mut ExtraPorts,
    waiting: Vec<(SocketAddrV4, Parts<'p>)>,
    /// Packets that could not be sent.
    failed: u64,
}

impl<'o, 'p> Outbox<'o, 'p> {
    fn new(service_port: u16, sender: &'o mut Sender, ports: &'o mut ExtraPorts) -> Self {
        Self {
            service_port,
            sender,
            ports,
            waiting: Vec::with_capacity(BATCH),
            failed: 0,
        }
    }

    /// Sends payloads from this local port, soon.
    fn put(&mut self, from: u16, to: Endpoint, payloads: impl IntoIterator<Item = Parts<'p>>) {
        let to = to.into();
        let datagrams = payloads.into_iter().map(|payload| (to, payload));
        if from == self.service_port {
            self.waiting.extend(datagrams);
        } else {
            self.send(from, &datagrams.collect::<Vec<_>>());
        }
    }

    /// Sends datagrams from this local port.
    fn send<P: Payload>(&mut self, from: u16, datagrams: &[(SocketAddrV4, P)]) {
        let sent = if from == self.service_port {
            self.sender.send(datagrams)
        } else {
            let sender = self.ports.sender(from);
            sender.map_or(0, |sender| sender.send(datagrams))
        };
        self.failed += (datagrams.len() - sent) as u64;
    }

    /// Sends what waits.
    fn flush(&mut self) {
        let waiting = mem::take(&mut self.waiting);
        self.send(self.service_port, &waiting);
    }
}
