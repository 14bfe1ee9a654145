//! The datagrams between the relays of a fleet, version 1. Numbers are in network byte order.
//!
//! ```text
//!  octets
//!       2  magic number
//!       1  version
//!       1  kind
//!       4  name of the key
//!       8  run of the sender: milliseconds since 1970 at its start
//!       8  sequence number of the run towards this receiver, from 1
//!       8  milliseconds since 1970 at the sender
//!       n  body, by kind
//!      16  tag: HMAC-SHA-256 of the addresses of sender and receiver and all of the above, cut off
//! ```

use std::time::Duration;

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    time::Instant,
};

use crate::relay::{self, Report};

/// The version of the format.
pub const VERSION: u8 = 1;
/// Octets before the body.
pub const HEADER: usize = 32;
/// Octets of the tag.
pub const TAG: usize = 16;
/// Octets of a report.
pub const REPORT: usize = 24;
/// Reports of a datagram, at most: it passes through every link of IPv6 (F-09).
pub const REPORTS: usize = 48;
/// Octets of a datagram, at most.
pub const DATAGRAM: usize = HEADER + PART + REPORTS * REPORT + TAG;

const MAGIC: [u8; 2] = *b"Tf";
const HEARTBEAT: usize = 24;
const REQUEST: usize = 16;
const PART: usize = 16;
/// The unit of ages in reports, in nanoseconds.
const AGE: u64 = 10_000_000;
/// The age of what never was, or was longer ago than can be said.
const NEVER: u16 = u16::MAX;

/// The name of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 4]);

/// The kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sign of life.
    Heartbeat,
    /// News about peers.
    Reports,
    /// The request for parts of the table.
    Request,
    /// Parts of the table.
    Part,
}

/// The start of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind.
    pub kind: Kind,
    /// The key that the tag was made with.
    pub key: KeyId,
    /// The run of the sender: the milliseconds since 1970 at its start.
    pub run: u64,
    /// The number of the datagram, of those of this run to this receiver.
    pub sequence: u64,
    /// Milliseconds since 1970 by the clock of the sender.
    pub sent: u64,
}

/// A sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whether the sender is in step.
    pub is_in_step: bool,
    /// Whether the sender waits for an answer.
    pub wants_answer: bool,
    /// What the sender serves; `None` if it does not say so.
    pub service: Option<Service>,
    /// The last run of the receiver that the sender has heard; 0 if none.
    pub heard_run: u64,
    /// Number of the sender's usable peers.
    pub peers: u64,
}

/// What a relay serves. The relays of a fleet serve the same (F-24).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The relay's endpoint.
    pub endpoint: Endpoint,
    /// A digest of the prefix, not 0.
    pub prefix: u8,
}

/// A request for parts of the table: each has [`REPORTS`] slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// A number for the answers.
    pub id: u32,
    /// The first part.
    pub first: u32,
    /// Number of parts.
    pub count: u32,
    /// Whether only peers count that the receiver heard last itself.
    pub only_own: bool,
}

/// The parts of the table that a datagram has everything of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The number of the request.
    pub id: u32,
    /// The first part.
    pub first: u32,
    /// The one after the last.
    pub end: u32,
    /// Number of all parts.
    pub total: u32,
}

/// The body of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'p> {
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// News about peers.
    Reports(Reports<'p>),
    /// The request for parts of the table.
    Request(Request),
    /// Parts of the table.
    Part(Part, Reports<'p>),
}

/// Reports as they are in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reports<'p>(&'p [u8]);

/// The error of parsing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a datagram of a fleet.
    #[error("not a datagram of a fleet")]
    Malformed,
    /// A version that is not known.
    #[error("version {0} is not known")]
    Version(u8),
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Heartbeat => 1,
            Self::Reports => 2,
            Self::Request => 3,
            Self::Part => 4,
        }
    }

    fn parse(number: u8) -> Option<Self> {
        let all = [Self::Heartbeat, Self::Reports, Self::Request, Self::Part];
        all.into_iter().find(|kind| kind.number() == number)
    }
}

