//! The payload of a UDP datagram, with its trailers.

use teredo_common::{address::Endpoint, wire::IPV6_HEADER};
use teredo_proto::wire::{
    encapsulation::{self, Encapsulation},
    ipv6::Header,
    trailer::{self, Trailer, write_alternate_addresses},
};

use super::offset;

/// Parses the payload, and builds it again from its parts.
pub fn run(payload: &[u8]) {
    trailers(payload);
    let Ok(parts) = encapsulation::parse(payload) else {
        return;
    };
    let header = Header::parse(parts.packet).expect("a packet (W-03)");
    assert_eq!(header.packet_length(), parts.packet.len());
    let at = offset(payload, parts.packet);
    assert_eq!(offset(payload, parts.trailers), at + parts.packet.len());
    assert_eq!(
        at + parts.packet.len() + parts.trailers.len(),
        payload.len()
    );
    assert!(parts.packet.len() >= IPV6_HEADER);
    assert_eq!(build(&parts), payload, "nothing is lost");
    trailers(parts.trailers);
}

fn build(parts: &Encapsulation<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(header) = parts.authentication {
        let (client, value) = (header.client, header.value);
        let range = encapsulation::write_authentication(
            client,
            value.len(),
            header.nonce,
            header.confirmation,
            &mut payload,
        );
        payload[range].copy_from_slice(value);
    }
    if let Some(origin) = parts.origin {
        payload.extend(origin.origin_indication());
    }
    payload.extend(parts.packet);
    payload.extend(parts.trailers);
    payload
}

/// Parses trailers; those that are written again are the same.
fn trailers(octets: &[u8]) {
    let mut count = 0;
    for trailer in trailer::parse(octets) {
        count += 1;
        let Ok(trailer) = trailer else { continue };
        let mut written = Vec::new();
        trailer.write(&mut written);
        let again: Vec<_> = trailer::parse(&written).collect();
        assert_eq!(again, [Ok(trailer)]);
        if let Trailer::AlternateAddresses(list) = trailer {
            let endpoints: Vec<Endpoint> = list.endpoints().collect();
            assert!((1..=4).contains(&endpoints.len()));
            let mut copy = Vec::new();
            write_alternate_addresses(&endpoints, &mut copy);
            assert_eq!(copy, written);
        }
    }
    assert!(2 * count <= octets.len());
}
