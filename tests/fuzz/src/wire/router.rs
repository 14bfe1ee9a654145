//! Router solicitations and advertisements.

use teredo_common::{checksum, scope::is_link_local, wire::ICMPV6};
use teredo_proto::wire::{
    ipv6::Header,
    router::{self, Advertisement, Contents},
};

use crate::bytes::Bytes;

/// Parses a packet as it is, and with its checksum set right; then builds an advertisement of the same
/// octets.
pub fn run(octets: &[u8]) {
    examine(octets);
    if let Ok(header) = Header::parse(octets) {
        let mut packet = octets[..header.packet_length()].to_vec();
        if packet.len() >= 44 {
            packet[42..44].fill(0);
            let (source, destination) = (header.source(), header.destination());
            let sum = checksum::ipv6_transport(&source, &destination, ICMPV6, &packet[40..]);
            packet[42..44].copy_from_slice(&sum);
            examine(&packet);
        }
    }
    build(&mut Bytes::new(octets));
}

fn examine(octets: &[u8]) {
    let Ok(header) = Header::parse(octets) else {
        return;
    };
    let packet = &octets[..header.packet_length()];
    let solicitation = router::is_valid_solicitation(header, packet);
    let contents = router::parse_advertisement(header, packet);
    if solicitation {
        assert!(router::is_solicitation(header, packet));
        assert_eq!((packet[40], header.hop_limit()), (133, 255));
    }
    if let Some(Contents { prefix, .. }) = contents {
        assert!(router::is_advertisement(header, packet));
        assert!(is_link_local(&header.source()));
        assert!(packet.len() >= 40 + 16 + if prefix.is_some() { 32 } else { 0 });
    }
    assert!(!(solicitation && contents.is_some()));
}

/// What is built can be read.
fn build(bytes: &mut Bytes<'_>) {
    let mut source: [u8; 16] = bytes.array();
    source[..8].copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
    let destination = bytes.array();
    let prefix = bytes.array();
    let mtu = bytes.bit().then(|| bytes.short());
    let mut packet = Vec::new();
    Advertisement::new(&source, prefix, mtu).write(&destination, &mut packet);
    let header = Header::parse(&packet).expect("a packet");
    assert_eq!(header.destination(), destination);
    let contents = router::parse_advertisement(header, &packet).expect("it is valid");
    let expected = Contents {
        prefix: Some(prefix),
        mtu: mtu.map(u32::from),
    };
    assert_eq!(contents, expected, "S-17");
    let packet = router::solicitation(&source);
    let header = Header::parse(&packet).expect("a packet");
    assert!(router::is_valid_solicitation(header, &packet), "S-21");
}
