//! Packets that cross the TUN interface together.

use teredo::datapath::offload::{Coalescer, Header, Protocols, Split, complete};
use teredo_common::wire::{TCP, UDP};
use teredo_proto::testing::transport;

use crate::bytes::Bytes;

/// Splits any octets as the kernel's header in front of them tells, and coalesces packets, which must be
/// restored by splitting.
pub fn run(octets: &[u8]) {
    if let Some((header, packet)) = octets.split_first_chunk() {
        split(header, packet);
    }
    coalesce(&mut Bytes::new(octets));
}

fn split(header: &[u8; Header::LENGTH], packet: &[u8]) {
    let Some(header) = Header::parse(header) else {
        return;
    };
    if let Ok(Some(split)) = Split::new(&header, packet) {
        restored(&split);
    }
    let mut completed = packet.to_vec();
    if complete(&header, &mut completed).is_err() {
        assert_eq!(completed, packet, "a refused packet stays as it is");
    }
}

fn restored(split: &Split<'_>) -> Vec<Vec<u8>> {
    let mut room = vec![0; split.room()];
    let packets: Vec<_> = split
        .packets(&mut room)
        .map(|parts| parts.concat())
        .collect();
    assert_eq!(packets.len(), split.count());
    assert_eq!(packets.iter().map(Vec::len).sum::<usize>(), split.octets());
    assert!(packets.iter().all(|packet| packet.len() <= split.largest()));
    packets
}

/// The packets of four flows, whose octets are almost as the input has them.
fn coalesce(bytes: &mut Bytes<'_>) {
    let mut packets = Vec::new();
    let mut sequence = [0_u32; 4];
    while !bytes.is_empty() && packets.len() < 200 {
        let flow = bytes.below(4);
        let (length, flags, choice) = (bytes.octet(), bytes.octet(), bytes.octet());
        let length = 16 * usize::from(length & 0x3f);
        let mut message = vec![0, 1, 0, flow as u8];
        let protocol = if choice & 1 == 0 {
            message.extend(sequence[flow].to_be_bytes());
            message.extend([0, 0, 0, 7, 0x50, flags, 1, 0, 0, 0, 0, 0]);
            sequence[flow] = sequence[flow].wrapping_add(length as u32);
            TCP
        } else {
            message.extend((8 + length as u16).to_be_bytes());
            message.extend([0, 0]);
            UDP
        };
        message.resize(message.len() + length, choice);
        let mut packet = transport(protocol, 64, &[flow as u8; 16], &[1; 16], &message);
        // What is in none of the two fields that splitting computes again may be anything.
        if choice & 2 != 0 {
            let octet = usize::from(bytes.octet()) % packet.len();
            packet[octet] ^= bytes.octet();
        }
        packets.push(packet);
    }
    let slices: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
    let mut coalescer = Coalescer::default();
    coalescer.coalesce(&slices, Protocols::TcpAndUdp);
    let mut all = Vec::new();
    coalescer.each(&slices, |parts, count| {
        let octets: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let (header, packet) = octets.split_first_chunk().expect("a header");
        let header = Header::parse(header).expect("a header of ours");
        let before = all.len();
        match Split::new(&header, packet).expect("no contradiction") {
            Some(split) => all.extend(restored(&split)),
            None => all.push(packet.to_vec()),
        }
        assert_eq!(all.len() - before, count);
    });
    all.sort();
    packets.sort();
    assert_eq!(all, packets);
}
