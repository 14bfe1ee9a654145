//! From packets to super-packets.

use std::io::IoSlice;

use teredo_common::wire::{TCP, UDP, UDP_HEADER};

use super::{
    ACK, ECE, FIN, FLAGS, Header, IPV6_HEADER, PSH, Protocol, SEQUENCE, TCP_HEADER, pseudo_header,
    set_payload_length,
};

/// Most octets of a super-packet.
const LONGEST: usize = 65_535;
/// Most datagrams of one super-packet: the limit of kernels since 4.18.
const DATAGRAMS: usize = 64;
/// Least octets of data in datagrams that are joined. Most programs receive one at a time, so the kernel
/// splits a super-packet again; for small datagrams that costs more than it saves.
const WORTHWHILE: usize = 512;
/// Flows of which a packet can be continued by a later one. With more of them, that which waits longest
/// is not continued.
const FLOWS: usize = 16;
/// Most octets of the headers of a super-packet.
const HEADERS: usize = IPV6_HEADER + 60;
/// The end of a chain of packets.
const END: usize = usize::MAX;

/// The transports that the kernel takes super-packets of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// TCP alone.
    Tcp,
    /// TCP and UDP.
    TcpAndUdp,
}

/// Joins packets that follow each other in their flow, of the same headers and length; the last may be
/// shorter. A flow's packets stay in order.
///
/// Only packets with right checksums are joined, since the kernel does not verify those of a super-packet.
/// All others stay as they are.
#[derive(Debug, Default)]
pub struct Coalescer {
    trains: Vec<Train>,
    /// For each packet the one that follows in its train, or [`END`].
    next: Vec<usize>,
    /// The trains that can become longer, with the hash of their flows.
    open: Vec<(u64, usize)>,
}

/// Packets to be written as one.
#[derive(Clone, Copy, Debug)]
struct Train {
    first: usize,
    last: usize,
    count: usize,
    /// Octets of all data.
    data: usize,
    /// What all packets have in common; none for a packet that no other can follow.
    form: Option<Form>,
    /// Whether the checksum of the first packet is known to be right.
    is_verified: bool,
    /// The sequence number that follows.
    sequence: u32,
}

/// The form of a packet that can be a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    protocol: Protocol,
    /// Octets before the data.
    headers: usize,
    /// Octets of data.
    data: usize,
}

impl Coalescer {
    /// Joins the packets, as far as they can be joined.
    pub fn coalesce(&mut self, packets: &[&[u8]], protocols: Protocols) {
        self.trains.clear();
        self.open.clear();
        self.next.clear();
        self.next.resize(packets.len(), END);
        for (number, packet) in packets.iter().enumerate() {
            self.add(packets, number, packet, protocols);
        }
    }

