use std::collections::HashMap;

use proptest::prelude::*;
use teredo_common::{checksum::ipv6_transport, wire::TCP};

use super::*;

/// A packet to be built.
#[derive(Clone, Debug)]
struct Recipe {
    /// The part of the address in which flows differ.
    host: u8,
    flags: u8,
    sequence: u32,
    /// Octets of TCP options, a multiple of four.
    options: usize,
    data: Vec<u8>,
}

fn recipe(sequence: u32, flags: u8, data: &[u8]) -> Recipe {
    Recipe {
        host: 1,
        flags,
        sequence,
        options: 12,
        data: data.to_vec(),
    }
}

/// Puts the fixed header in front of a message, and the checksum into it.
fn packet(host: u8, protocol: Protocol, extension: &[u8], mut message: Vec<u8>) -> Vec<u8> {
    let (source, destination) = ([0x20; 16], [host; 16]);
    let field = protocol.checksum();
    message[field..field + 2].fill(0);
    let mut checksum = ipv6_transport(&source, &destination, protocol.number(), &message);
    if protocol == Protocol::Udp && checksum == [0, 0] {
        checksum = [0xff, 0xff];
    }
    message[field..field + 2].copy_from_slice(&checksum);
    let mut packet = vec![0x60, 0x12, 0x34, 0x56, 0, 0, protocol.number(), 63];
    if !extension.is_empty() {
        packet[6] = 60;
    }
    packet.extend(source);
    packet.extend(destination);
    packet.extend(extension);
    packet.extend(message);
    let length = packet.len();
    set_payload_length(&mut packet, length);
    packet
}

fn tcp_message(recipe: &Recipe) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0x00, 0x50];
    message.extend(recipe.sequence.to_be_bytes());
    message.extend([0, 0, 0, 7]);
    message.extend([
        (((TCP_HEADER + recipe.options) / 4) << 4) as u8,
        recipe.flags,
    ]);
    message.extend([0x10, 0, 0, 0, 0, 0]);
    message.resize(TCP_HEADER + recipe.options, 1);
    message.extend(&recipe.data);
    message
}

fn tcp(recipe: &Recipe) -> Vec<u8> {
    packet(recipe.host, Protocol::Tcp, &[], tcp_message(recipe))
}

fn udp_message(data: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0x00, 0x35];
    message.extend((8 + data.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(data);
    message
}

fn udp(host: u8, data: &[u8]) -> Vec<u8> {
    packet(host, Protocol::Udp, &[], udp_message(data))
}

/// Makes the checksum of a packet without extension headers partial, as a sender leaves it to its
/// network card.
fn leave_partial(packet: &mut [u8], transport: usize, protocol: Protocol) -> Option<(u16, u16)> {
    let length = (packet.len() - transport) as u16;
    let sum = pseudo_header(&packet[..IPV6_HEADER], length, protocol).fold();
    let field = transport + protocol.checksum();
    packet[field..field + 2].copy_from_slice(&sum);
    Some((transport as u16, protocol.checksum() as u16))
}

fn split(header: &Header, packet: &[u8]) -> Vec<Vec<u8>> {
    let split = Split::new(header, packet).unwrap().unwrap();
    let mut room = vec![0; split.room()];
    let packets: Vec<_> = split
        .packets(&mut room)
        .map(|parts| parts.concat())
        .collect();
    assert_eq!(packets.len(), split.count());
    assert_eq!(packets.iter().map(Vec::len).max(), Some(split.largest()));
    assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), split.octets());
    packets
}

/// What is written of these packets: each virtio-net header, the octets after it, and the number of
/// packets in them.
fn coalesced(packets: &[Vec<u8>], protocols: Protocols) -> Vec<(Header, Vec<u8>, usize)> {
    let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
    let mut coalescer = Coalescer::default();
    coalescer.coalesce(&packets, protocols);
    let mut written = Vec::new();
    coalescer.each(&packets, |parts, count| {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let (header, packet) = all.split_first_chunk().unwrap();
        written.push((Header::parse(header).unwrap(), packet.to_vec(), count));
    });
    assert_eq!(written.len(), coalescer.len());
    written
}

/// How many packets each written one has.
fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
    let written = coalesced(packets, Protocols::TcpAndUdp);
    written.iter().map(|(_, _, count)| *count).collect()
}

