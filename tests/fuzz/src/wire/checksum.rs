//! Internet checksums.

use teredo_common::{
    address::Endpoint,
    checksum::{self, Sum},
    wire::{ICMPV6, TCP, UDP},
};

use crate::bytes::Bytes;

/// Compares each way of computing a sum with the simple one, and the checksum that is made from eight
/// octets with the one over all.
pub fn run(octets: &[u8]) {
    assert_eq!(normal(Sum::ZERO.add_octets(octets).fold()), simple(octets));
    let even = octets.len() / 2 / 2 * 2;
    let (first, second) = octets.split_at(even);
    let sum = Sum::ZERO
        .add_octets(second)
        .add_sum(Sum::ZERO.add_octets(first));
    assert_eq!(normal(sum.fold()), simple(octets));
    if let [first, rest @ ..] = octets {
        let sum = Sum::ZERO.add_octets(rest).at_odd_offset();
        assert_eq!(normal(sum.add_2([*first, 0]).fold()), simple(octets));
    }
    encapsulated(&mut Bytes::new(octets));
}

/// The sum modulo 65535 word by word, where both zeros are one.
fn simple(octets: &[u8]) -> u16 {
    let words = octets.chunks(2);
    let sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
        .sum();
    u16::try_from(sum % 0xffff).unwrap_or_default()
}

fn normal(sum: [u8; 2]) -> u16 {
    u16::from_be_bytes(sum) % 0xffff
}

/// A packet whose transport checksum is right gets the same outer checksum in both ways (W-08).
fn encapsulated(bytes: &mut Bytes<'_>) {
    let (next_header, least) = bytes.pick(&[(TCP, 20), (UDP, 8), (ICMPV6, 8)]);
    let from = Endpoint::new(bytes.array::<4>().into(), bytes.short());
    let to = Endpoint::new(bytes.array::<4>().into(), bytes.short());
    let (source, destination) = (bytes.array(), bytes.array());
    let [hop_limit, class, flow] = bytes.array();
    let mut message = bytes.rest().to_vec();
    message.truncate(2000);
    message.resize(message.len().max(least), 0);
    let mut packet =
        teredo_proto::testing::transport(next_header, hop_limit, &source, &destination, &message);
    packet[1] = class;
    packet[3] = flow;
    let sum = checksum::ipv6_transport(&source, &destination, next_header, &packet[40..]);
    assert!(matches!(sum, [0, 0] | [0xff, 0xff]), "it is verified");
    let head = packet.first_chunk().expect("a header");
    let fast = checksum::encapsulation(from, to, head);
    assert_eq!(fast, checksum::ipv4_udp(from, to, &packet), "W-08");
}