    /// Returns the number of super-packets and single packets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trains.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Calls `write` with the parts of each super-packet or single packet, of which the first is its
    /// [`Header`], and with the number of packets in it. `packets` are those of [`Self::coalesce`].
    pub fn each(&self, packets: &[&[u8]], mut write: impl FnMut(&[IoSlice<'_>], usize)) {
        let plain = Header::default().build(0);
        for train in &self.trains {
            let Some(form) = train.form.filter(|_| train.count > 1) else {
                let packet = packets.get(train.first).copied().unwrap_or_default();
                write(&[IoSlice::new(&plain), IoSlice::new(packet)], 1);
                continue;
            };
            let mut headers = [0; HEADERS];
            let (header, headers) = train.headers(form, packets, &mut headers);
            let mut parts = Vec::with_capacity(train.count + 2);
            parts.extend([IoSlice::new(&header), IoSlice::new(headers)]);
            let mut number = train.first;
            while let Some(packet) = packets.get(number) {
                parts.push(IoSlice::new(&packet[headers.len()..]));
                number = self.next[number];
            }
            write(&parts, train.count);
        }
    }

    fn add(&mut self, packets: &[&[u8]], number: usize, packet: &[u8], protocols: Protocols) {
        let form = Form::of(packet)
            .filter(|form| form.protocol == Protocol::Tcp || protocols == Protocols::TcpAndUdp);
        if self.open.is_empty() && form.is_none_or(|form| ends(packet, form)) {
            self.trains.push(Train::new(number, packet, form));
            return;
        }
        let flow = flow(packet);
        let place = self.open.iter().position(|(open, _)| Some(*open) == flow);
        if let Some(place) = place {
            let (_, train) = self.open[place];
            let train = &mut self.trains[train];
            if form.is_some_and(|form| train.admits(packets, packet, form)) {
                self.next[train.last] = number;
                if train.extend(number, packet) {
                    self.open.swap_remove(place);
                }
                return;
            }
            self.open.swap_remove(place);
        }
        let train = Train::new(number, packet, form);
        if let (Some(flow), Some(form)) = (flow, form)
            && !ends(packet, form)
        {
            if self.open.len() == FLOWS {
                self.open.remove(0);
            }
            self.open.push((flow, self.trains.len()));
        }
        self.trains.push(train);
    }
}

impl Train {
    fn new(number: usize, packet: &[u8], form: Option<Form>) -> Self {
        let data = form.map_or(0, |form| form.data);
        Self {
            first: number,
            last: number,
            count: 1,
            data,
            form,
            is_verified: false,
            sequence: sequence(packet).wrapping_add(data as u32),
        }
    }

    /// Whether a packet of this flow hash may be the next one.
    fn admits(&mut self, packets: &[&[u8]], packet: &[u8], form: Form) -> bool {
        let (Some(own), first) = (self.form, packets[self.first]) else {
            return false;
        };
        if own.protocol != form.protocol
            || own.headers != form.headers
            || form.data > own.data
            || own.headers + self.data + form.data > LONGEST
        {
            return false;
        }
        let is_next = match own.protocol {
            Protocol::Tcp => {
                sequence(packet) == self.sequence
                    // Acknowledgement and length; flags; window; urgent pointer and options.
                    && first[48..53] == packet[48..53]
                    && (first[IPV6_HEADER + FLAGS] ^ packet[IPV6_HEADER + FLAGS]) & !(FIN | PSH) == 0
                    && first[54..56] == packet[54..56]
                    && first[58..own.headers] == packet[58..own.headers]
            }
            Protocol::Udp => self.count < DATAGRAMS,
        };
        // Traffic class, flow label, next header, hop limit, addresses and ports.
        is_next
            && first[..4] == packet[..4]
            && first[6..44] == packet[6..44]
            && self.is_verified(first, own.protocol)
            && is_right(packet, own.protocol)
    }

    fn is_verified(&mut self, first: &[u8], protocol: Protocol) -> bool {
        self.is_verified = self.is_verified || is_right(first, protocol);
        self.is_verified
    }

    /// Appends a packet; returns whether none can follow it.
    fn extend(&mut self, number: usize, packet: &[u8]) -> bool {
        let Some(form) = self.form else {
            return true;
        };
        let data = packet.len() - form.headers;
        self.last = number;
        self.count += 1;
        self.data += data;
        self.sequence = self.sequence.wrapping_add(data as u32);
        data < form.data || ends(packet, form)
    }

    /// Returns the virtio-net header and the headers of the packet.
    fn headers<'h>(
        &self,
        form: Form,
        packets: &[&[u8]],
        room: &'h mut [u8; HEADERS],
    ) -> ([u8; Header::LENGTH], &'h [u8]) {
        let headers = &mut room[..form.headers];
        headers.copy_from_slice(&packets[self.first][..form.headers]);
        set_payload_length(headers, form.headers + self.data);
        let (ipv6, transport) = headers.split_at_mut(IPV6_HEADER);
        let length = (transport.len() + self.data) as u16;
        match form.protocol {
            Protocol::Tcp => transport[FLAGS] |= packets[self.last][IPV6_HEADER + FLAGS],
            Protocol::Udp => transport[4..6].copy_from_slice(&length.to_be_bytes()),
        }
        let field = form.protocol.checksum();
        let sum = pseudo_header(ipv6, length, form.protocol).fold();
        transport[field..field + 2].copy_from_slice(&sum);
        let header = Header::of_segments(form.protocol, form.data as u16);
        (header.build(form.headers as u16), headers)
    }
}

impl Form {
    /// Returns the form of a packet that can be a segment.
    fn of(packet: &[u8]) -> Option<Self> {
        let (ipv6, message) = packet.split_first_chunk::<IPV6_HEADER>()?;
        if usize::from(u16::from_be_bytes([ipv6[4], ipv6[5]])) != message.len() {
            return None;
        }
        match ipv6[6] {
            TCP if message.len() > TCP_HEADER => Self::of_tcp(message),
            UDP if message.len() > UDP_HEADER => Self::of_udp(message),
            _ => None,
        }
    }

    fn of_tcp(message: &[u8]) -> Option<Self> {
        let length = usize::from(message[12] >> 4) * 4;
        let is_plain = message[FLAGS] & !(FIN | PSH | ECE) == ACK;
        (is_plain && length >= TCP_HEADER && length < message.len()).then(|| Self {
            protocol: Protocol::Tcp,
            headers: IPV6_HEADER + length,
            data: message.len() - length,
        })
    }

    fn of_udp(message: &[u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes([message[4], message[5]]));
        let has_checksum = message[6..8] != [0, 0];
        (has_checksum && length == message.len()).then(|| Self {
            protocol: Protocol::Udp,
            headers: IPV6_HEADER + UDP_HEADER,
            data: message.len() - UDP_HEADER,
        })
    }
}

/// Whether no packet can follow one of this form.
fn ends(packet: &[u8], form: Form) -> bool {
    match form.protocol {
        Protocol::Tcp => packet[IPV6_HEADER + FLAGS] & (FIN | PSH) != 0,
        Protocol::Udp => form.data < WORTHWHILE,
    }
}

/// Returns the sequence number of a TCP segment; anything for other packets.
fn sequence(packet: &[u8]) -> u32 {
    let start = IPV6_HEADER + SEQUENCE;
    let octets = packet.get(start..).and_then(|octets| octets.first_chunk());
    octets.map_or(0, |octets| u32::from_be_bytes(*octets))
}

/// Returns a hash of what tells the flows of TCP and UDP apart; `None` for other packets. Flows that share
/// one only keep each other from being joined.
fn flow(packet: &[u8]) -> Option<u64> {
    let (ipv6, message) = packet.split_first_chunk::<IPV6_HEADER>()?;
    let protocol = ipv6[6];
    let ports = message.first_chunk()?;
    if !matches!(protocol, TCP | UDP) {
        return None;
    }
    let (words, _) = ipv6[8..].as_chunks::<8>();
    let ports = u64::from(u32::from_ne_bytes(*ports)) << 8 | u64::from(protocol);
    Some(words.iter().fold(ports, |hash, word| {
        (hash ^ u64::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }))
}

/// Whether the checksum of a packet without extension headers is right.
fn is_right(packet: &[u8], protocol: Protocol) -> bool {
    let (ipv6, message) = packet.split_at(IPV6_HEADER);
    pseudo_header(ipv6, message.len() as u16, protocol)
        .add_octets(message)
        .is_valid()
}