#[test]
fn a_tcp_super_packet_becomes_the_packets_without_offload() {
    let data: Vec<u8> = (0..2500_u32).map(|number| (number * 7) as u8).collect();
    // Over the end of the sequence numbers; the checksums have a carry here and there.
    let first = u32::MAX - 1100;
    let extension = [6, 0, 1, 4, 0, 0, 0, 0];
    for extension in [&[][..], &extension] {
        let whole = recipe(first, ACK | ECE | CWR | PSH | FIN, &data);
        let mut super_packet = packet(1, Protocol::Tcp, extension, tcp_message(&whole));
        let partial = leave_partial(
            &mut super_packet,
            IPV6_HEADER + extension.len(),
            Protocol::Tcp,
        );
        let header = Header {
            partial,
            segments: Some((Protocol::Tcp, 1000)),
        };
        let expected: Vec<Vec<u8>> = [
            (0, &data[..1000], ACK | ECE | CWR),
            (1000, &data[1000..2000], ACK | ECE),
            (2000, &data[2000..], ACK | ECE | PSH | FIN),
        ]
        .iter()
        .map(|(start, data, flags)| {
            let recipe = recipe(first.wrapping_add(*start), *flags, data);
            packet(1, Protocol::Tcp, extension, tcp_message(&recipe))
        })
        .collect();
        assert_eq!(split(&header, &super_packet), expected);
    }
}

#[test]
fn a_udp_super_packet_becomes_datagrams_with_length_and_checksum() {
    let data: Vec<u8> = (0..250_u32).map(|number| (number * 7) as u8).collect();
    let mut super_packet = udp(1, &data);
    let expected: Vec<_> = data.chunks(100).map(|data| udp(1, data)).collect();
    let segments = Some((Protocol::Udp, 100));
    // A card that verified the checksums leaves none partial.
    let verified = Header {
        partial: None,
        segments,
    };
    assert_eq!(split(&verified, &super_packet), expected);
    let partial = leave_partial(&mut super_packet, IPV6_HEADER, Protocol::Udp);
    assert_eq!(
        split(&Header { partial, segments }, &super_packet),
        expected
    );
}

#[test]
fn a_datagram_whose_checksum_is_zero_is_sent_with_ones() {
    // The complement of everything else in the datagram.
    let mut data = vec![0, 0];
    let mut datagram = udp(1, &data);
    data.copy_from_slice(&datagram[46..48]);
    let expected = udp(1, &data);
    assert_eq!(expected[46..48], [0xff, 0xff]);
    datagram = expected.clone();
    let partial = leave_partial(&mut datagram, IPV6_HEADER, Protocol::Udp);
    let header = Header {
        partial,
        segments: None,
    };
    complete(&header, &mut datagram).unwrap();
    assert_eq!(datagram, expected);
}

#[test]
fn partial_checksums_are_completed() {
    for (protocol, expected) in [
        (Protocol::Tcp, tcp(&recipe(5, ACK, b"odd"))),
        (Protocol::Udp, udp(1, b"")),
    ] {
        let mut packet = expected.clone();
        let partial = leave_partial(&mut packet, IPV6_HEADER, protocol);
        assert_ne!(packet, expected);
        let header = Header {
            partial,
            segments: None,
        };
        complete(&header, &mut packet).unwrap();
        assert_eq!(packet, expected);
    }
}