impl Header {
    /// Parses the start of a datagram, and returns the body.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (signed, _) = datagram.split_last_chunk::<TAG>().ok_or(Error::Malformed)?;
        let (header, body) = signed
            .split_first_chunk::<HEADER>()
            .ok_or(Error::Malformed)?;
        if header[..2] != MAGIC || datagram.len() > DATAGRAM {
            return Err(Error::Malformed);
        }
        if header[2] != VERSION {
            return Err(Error::Version(header[2]));
        }
        let run = u64::from_be_bytes(array(header, 8));
        if run == 0 {
            return Err(Error::Malformed);
        }
        let header = Self {
            kind: Kind::parse(header[3]).ok_or(Error::Malformed)?,
            key: KeyId(array(header, 4)),
            run,
            sequence: u64::from_be_bytes(array(header, 16)),
            sent: u64::from_be_bytes(array(header, 24)),
        };
        Ok((header, body))
    }

    fn build(&self, datagram: &mut Vec<u8>) {
        datagram.extend(MAGIC);
        datagram.extend([VERSION, self.kind.number()]);
        datagram.extend(self.key.0);
        for number in [self.run, self.sequence, self.sent] {
            datagram.extend(number.to_be_bytes());
        }
    }
}

impl<'p> Message<'p> {
    /// Parses the body of a datagram.
    pub fn parse(kind: Kind, body: &'p [u8]) -> Result<Self, Error> {
        let message = match kind {
            Kind::Heartbeat => Heartbeat::parse(body).map(Self::Heartbeat),
            Kind::Reports => Reports::parse(body).map(Self::Reports),
            Kind::Request => Request::parse(body).map(Self::Request),
            Kind::Part => body
                .split_first_chunk::<PART>()
                .and_then(|(part, reports)| {
                    Some(Self::Part(Part::parse(part)?, Reports::parse(reports)?))
                }),
        };
        message.ok_or(Error::Malformed)
    }

    /// Builds a datagram without its tag. The header's kind is that of the message.
    pub fn build(&self, header: Header) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        let kind = match self {
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::Reports(_) => Kind::Reports,
            Self::Request(_) => Kind::Request,
            Self::Part(..) => Kind::Part,
        };
        Header { kind, ..header }.build(&mut datagram);
        match self {
            Self::Heartbeat(heartbeat) => {
                let flags = u8::from(heartbeat.is_in_step) | u8::from(heartbeat.wants_answer) << 1;
                datagram.push(flags);
                let Service { endpoint, prefix } = heartbeat.service.unwrap_or(Service::UNKNOWN);
                datagram.push(prefix);
                datagram.extend(endpoint.address);
                datagram.extend(endpoint.port);
                datagram.extend(heartbeat.heard_run.to_be_bytes());
                datagram.extend(heartbeat.peers.to_be_bytes());
            }
            Self::Reports(reports) => datagram.extend(reports.0),
            Self::Request(request) => {
                for number in [request.id, request.first, request.count] {
                    datagram.extend(number.to_be_bytes());
                }
                datagram.extend([request.only_own.into(), 0, 0, 0]);
            }
            Self::Part(part, reports) => {
                for number in [part.id, part.first, part.end, part.total] {
                    datagram.extend(number.to_be_bytes());
                }
                datagram.extend(reports.0);
            }
        }
        datagram
    }
}

impl Service {
    /// What no relay serves.
    const UNKNOWN: Self = Self {
        endpoint: Endpoint {
            address: [0; 4],
            port: [0; 2],
        },
        prefix: 0,
    };

    /// Returns what a relay serves.
    pub fn of(config: &relay::Config) -> Self {
        let octets = config.prefix.0.map(u32::from);
        let digest = octets.iter().fold(0, |digest, octet| digest * 31 + octet);
        Self {
            endpoint: config.endpoint,
            prefix: (digest % 255) as u8 + 1,
        }
    }
}

