//! Messages are read by a parser that is not ours.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, UdpSocket},
    ops::Range,
    time::Duration,
};

use netflow_parser::{
    NetflowPacket, NetflowParser,
    variable_versions::{field_value::FieldValue, ipfix::FlowSetBody},
};
use teredo_common::{
    address::Endpoint,
    traffic::{Count, Towards, Traffic},
};
use teredo_proto::relay::PeerTraffic;

use super::{Exporter, MESSAGE_MAX, Message, Record, Source};
use crate::config::{Collector, IpfixSection};

const START: Duration = Duration::from_secs(1_800_000_000);

/// A record as the parser shows it: the fields by name.
type Fields = BTreeMap<String, FieldValue>;

/// Returns the records of a message, and its sequence number.
fn parse(parser: &mut NetflowParser, octets: &[u8]) -> (Vec<Fields>, u32) {
    let result = parser.parse_bytes(octets);
    assert!(result.error.is_none(), "{:?}", result.error);
    let [NetflowPacket::IPFix(message)] = &result.packets[..] else {
        panic!("{:?}", result.packets);
    };
    assert_eq!(usize::from(message.header.length), octets.len());
    assert_eq!(message.header.observation_domain_id, 7);
    let mut records = Vec::new();
    for set in &message.flowsets {
        match &set.body {
            FlowSetBody::Templates(templates) => assert_eq!(templates.len(), 2),
            FlowSetBody::Data(data) => records.extend(data.fields.iter().map(|fields| {
                let fields = fields.iter();
                fields
                    .map(|(name, value)| (format!("{name:?}"), value.clone()))
                    .collect()
            })),
            other => panic!("{other:?}"),
        }
    }
    (records, message.header.sequence_number)
}

/// Returns the value of the field whose name ends like this.
fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a FieldValue> {
    let mut found = fields.iter().filter(|(key, _)| {
        let key = key.trim_end_matches(')');
        key.rsplit('(')
            .next()
            .is_some_and(|key| key.eq_ignore_ascii_case(name))
    });
    found.next().map(|(_, value)| value)
}

fn number(fields: &Fields, name: &str) -> u64 {
    match field(fields, name) {
        Some(FieldValue::Duration(duration)) => duration.as_duration().as_millis() as u64,
        Some(value) => {
            // The name of the type has digits, too.
            let text = format!("{value:?}");
            let number = text.rsplit('(').next().unwrap_or_default();
            let number = number.trim_end_matches(')');
            number.parse().unwrap_or_else(|_| panic!("{text}"))
        }
        None => panic!("no {name} in {fields:?}"),
    }
}

fn address(fields: &Fields, name: &str) -> Option<IpAddr> {
    field(fields, name).and_then(|value| value.try_into().ok())
}

fn peer(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, number)
}

fn endpoint(number: u16) -> Endpoint {
    Endpoint::new([192, 0, 2, 33].into(), number)
}

fn traffic(packets: u64) -> Traffic {
    let count = |packets| Count {
        packets,
        octets: packets * 1000,
    };
    Traffic {
        encap: count(packets),
        decap: count(packets / 2),
    }
}

#[test]
fn a_parser_of_others_reads_both_directions() {
    let mut message = Message::new(START.as_secs() as u32, 42, 7);
    let record = |towards, count| Record {
        towards,
        address: peer(9),
        mapped: endpoint(4000),
        count,
        start: 1_800_000_000_123,
        end: 1_800_000_060_456,
    };
    let Traffic { encap, decap } = traffic(1 << 40);
    assert!(message.push(&record(Towards::Peer, encap)));
    assert!(message.push(&record(Towards::Native, decap)));
    assert_eq!(message.records(), 2);
    let (records, sequence) = parse(&mut NetflowParser::default(), &message.finish());
    assert_eq!(sequence, 42);
    let names = [
        (
            "DestinationIPv6Address",
            "PostNATDestinationIPv4Address",
            "PostNAPTDestinationTransportPort",
        ),
        (
            "SourceIPv6Address",
            "PostNATSourceIPv4Address",
            "PostNAPTSourceTransportPort",
        ),
    ];
    assert_eq!(records.len(), 2);
    for (index, (name, mapped, port)) in names.into_iter().enumerate() {
        let (fields, count) = (&records[index], [encap, decap][index]);
        assert_eq!(fields.len(), 8);
        assert_eq!(address(fields, name), Some(peer(9).into()));
        assert_eq!(address(fields, mapped), Some([192, 0, 2, 33].into()));
        assert_eq!(number(fields, port), 4000);
        assert_eq!(number(fields, "FlowDirection"), 1 - index as u64);
        assert_eq!(number(fields, "PacketDeltaCount"), count.packets);
        assert_eq!(number(fields, "OctetDeltaCount"), count.octets);
        assert_eq!(number(fields, "FlowStartMilliseconds"), 1_800_000_000_123);
        assert_eq!(number(fields, "FlowEndMilliseconds"), 1_800_000_060_456);
    }
}

/// Peers with traffic, by slot.
#[derive(Default)]
struct Peers {
    traffic: Vec<Traffic>,
    removed: Vec<PeerTraffic>,
}

impl Peers {
    fn of(slot: usize, traffic: Traffic) -> PeerTraffic {
        PeerTraffic {
            address: peer(slot as u16),
            mapped: endpoint(slot as u16),
            traffic,
        }
    }
}