#[test]
fn contradictions_are_refused() {
    let whole = udp(1, &[0; 100]);
    let segments = Some((Protocol::Udp, 10));
    let refused = |partial, segments, packet: &[u8]| {
        assert!(Split::new(&Header { partial, segments }, packet).is_err());
    };
    refused(Some((40, 6)), Some((Protocol::Udp, 0)), &whole);
    refused(Some((40, 16)), segments, &whole);
    refused(Some((39, 6)), segments, &whole);
    refused(Some((145, 6)), segments, &whole);
    refused(Some((40, 6)), segments, &whole[..147]);
    refused(None, Some((Protocol::Tcp, 10)), &whole);
    let mut short = tcp(&recipe(0, ACK, &[0; 100]));
    for words in [4, 15] {
        short[52] = words << 4;
        short.truncate(95);
        let length = short.len();
        set_payload_length(&mut short, length);
        refused(Some((40, 16)), Some((Protocol::Tcp, 10)), &short);
    }
    for (start, offset) in [(149, 0), (148, 0), (147, 0), (140, 7), (40, u16::MAX)] {
        let header = Header {
            partial: Some((start, offset)),
            segments: None,
        };
        assert!(complete(&header, &mut whole.clone()).is_err(), "{header:?}");
    }
    assert!(Header::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
}

#[test]
fn segments_of_one_flow_are_joined() {
    let long = [7; 100];
    let first = tcp(&recipe(u32::MAX - 99, ACK, &long));
    let second = tcp(&recipe(0, ACK, &long));
    let last = tcp(&recipe(100, ACK | PSH | FIN, &long[..30]));
    let packets = [first, second, last];
    let written = coalesced(&packets, Protocols::TcpAndUdp);
    let [(header, whole, 3)] = &written[..] else {
        panic!("{written:?}");
    };
    assert_eq!(whole.len(), 40 + 32 + 230);
    assert_eq!(whole[53], ACK | PSH | FIN);
    assert_eq!(split(header, whole), packets);
    // Datagrams only if the kernel takes them.
    let long = [7; 512];
    let packets = [udp(1, &long), udp(1, &long[..1])];
    assert_eq!(counts(&packets), [2]);
    // Small ones are not worth it.
    assert_eq!(counts(&[udp(1, &long[1..]), udp(1, &long[1..])]), [1, 1]);
    assert_eq!(coalesced(&packets, Protocols::Tcp).len(), 2);
}

#[test]
fn what_differs_is_not_joined() {
    let long = [7; 100];
    let first = recipe(1000, ACK, &long);
    let after = recipe(1100, ACK, &long);
    let joined = |first: &Recipe, after: &Recipe| counts(&[tcp(first), tcp(after)]) == [2];
    assert!(joined(&first, &after));
    let other = |change: fn(&mut Recipe)| {
        let mut changed = after.clone();
        change(&mut changed);
        changed
    };
    for changed in [
        other(|recipe| recipe.host = 2),
        other(|recipe| recipe.sequence += 1),
        other(|recipe| recipe.sequence -= 1),
        other(|recipe| recipe.options = 8),
        other(|recipe| recipe.data.push(1)),
        other(|recipe| recipe.data.clear()),
        other(|recipe| recipe.flags |= 0x02),
        other(|recipe| recipe.flags |= 0x04),
        other(|recipe| recipe.flags |= 0x20),
        other(|recipe| recipe.flags |= CWR),
        other(|recipe| recipe.flags |= ECE),
        other(|recipe| recipe.flags = 0),
    ] {
        assert!(!joined(&first, &changed), "{changed:?}");
    }
    // Nothing follows a push or a shorter segment.
    assert!(!joined(&recipe(1000, ACK | PSH, &long), &after));
    let short = recipe(1100, ACK, &long[..99]);
    let next = recipe(1199, ACK, &long[..99]);
    assert_eq!(counts(&[&first, &short, &next].map(tcp)), [2, 1]);
    // Every octet of the headers counts: none may differ, except checksums and lengths.
    let packets = [tcp(&first), tcp(&after)];
    for octet in 0..72 {
        let mut changed = packets.clone();
        changed[1][octet] ^= 1;
        let (source, destination) = ([0x20; 16], [1; 16]);
        if !(8..40).contains(&octet) {
            let (_, message) = changed[1].split_at_mut(40);
            message[16..18].fill(0);
            let checksum = ipv6_transport(&source, &destination, TCP, message);
            message[16..18].copy_from_slice(&checksum);
        }
        let expected: &[usize] = match octet {
            // The checksum itself was restored; the end is marked.
            56 | 57 | 53 => &[2],
            _ => &[1, 1],
        };
        assert_eq!(counts(&changed), expected, "octet {octet}");
    }
}

#[test]
fn packets_with_wrong_checksums_stay_as_they_are() {
    let long = [7; 100];
    let packets: Vec<_> = (0..5)
        .map(|number| tcp(&recipe(number * 100, ACK, &long)))
        .collect();
    assert_eq!(counts(&packets), [5]);
    for (broken, expected) in [(0, &[1, 4][..]), (2, &[2, 1, 2]), (4, &[4, 1])] {
        let mut packets = packets.clone();
        packets[broken][80] ^= 1;
        assert_eq!(counts(&packets), expected);
    }
    // Datagrams without a checksum cannot be verified.
    let mut packets = [udp(1, &[7; 1000]), udp(1, &[7; 1000])];
    for packet in &mut packets {
        packet[46..48].fill(0);
    }
    assert_eq!(counts(&packets), [1, 1]);
}

#[test]
fn limits_hold() {
    let datagrams = vec![udp(1, &[1; 600]); 130];
    assert_eq!(counts(&datagrams), [64, 64, 2]);
    let segments: Vec<_> = (0..60)
        .map(|number| tcp(&recipe(number * 1208, ACK, &[1; 1208])))
        .collect();
    assert_eq!(counts(&segments), [54, 6]);
    // Of many flows in turn, each is continued, and of too many none.
    for (flows, joined) in [(16, true), (17, false)] {
        let round = |start: u32| {
            (0..flows).map(move |host| {
                tcp(&Recipe {
                    host,
                    ..recipe(start, ACK, &[1; 8])
                })
            })
        };
        let packets: Vec<_> = round(0).chain(round(8)).collect();
        assert_eq!(counts(&packets).len() == usize::from(flows), joined);
    }
}

/// A step of a sender: a flow, and its next packet.
#[derive(Clone, Debug)]
struct Step {
    flow: u8,
    is_tcp: bool,
    flags: u8,
    gap: bool,
    broken: bool,
    options: usize,
    length: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![4 => Just(600_usize), 1 => 0..600_usize, 1 => Just(1200_usize)];
    let flags = prop_oneof![6 => Just(ACK), 1 => Just(ACK | PSH), 1 => any::<u8>()];
    let step = (
        0..4_u8,
        any::<bool>(),
        flags,
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.05),
        prop_oneof![9 => Just(12_usize), 1 => Just(0_usize)],
        length,
    );
    let step = step.prop_map(|(flow, is_tcp, flags, gap, broken, options, length)| Step {
        flow,
        is_tcp,
        flags,
        gap,
        broken,
        options,
        length,
    });
    prop::collection::vec(step, 0..200)
}

