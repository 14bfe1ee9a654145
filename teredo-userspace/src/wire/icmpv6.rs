//! ICMPv6 errors and echo (RFC 4443).

use teredo_common::{
    checksum,
    wire::{ECHO_REPLY, ECHO_REQUEST, ICMPV6, IPV6_HEADER, MTU},
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

/// Appends the echo reply from `source` to an echo request: the same identifier, sequence number
/// and data (RFC 4443 section 4.2). False, and nothing appended, if `request` is not a valid one
/// that is as long as its header says.
pub fn echo_reply(source: &[u8; 16], request: &[u8], output: &mut Vec<u8>) -> bool {
    let Ok(header) = ipv6::Header::parse(request) else {
        return false;
    };
    let Some(message @ [ECHO_REQUEST, 0, _, _, rest @ ..]) = request.get(IPV6_HEADER..) else {
        return false;
    };
    let destination = header.source();
    let checksum = checksum::ipv6_transport(&destination, &header.destination(), ICMPV6, message);
    if header.next_header() != ICMPV6 || message.len() < HEADER || checksum != [0, 0] {
        return false;
    }
    let length = header.payload_length();
    output.extend_from_slice(&ipv6::header(
        length,
        ICMPV6,
        HOP_LIMIT,
        source,
        &destination,
    ));
    let start = output.len();
    output.extend_from_slice(&[ECHO_REPLY, 0, 0, 0]);
    output.extend_from_slice(rest);
    let checksum = checksum::ipv6_transport(source, &destination, ICMPV6, &output[start..]);
    output[start + 2..start + 4].copy_from_slice(&checksum);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::octets;
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

    const REQUEST: &str = "6000000000183a40 20010000010203040000effff6fffffe \
        2000000000000000000000000000000b 8000862312340001 00112233445566778899aabbccddeeff";

    #[test]
    fn v20_the_reply_to_an_echo_request() {
        let request = octets(REQUEST);
        let mut output = vec![1, 2, 3];
        let source = *request[24..].first_chunk().unwrap();
        assert!(echo_reply(&source, &request, &mut output));
        let reply = octets(
            "6000000000183a40 2000000000000000000000000000000b 20010000010203040000effff6fffffe \
             8100852312340001 00112233445566778899aabbccddeeff",
        );
        assert_eq!(output[3..], reply);
    }

    #[test]
    fn no_reply_to_anything_else() {
        let request = octets(REQUEST);
        for (at, value) in [(6, UDP), (40, 129), (43, 0), (60, 0)] {
            let mut changed = request.clone();
            changed[at] = value;
            let mut output = vec![];
            assert!(!echo_reply(&RELAY, &changed, &mut output), "{at}");
            assert!(output.is_empty());
        }
        // Another code, with a right checksum.
        let mut code = request.clone();
        code[41] = 1;
        code[43] -= 1;
        let (source, destination) = (&code[8..24], &code[24..40]);
        let verified = checksum::ipv6_transport(
            source.try_into().unwrap(),
            destination.try_into().unwrap(),
            ICMPV6,
            &code[40..],
        );
        assert_eq!(verified, [0, 0]);
        assert!(!echo_reply(&RELAY, &code, &mut Vec::new()));
    }
}