impl Source for Peers {
    fn begin_reports(&mut self) {}

    fn slots(&self) -> usize {
        self.traffic.len()
    }

    fn report(&mut self, slots: Range<usize>, mut report: impl FnMut(PeerTraffic)) {
        for slot in slots {
            let traffic = std::mem::take(&mut self.traffic[slot]);
            if !traffic.is_none() {
                report(Self::of(slot, traffic));
            }
        }
    }

    fn take_removed(&mut self) -> Vec<PeerTraffic> {
        std::mem::take(&mut self.removed)
    }
}

/// A collector.
struct Listener {
    socket: UdpSocket,
    parser: NetflowParser,
    records: u32,
}

impl Listener {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self {
            socket,
            parser: NetflowParser::default(),
            records: 0,
        }
    }

    fn exporter(&self, interval: u16) -> Exporter {
        let section = IpfixSection {
            collector: Some(Collector(self.socket.local_addr().expect("an address"))),
            interval,
            observation_domain: 7,
        };
        Exporter::new(&section).expect("a collector")
    }

    /// Returns packets to and from peers, by the last number of their addresses.
    fn receive(&mut self) -> BTreeMap<u16, [u64; 2]> {
        let mut received = BTreeMap::<u16, [u64; 2]>::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            assert!(length <= MESSAGE_MAX);
            let (records, sequence) = parse(&mut self.parser, &buffer[..length]);
            assert_eq!(sequence, self.records);
            self.records += records.len() as u32;
            for fields in records {
                let to = address(&fields, "DestinationIPv6Address");
                let from = address(&fields, "SourceIPv6Address");
                let Some(IpAddr::V6(peer)) = to.or(from) else {
                    panic!("{fields:?}");
                };
                let counts = received.entry(peer.segments()[7]).or_default();
                counts[usize::from(to.is_none())] += number(&fields, "PacketDeltaCount");
            }
        }
        received
    }
}

fn at(seconds: u64) -> Duration {
    START + Duration::from_secs(seconds)
}

#[test]
fn every_peer_is_reported_once_in_an_interval() {
    let mut listener = Listener::new();
    let mut exporter = listener.exporter(10);
    let mut peers = Peers {
        traffic: (0..1000).map(|slot| traffic(slot + 1)).collect(),
        removed: Vec::new(),
    };
    let mut sums = BTreeMap::new();
    for second in 0..=10 {
        exporter.report(&mut peers, at(second));
        let received = listener.receive();
        // A tenth of them each second.
        assert!(received.len() <= 100, "{}", received.len());
        sums.extend(received);
    }
    assert_eq!(sums.len(), 1000);
    for (number, [encap, decap]) in sums {
        let packets = u64::from(number) + 1;
        assert_eq!([encap, decap], [packets, packets / 2]);
    }
    assert_eq!(exporter.failure(), None);
}

#[test]
fn peers_that_go_and_a_process_that_ends_are_reported_at_once() {
    let mut listener = Listener::new();
    let mut exporter = listener.exporter(3600);
    let mut peers = Peers {
        traffic: vec![Traffic::default(), traffic(6)],
        removed: vec![Peers::of(5, traffic(4))],
    };
    exporter.report(&mut peers, at(0));
    assert_eq!(listener.receive(), [(5, [4, 2])].into());
    exporter.add_stray(peer(5).octets(), traffic(2), at(1));
    exporter.finish(&mut peers, at(1));
    assert_eq!(listener.receive(), [(1, [6, 3]), (5, [2, 1])].into());
}

#[test]
fn nothing_is_lost_while_nobody_listens() {
    let mut listener = Listener::new();
    let mut exporter = listener.exporter(1);
    let port = listener.socket.local_addr().expect("an address");
    // The port is closed: the kernel refuses what is sent there.
    drop(std::mem::replace(
        &mut listener.socket,
        UdpSocket::bind("127.0.0.1:0").expect("a socket"),
    ));
    let mut peers = Peers::default();
    let mut expected = BTreeMap::<u16, [u64; 2]>::new();
    for second in 0..20 {
        let slot = second % 7;
        peers.traffic.resize(7, Traffic::default());
        peers.traffic[slot as usize] = traffic(second + 2);
        let counts = expected.entry(slot as u16).or_default();
        counts[0] += second + 2;
        counts[1] += (second + 2) / 2;
        exporter.report(&mut peers, at(second));
    }
    assert!(exporter.failure().is_some());
    listener.socket = UdpSocket::bind(port).expect("the same port");
    listener.socket.set_nonblocking(true).expect("a socket");
    let mut sums = BTreeMap::<u16, [u64; 2]>::new();
    // What was lost leaves a gap in the sequence.
    for second in 20..25 {
        exporter.report(&mut peers, at(second));
        let mut buffer = [0; 2048];
        while let Ok(length) = listener.socket.recv(&mut buffer) {
            for fields in parse(&mut listener.parser, &buffer[..length]).0 {
                let to = address(&fields, "DestinationIPv6Address");
                let from = address(&fields, "SourceIPv6Address");
                let Some(IpAddr::V6(peer)) = to.or(from) else {
                    panic!("{fields:?}");
                };
                let counts = sums.entry(peer.segments()[7]).or_default();
                counts[usize::from(to.is_none())] += number(&fields, "PacketDeltaCount");
            }
        }
    }
    assert_eq!(sums, expected);
    assert_eq!(exporter.failure(), None);
}