/// The packets of these steps.
fn sent(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut sequences = [u32::MAX - 1000; 4];
    let packets = steps.iter().enumerate().map(|(number, step)| {
        let data: Vec<u8> = (0..step.length)
            .map(|octet| (octet * 31 + number) as u8)
            .collect();
        let mut packet = if step.is_tcp {
            let sequence = &mut sequences[usize::from(step.flow)];
            *sequence = sequence.wrapping_add(step.gap.into());
            let recipe = Recipe {
                host: step.flow,
                options: step.options,
                ..recipe(*sequence, step.flags, &data)
            };
            *sequence = sequence.wrapping_add(data.len() as u32);
            tcp(&recipe)
        } else {
            udp(step.flow, &data)
        };
        if step.broken {
            *packet.last_mut().unwrap() ^= 0x55;
        }
        packet
    });
    packets.collect()
}

/// The packets of each flow in order.
fn flows(packets: Vec<Vec<u8>>) -> HashMap<(u8, u8), Vec<Vec<u8>>> {
    let mut flows: HashMap<_, Vec<_>> = HashMap::new();
    for packet in packets {
        flows
            .entry((packet[6], packet[39]))
            .or_default()
            .push(packet);
    }
    flows
}

proptest! {
    #[test]
    fn splitting_restores_what_was_coalesced(steps in steps()) {
        let packets = sent(&steps);
        let written = coalesced(&packets, Protocols::TcpAndUdp);
        let mut restored = Vec::new();
        for (header, packet, count) in written {
            let before = restored.len();
            match header.segments {
                Some(_) => restored.extend(split(&header, &packet)),
                None => restored.push(packet),
            }
            prop_assert_eq!(restored.len() - before, count);
        }
        prop_assert_eq!(flows(restored), flows(packets));
    }

    #[test]
    fn any_octets_are_handled(header: [u8; 10], mut packet: Vec<u8>, version in 0..2_u8) {
        if version == 0 && let Some(first) = packet.first_mut() {
            *first = 0x60;
        }
        if let Some(header) = Header::parse(&header) {
            if let Ok(Some(split)) = Split::new(&header, &packet) {
                let mut room = vec![0; split.room()];
                prop_assert_eq!(split.packets(&mut room).count(), split.count());
            }
            let _ = complete(&header, &mut packet);
        }
        prop_assert_eq!(coalesced(&[packet.clone(), packet.clone()], Protocols::TcpAndUdp).iter().map(|(_, _, count)| count).sum::<usize>(), 2);
    }
}