impl Heartbeat {
    fn parse(body: &[u8]) -> Option<Self> {
        let body: &[u8; HEARTBEAT] = body.try_into().ok()?;
        Some(Self {
            is_in_step: body[0] & 1 != 0,
            wants_answer: body[0] & 2 != 0,
            service: (body[1] != 0).then(|| Service {
                prefix: body[1],
                endpoint: Endpoint {
                    address: array(body, 2),
                    port: array(body, 6),
                },
            }),
            heard_run: u64::from_be_bytes(array(body, 8)),
            peers: u64::from_be_bytes(array(body, 16)),
        })
    }
}

impl Request {
    fn parse(body: &[u8]) -> Option<Self> {
        let body: &[u8; REQUEST] = body.try_into().ok()?;
        let number = |at| u32::from_be_bytes(array(body, at));
        Some(Self {
            id: number(0),
            first: number(4),
            count: number(8),
            only_own: body[12] & 1 != 0,
        })
    }
}

impl Part {
    fn parse(body: &[u8; PART]) -> Option<Self> {
        let number = |at| u32::from_be_bytes(array(body, at));
        let part = Self {
            id: number(0),
            first: number(4),
            end: number(8),
            total: number(12),
        };
        (part.first <= part.end && part.end <= part.total).then_some(part)
    }
}

impl<'p> Reports<'p> {
    fn parse(octets: &'p [u8]) -> Option<Self> {
        let is_whole = octets.len().is_multiple_of(REPORT) && octets.len() <= REPORTS * REPORT;
        is_whole.then_some(Self(octets))
    }

    /// Takes the octets that [`build_reports`] made.
    pub fn of(octets: &'p [u8]) -> Self {
        debug_assert!(Self::parse(octets).is_some());
        Self(octets)
    }

    /// Returns the reports, with ages that are those at `now`.
    pub fn iter(self, now: Instant, prefix: ServicePrefix) -> impl Iterator<Item = Report> {
        let reports = self.0.chunks_exact(REPORT);
        reports.map(move |octets| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&prefix.0);
            address[4..].copy_from_slice(&octets[..12]);
            let moment = |at| match u16::from_be_bytes(array(octets, at)) {
                NEVER => Instant::ZERO,
                age => {
                    let at = now - Duration::from_nanos(u64::from(age) * AGE);
                    at.max(Instant::from_nanos(1))
                }
            };
            Report {
                address,
                mapped: Endpoint {
                    address: array(octets, 12),
                    port: array(octets, 16),
                },
                last_received: moment(18),
                last_sent: moment(20),
                proved: moment(22),
            }
        })
    }
}

/// Builds reports with ages as they are at `now`.
pub fn build_reports(now: Instant, reports: &[Report]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(reports.len() * REPORT);
    for report in reports {
        octets.extend(&report.address[4..]);
        octets.extend(report.mapped.address);
        octets.extend(report.mapped.port);
        for moment in [report.last_received, report.last_sent, report.proved] {
            octets.extend(age(now, moment).to_be_bytes());
        }
    }
    octets
}

fn age(now: Instant, moment: Instant) -> u16 {
    if moment == Instant::ZERO {
        return NEVER;
    }
    let age = now.saturating_since(moment).as_nanos() / u128::from(AGE);
    u16::try_from(age).unwrap_or(NEVER)
}

