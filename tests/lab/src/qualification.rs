//! What a client that exists only as a socket says to a server, and what it has to hear: router
//! solicitations and advertisements (RFC 4380 section 5.2.1), put together field for field.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use teredo_common::wire::{ICMPV6, SERVER_PORT};
use teredo_proto::testing::transport;

/// All routers on the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The source of Miredo's solicitations; the cone bit is clear.
pub const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff);
/// A source with the cone bit set.
pub const CONE_CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x8000, 0xffff, 0xffff, 0xffff);
/// The MTU that servers advertise, in octets.
pub const MTU: u32 = 1280;

/// A solicitation without options.
#[must_use]
pub fn solicitation(source: Ipv6Addr) -> Vec<u8> {
    icmpv6(source, ALL_ROUTERS, &[133, 0, 0, 0, 0, 0, 0, 0])
}

/// The advertisement of the server with this primary address.
#[must_use]
pub fn advertisement(primary: Ipv4Addr, destination: Ipv6Addr, mtu: Option<u32>) -> Vec<u8> {
    let [a, b, c, d] = primary.octets();
    let prefix = [0x20, 1, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
    advertisement_of(primary, destination, prefix.into(), mtu)
}

/// As [`advertisement`], with another prefix of 64 bits.
#[must_use]
pub fn advertisement_of(
    primary: Ipv4Addr,
    destination: Ipv6Addr,
    prefix: Ipv6Addr,
    mtu: Option<u32>,
) -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend(2000_u32.to_be_bytes());
    message.extend([3, 4, 64, 0x40]);
    message.extend([[0xff; 4], [0xff; 4], [0; 4]].concat());
    message.extend(prefix.octets());
    if let Some(mtu) = mtu {
        message.extend([5, 1, 0, 0]);
        message.extend(mtu.to_be_bytes());
    }
    icmpv6(link_local(primary), destination, &message)
}

/// The link-local address of the server with this primary address.
#[must_use]
pub fn link_local(primary: Ipv4Addr) -> Ipv6Addr {
    let [high, low] = [primary.to_bits() >> 16, primary.to_bits()].map(|half| !(half as u16));
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x8000, !SERVER_PORT, high, low)
}

/// The IPv6 packet behind an authentication header and an origin indication, if they are there.
#[must_use]
pub fn packet(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    if let [0, 1, id, value, ..] = *rest {
        rest = rest.get(13 + usize::from(id) + usize::from(value)..)?;
    }
    if let [0, 0, ..] = *rest {
        rest = rest.get(8..)?;
    }
    (rest.len() >= 40 && rest[0] >> 4 == 6).then_some(rest)
}

/// Whether a datagram's payload is a router solicitation.
#[must_use]
pub fn is_solicitation(payload: &[u8]) -> bool {
    packet(payload).is_some_and(|packet| packet[6] == ICMPV6 && packet.get(40) == Some(&133))
}

/// An authentication header with a nonce and nothing else.
#[must_use]
pub fn nonce_only(nonce: [u8; 8]) -> Vec<u8> {
    let mut header = vec![0, 1, 0, 0];
    header.extend(nonce);
    header.push(0);
    header
}

/// The origin indication for a client that the server sees as `mapped`.
#[must_use]
pub fn origin(mapped: SocketAddrV4) -> [u8; 8] {
    let [a, b, c, d] = mapped.ip().octets();
    let [high, low] = mapped.port().to_be_bytes();
    [0, 0, !high, !low, !a, !b, !c, !d]
}

/// An ICMPv6 message in an IPv6 packet, with the hop limit of neighbour discovery. `message` has a
/// checksum of zero, which is filled in.
#[must_use]
pub fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    transport(
        ICMPV6,
        255,
        &source.octets(),
        &destination.octets(),
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::octets;

    #[test]
    fn v15_a_solicitation_is_one() {
        let expected = "6000000000083aff fe800000000000000000ffffffffffff
            ff020000000000000000000000000002 85007d3700000000";
        assert_eq!(solicitation(CLIENT), octets(expected));
        assert_eq!(solicitation(CONE_CLIENT)[42..44], [0xfd, 0x36]);
    }

    #[test]
    fn v16_an_advertisement_is_one() {
        let expected = "6000000000383aff fe800000000000008000f227fefdfcfb
            fe800000000000000000ffffffffffff 8600954c 00000000 00000000 000007d0
            03044040ffffffffffffffff00000000 20010000010203040000000000000000 0501000000000500";
        let server = Ipv4Addr::new(1, 2, 3, 4);
        assert_eq!(advertisement(server, CLIENT, Some(MTU)), octets(expected));
    }

    #[test]
    fn a_solicitation_is_known_by_what_it_is() {
        let mut payload = nonce_only([7; 8]);
        payload.extend(solicitation(CLIENT));
        assert!(is_solicitation(&payload));
        assert!(is_solicitation(&solicitation(CLIENT)));
        let server = Ipv4Addr::new(1, 2, 3, 4);
        let mapped = SocketAddrV4::new(server, 5);
        let advertisement = advertisement(server, CLIENT, None);
        assert!(!is_solicitation(
            &[&origin(mapped)[..], &advertisement].concat()
        ));
        assert!(!is_solicitation(&payload[..52]));
    }

    #[test]
    fn v7_an_origin_is_obfuscated() {
        let mapped = SocketAddrV4::new(Ipv4Addr::new(9, 0, 0, 1), 4096);
        assert_eq!(origin(mapped)[..], octets("0000effff6fffffe"));
    }
}
