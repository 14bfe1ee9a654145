//! ICMPv6 errors (RFC 4443).

use teredo_common::{
    checksum,
    wire::{ICMPV6, IPV6_HEADER, MTU},
};

use super::ipv6::{self, ChainLink};

/// Type of Destination Unreachable (RFC 4443 section 3.1).
pub const DESTINATION_UNREACHABLE: u8 = 1;
/// Code of Destination Unreachable: address unreachable.
pub const ADDRESS_UNREACHABLE: u8 = 3;

const HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;
/// Types below this one are errors.
const FIRST_INFORMATIONAL: u8 = 128;
const REDIRECT: u8 = 137;

/// Whether an error may be sent about `packet` (RFC 4443 section 2.4 e): it is not an ICMPv6 error
/// or redirect itself, not sent to a multicast address, and comes from one node. A packet whose
/// transport is out of sight might be an error, and gets none.
pub fn may_answer(packet: &[u8]) -> bool {
    let Ok(header) = ipv6::Header::parse(packet) else {
        return false;
    };
    let (source, destination) = (header.source(), header.destination());
    if destination[0] == 0xff || source[0] == 0xff || source == [0; 16] {
        return false;
    }
    match ipv6::chain(packet).last() {
        Some(ChainLink::Transport(ICMPV6, [kind, ..])) => {
            *kind >= FIRST_INFORMATIONAL && *kind != REDIRECT
        }
        Some(ChainLink::Transport(ICMPV6, [])) => false,
        Some(ChainLink::Transport(..)) => true,
        _ => false,
    }
}

/// Destination Unreachable, address unreachable, from `source` to the sender of `packet`, with as
/// much of it as fits an error of 1280 octets. `None` if [`may_answer`] forbids it.
pub fn address_unreachable(source: &[u8; 16], packet: &[u8]) -> Option<Vec<u8>> {
    if !may_answer(packet) {
        return None;
    }
    let destination = ipv6::Header::parse(packet).ok()?.source();
    let quoted = &packet[..packet.len().min(usize::from(MTU) - IPV6_HEADER - HEADER)];
    let length = HEADER + quoted.len();
    let mut error = Vec::with_capacity(IPV6_HEADER + length);
    error.extend(ipv6::header(
        length as u16,
        ICMPV6,
        HOP_LIMIT,
        source,
        &destination,
    ));
    error.extend([
        DESTINATION_UNREACHABLE,
        ADDRESS_UNREACHABLE,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    error.extend(quoted);
    let checksum = checksum::ipv6_transport(source, &destination, ICMPV6, &error[IPV6_HEADER..]);
    error[IPV6_HEADER + 2..IPV6_HEADER + 4].copy_from_slice(&checksum);
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use teredo_common::wire::{DESTINATION_OPTIONS, FRAGMENT, UDP};

    const RELAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const HOST: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    const CLIENT: [u8; 16] = [
        0x20, 1, 0, 0, 1, 2, 3, 4, 0, 0, 0xef, 0xff, 0xf6, 0xff, 0xff, 0xfe,
    ];

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let fixed = ipv6::header(payload.len() as u16, next_header, 64, &HOST, &CLIENT);
        [&fixed[..], payload].concat()
    }

    #[test]
    fn the_error_quotes_the_packet_and_has_a_checksum() {
        let packet = packet(UDP, &[0xab; 30]);
        let error = address_unreachable(&RELAY, &packet).unwrap();
        let header = ipv6::Header::parse(&error).unwrap();
        assert_eq!(header.packet_length(), error.len());
        assert_eq!((header.source(), header.destination()), (RELAY, HOST));
        assert_eq!(header.next_header(), ICMPV6);
        assert_eq!(error[40..42], [1, 3]);
        assert_eq!(error[44..48], [0; 4]);
        assert_eq!(error[48..], packet);
        let verified = checksum::ipv6_transport(&RELAY, &HOST, ICMPV6, &error[40..]);
        assert_eq!(verified, [0, 0]);
    }

    #[test]
    fn the_error_never_exceeds_the_minimum_mtu() {
        for length in [1191, 1192, 1193, 1240, 1460] {
            let packet = packet(UDP, &vec![1; length]);
            let error = address_unreachable(&RELAY, &packet).unwrap();
            assert_eq!(error.len(), (packet.len() + 48).min(1280));
            assert!(packet.starts_with(&error[48..]));
        }
    }

    #[test]
    fn no_error_about_errors() {
        assert!(may_answer(&packet(ICMPV6, &[128, 0, 0, 0])));
        for kind in [1, 2, 3, 4, 100, 127, REDIRECT] {
            assert!(!may_answer(&packet(ICMPV6, &[kind, 0, 0, 0])), "{kind}");
        }
        let behind_options = [ICMPV6, 0, 1, 4, 0, 0, 0, 0, 1, 3, 0, 0];
        assert!(!may_answer(&packet(DESTINATION_OPTIONS, &behind_options)));
        let later_fragment = [ICMPV6, 0, 1, 0, 0, 0, 0, 0, 128, 0, 0, 0];
        assert!(!may_answer(&packet(FRAGMENT, &later_fragment)));
        assert!(!may_answer(&packet(ICMPV6, &[])));
    }

    #[test]
    fn no_error_to_or_about_more_than_one_node() {
        for (source, destination) in [([0; 16], CLIENT), ([0xff; 16], CLIENT), (HOST, [0xff; 16])] {
            let packet = ipv6::header(0, UDP, 64, &source, &destination);
            assert_eq!(address_unreachable(&RELAY, &packet), None);
        }
    }
}