/// Returns the octets at `at`, which are there.
fn array<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|place| octets.get(at + place).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    fn header(kind: Kind) -> Header {
        Header {
            kind,
            key: KeyId([1, 2, 3, 4]),
            run: 5,
            sequence: 6,
            sent: 7,
        }
    }

    /// Builds a message with a tag, and parses it.
    fn passes(message: Message<'_>, kind: Kind) {
        let mut datagram = message.build(header(kind));
        datagram.extend([0; TAG]);
        assert!(datagram.len() <= DATAGRAM);
        let (parsed, body) = Header::parse(&datagram).expect("a header");
        assert_eq!(parsed, header(kind));
        assert_eq!(Message::parse(kind, body), Ok(message));
        for length in 0..datagram.len() {
            let Ok((_, body)) = Header::parse(&datagram[..length]) else {
                continue;
            };
            let parsed = Message::parse(kind, body);
            assert_ne!(parsed, Ok(message), "{length} octets of a datagram");
        }
    }

    #[test]
    fn f06_what_is_built_is_parsed() {
        passes(
            Message::Heartbeat(Heartbeat {
                is_in_step: true,
                wants_answer: false,
                service: Some(Service {
                    endpoint: Endpoint::new([198, 51, 100, 1].into(), 3545),
                    prefix: 7,
                }),
                heard_run: 1 << 40,
                peers: 1_000_000,
            }),
            Kind::Heartbeat,
        );
        let request = Request {
            id: 1,
            first: 2,
            count: 3,
            only_own: true,
        };
        passes(Message::Request(request), Kind::Request);
        let octets = [3; REPORT * REPORTS];
        passes(Message::Reports(Reports(&octets)), Kind::Reports);
        let part = Part {
            id: 1,
            first: 2,
            end: 3,
            total: 4,
        };
        passes(Message::Part(part, Reports(&octets)), Kind::Part);
    }

    #[test]
    fn f06_other_versions_kinds_and_lengths_are_refused() {
        let message = Message::Reports(Reports(&[3; REPORT]));
        let mut datagram = message.build(header(Kind::Reports));
        datagram.extend([0; TAG]);
        let changed = |at: usize, value| {
            let mut datagram = datagram.clone();
            datagram[at] = value;
            Header::parse(&datagram).err()
        };
        assert_eq!(changed(0, 0), Some(Error::Malformed));
        assert_eq!(changed(2, 9), Some(Error::Version(9)));
        assert_eq!(changed(3, 9), Some(Error::Malformed));
        let long = [datagram.as_slice(), &[0; DATAGRAM]].concat();
        assert_eq!(Header::parse(&long), Err(Error::Malformed));
        let odd = Message::parse(Kind::Reports, &[0; REPORT + 1]);
        assert_eq!(odd, Err(Error::Malformed));
        let backwards = [0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 9];
        assert_eq!(
            Message::parse(Kind::Part, &backwards),
            Err(Error::Malformed)
        );
    }

    #[test]
    fn f09_a_datagram_passes_through_every_link_of_ipv6() {
        const HEADERS: usize = 40 + 8;
        const { assert!(DATAGRAM + HEADERS <= 1280) };
    }

    proptest! {
        #[test]
        fn f06_reports_keep_addresses_and_ages(
            rest: [u8; 12],
            address: [u8; 4],
            port: [u8; 2],
            ages in prop::array::uniform3(prop::option::of(0_u64..600_000))
        ) {
            let moment = |age: Option<u64>| match age {
                None => Instant::ZERO,
                Some(age) => NOW - Duration::from_millis(age),
            };
            let mut whole = [0x20, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            whole[4..].copy_from_slice(&rest);
            let report = Report {
                address: whole,
                mapped: Endpoint { address, port },
                last_received: moment(ages[0]),
                last_sent: moment(ages[1]),
                proved: moment(ages[2]),
            };
            let octets = build_reports(NOW, &[report]);
            let parsed: Vec<_> = Reports(&octets).iter(NOW, ServicePrefix::STANDARD).collect();
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!((parsed[0].address, parsed[0].mapped), (whole, report.mapped));
            let moments = |report: &Report| [report.last_received, report.last_sent, report.proved];
            for (parsed, exact) in moments(&parsed[0]).into_iter().zip(moments(&report)) {
                prop_assert!(parsed >= exact, "never older");
                prop_assert!(parsed.saturating_since(exact) < Duration::from_nanos(AGE));
            }
        }

        #[test]
        fn any_octets_are_parsed_or_refused(kind in 0_u8..6, octets: Vec<u8>) {
            let header = header(Kind::Heartbeat);
            let mut datagram = Message::Reports(Reports(&[])).build(header);
            datagram[3] = kind;
            datagram.extend(octets);
            if let Ok((header, body)) = Header::parse(&datagram)
                && let Ok(message) = Message::parse(header.kind, body)
            {
                let built = message.build(header);
                let signed = &datagram[..datagram.len() - TAG];
                prop_assert_eq!(built.len(), signed.len());
            }
        }
    }
}
