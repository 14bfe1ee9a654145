//! Messages: templates and records as octets.

use std::net::Ipv6Addr;

use teredo_common::{
    address::Endpoint,
    traffic::{Count, Towards},
};

/// Most octets of a message, which fit into a datagram over every link of the internet.
pub const MESSAGE_MAX: usize = 1_280 - 48;

/// The version of IPFIX.
const VERSION: u16 = 10;
/// Octets of the header of a message.
const HEADER: usize = 16;
/// Octets of the header of a set.
const SET_HEADER: usize = 4;
/// The identifier of sets of templates.
const TEMPLATES: u16 = 2;
/// The identifier of the first template.
const FIRST_TEMPLATE: u16 = 256;

/// A field of a record: the number of its information element in IANA's registry, and its octets.
type Field = (u16, u16);

/// The fields that both templates have after those of the peer.
const COMMON: [Field; 5] = [
    // flowDirection
    (61, 1),
    // octetDeltaCount
    (1, 8),
    // packetDeltaCount
    (2, 8),
    // flowStartMilliseconds
    (152, 8),
    // flowEndMilliseconds
    (153, 8),
];
/// The fields of the peer as a destination: destinationIPv6Address, postNATDestinationIPv4Address and
/// postNAPTDestinationTransportPort.
const DESTINATION: [Field; 3] = [(28, 16), (226, 4), (228, 2)];
/// The same as a source: sourceIPv6Address, postNATSourceIPv4Address and postNAPTSourceTransportPort.
const SOURCE: [Field; 3] = [(27, 16), (225, 4), (227, 2)];

/// Octets of a record of either template.
pub const RECORD: usize = length(&SOURCE) + length(&COMMON);
/// Octets of a set with both templates.
const TEMPLATE_SET: usize = SET_HEADER + 2 * (4 + 4 * (SOURCE.len() + COMMON.len()));

const _: () = assert!(length(&SOURCE) == length(&DESTINATION));

/// Returns the octets of fields.
const fn length(fields: &[Field]) -> usize {
    let (mut sum, mut index) = (0, 0);
    while index < fields.len() {
        sum += fields[index].1 as usize;
        index += 1;
    }
    sum
}

/// The packets of a peer in one direction, and when they were forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The direction.
    pub towards: Towards,
    /// The peer's address.
    pub address: Ipv6Addr,
    /// Its endpoint.
    pub mapped: Endpoint,
    /// Packets and octets.
    pub count: Count,
    /// No packet is older, in milliseconds since 1970.
    pub start: u64,
    /// No packet is younger.
    pub end: u64,
}

impl Record {
    /// Returns the identifier of the record's template.
    const fn template(&self) -> u16 {
        FIRST_TEMPLATE + self.towards as u16
    }

    /// Returns the value of flowDirection: ingress or egress, as the relay or client sees the tunnel.
    const fn direction(&self) -> u8 {
        match self.towards {
            Towards::Native => 0,
            Towards::Peer => 1,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.address.octets());
        out.extend(self.mapped.address);
        out.extend(self.mapped.port);
        out.push(self.direction());
        for number in [self.count.octets, self.count.packets, self.start, self.end] {
            out.extend(number.to_be_bytes());
        }
    }
}

/// A message that is being written. Each has the templates, so that a collector that has just started understands the
/// next one, and none has to be repeated for those that were lost (RFC 7011, section 8.1).
#[derive(Debug)]
pub struct Message {
    octets: Vec<u8>,
    /// The start of the last set, and its identifier.
    set: Option<(usize, u16)>,
    records: u32,
}

impl Message {
    /// Returns a message without records. `time` is in seconds since 1970, and `sequence` the number of records in all
    /// messages before.
    #[must_use]
    pub fn new(time: u32, sequence: u32, domain: u32) -> Self {
        let mut octets = Vec::with_capacity(MESSAGE_MAX);
        octets.extend(VERSION.to_be_bytes());
        octets.extend([0; 2]);
        for number in [time, sequence, domain] {
            octets.extend(number.to_be_bytes());
        }
        octets.extend(TEMPLATES.to_be_bytes());
        octets.extend((TEMPLATE_SET as u16).to_be_bytes());
        for towards in Towards::ALL {
            let peer = match towards {
                Towards::Peer => DESTINATION,
                Towards::Native => SOURCE,
            };
            octets.extend((FIRST_TEMPLATE + towards as u16).to_be_bytes());
            octets.extend(((peer.len() + COMMON.len()) as u16).to_be_bytes());
            for (element, length) in peer.into_iter().chain(COMMON) {
                octets.extend(element.to_be_bytes());
                octets.extend(length.to_be_bytes());
            }
        }
        Self {
            octets,
            set: None,
            records: 0,
        }
    }

    /// Adds a record, and returns whether there was room for it.
    pub fn push(&mut self, record: &Record) -> bool {
        let continues = (self.set).is_some_and(|(_, template)| template == record.template());
        let header = if continues { 0 } else { SET_HEADER };
        if self.octets.len() + header + RECORD > MESSAGE_MAX {
            return false;
        }
        if !continues {
            self.end_set();
            self.set = Some((self.octets.len(), record.template()));
            self.octets.extend(record.template().to_be_bytes());
            self.octets.extend([0; 2]);
        }
        record.write(&mut self.octets);
        self.records += 1;
        true
    }

    /// Returns the number of records.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Returns the octets of the whole message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.end_set();
        let length = self.octets.len() as u16;
        self.octets[2..4].copy_from_slice(&length.to_be_bytes());
        self.octets
    }

    /// Writes the length of the last set.
    fn end_set(&mut self) {
        if let Some((start, _)) = self.set.take() {
            let length = (self.octets.len() - start) as u16;
            self.octets[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

const _: () = assert!(HEADER + TEMPLATE_SET + 2 * (SET_HEADER + RECORD) < MESSAGE_MAX);
