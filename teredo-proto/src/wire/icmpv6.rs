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
/// Code of Destination Unreachable: the source address is not one to send from here.
pub const SOURCE_POLICY: u8 = 5;

const HEADER: usize = 8;
const HOP_LIMIT: u8 = 64;
/// The shortest packet that an error is sent about, in octets: the error is twice as long.
const SHORTEST: usize = IPV6_HEADER + HEADER;
/// Types below this one are errors.
const FIRST_INFORMATIONAL: u8 = 128;
const REDIRECT: u8 = 137;

/// Returns `true` if an error may be sent about `packet` (RFC 4443 section 2.4 e): it is not an ICMPv6
/// error or redirect itself, is not sent to a multicast address, and comes from one node. A packet
/// whose transport header cannot be reached might be an error, so none is sent about it; nor about one
/// of which an error would be more than twice as long (L-19).
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
            *kind >= FIRST_INFORMATIONAL && *kind != REDIRECT && packet.len() >= SHORTEST
        }
        Some(ChainLink::Transport(ICMPV6, [])) => false,
        Some(ChainLink::Transport(..)) => packet.len() >= SHORTEST,
        _ => false,
    }
}

/// Builds a Destination Unreachable message with the code address unreachable, from `source` to the
/// sender of `packet`, which quotes as much of it as fits an error of 1280 octets. Returns `None` if
/// [`may_answer`] forbids it.
pub fn address_unreachable(source: &[u8; 16], packet: &[u8]) -> Option<Vec<u8>> {
    unreachable(ADDRESS_UNREACHABLE, source, packet)
}

/// Builds a message like [`address_unreachable`], with this code.
pub fn unreachable(code: u8, source: &[u8; 16], packet: &[u8]) -> Option<Vec<u8>> {
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
    error.extend([DESTINATION_UNREACHABLE, code, 0, 0, 0, 0, 0, 0]);
    error.extend(quoted);
    let checksum = checksum::ipv6_transport(source, &destination, ICMPV6, &error[IPV6_HEADER..]);
    error[IPV6_HEADER + 2..IPV6_HEADER + 4].copy_from_slice(&checksum);
    Some(error)
}

/// Appends the echo reply from `source` to an echo request, with the same identifier, sequence number
/// and data (RFC 4443 section 4.2). Returns `false` and appends nothing if `request` is not a valid
/// echo request that is as long as its header says.
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

/// The contents of an echo request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Identifier: tells the requests of one host apart.
    pub identifier: u16,
    /// Sequence number: tells the requests with one identifier apart.
    pub sequence: u16,
    /// Data, which comes back unchanged.
    pub data: &'a [u8],
}

impl<'a> Echo<'a> {
    /// The body of a message of this type, whose checksum is not looked at.
    fn parse(kind: u8, message: &'a [u8]) -> Option<Self> {
        let (&[found, 0, _, _, a, b, c, d], data) = message.split_first_chunk::<HEADER>()? else {
            return None;
        };
        (found == kind).then_some(Self {
            identifier: u16::from_be_bytes([a, b]),
            sequence: u16::from_be_bytes([c, d]),
            data,
        })
    }
}

/// Builds an echo request (RFC 4443 section 4.1), whose data is short.
pub fn echo_request(source: &[u8; 16], destination: &[u8; 16], echo: Echo<'_>) -> Vec<u8> {
    let length = HEADER + echo.data.len();
    let header = ipv6::header(length as u16, ICMPV6, HOP_LIMIT, source, destination);
    let mut request = [&header[..], &[ECHO_REQUEST, 0, 0, 0]].concat();
    request.extend(echo.identifier.to_be_bytes());
    request.extend(echo.sequence.to_be_bytes());
    request.extend(echo.data);
    let message = &request[IPV6_HEADER..];
    let checksum = checksum::ipv6_transport(source, destination, ICMPV6, message);
    request[IPV6_HEADER + 2..IPV6_HEADER + 4].copy_from_slice(&checksum);
    request
}

/// Returns the echo in a reply, or in the request that a Destination Unreachable message quotes, if
/// its checksum is valid. A quoted request has to be whole, and from the error's destination to its
/// source: only the host that was asked may say itself that it is unreachable (C-57). `packet` is as
/// long as its header says.
pub fn echo_answer(packet: &[u8]) -> Option<Echo<'_>> {
    let header = ipv6::Header::parse(packet).ok()?;
    let (source, destination) = (header.source(), header.destination());
    let message = packet.get(IPV6_HEADER..)?;
    let is_valid = header.next_header() == ICMPV6
        && checksum::ipv6_transport(&source, &destination, ICMPV6, message) == [0, 0];
    if !is_valid {
        return None;
    }
    if let Some(reply) = Echo::parse(ECHO_REPLY, message) {
        return Some(reply);
    }
    let &[DESTINATION_UNREACHABLE, ..] = message else {
        return None;
    };
    let quoted = message.get(HEADER..)?;
    let asked = ipv6::Header::parse(quoted).ok()?;
    let is_own = asked.source() == destination && asked.destination() == source;
    let request = quoted.get(IPV6_HEADER..asked.packet_length())?;
    (is_own && asked.next_header() == ICMPV6)
        .then(|| Echo::parse(ECHO_REQUEST, request))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::octets;
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
        assert!(may_answer(&packet(ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0])));
        for kind in [1, 2, 3, 4, 100, 127, REDIRECT] {
            assert!(
                !may_answer(&packet(ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0])),
                "{kind}"
            );
        }
        let behind_options = [ICMPV6, 0, 1, 4, 0, 0, 0, 0, 1, 3, 0, 0];
        assert!(!may_answer(&packet(DESTINATION_OPTIONS, &behind_options)));
        let later_fragment = [ICMPV6, 0, 1, 0, 0, 0, 0, 0, 128, 0, 0, 0];
        assert!(!may_answer(&packet(FRAGMENT, &later_fragment)));
        assert!(!may_answer(&packet(ICMPV6, &[])));
    }

    #[test]
    fn l19_no_error_more_than_twice_as_long_as_its_packet() {
        for length in 0..200 {
            let packet = packet(UDP, &vec![0; length]);
            let error = address_unreachable(&RELAY, &packet);
            assert_eq!(error.is_some(), length >= 8, "{length}");
            assert!(error.is_none_or(|error| error.len() <= 2 * packet.len()));
        }
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

    fn connectivity_test() -> (Vec<u8>, Vec<u8>) {
        let request = octets(
            "6000000000183a40 20010000010203040000effff6fffffe 2000000000000000000000000000000b \
             8000862312340001 00112233445566778899aabbccddeeff",
        );
        let reply = octets(
            "6000000000183a40 2000000000000000000000000000000b 20010000010203040000effff6fffffe \
             8100852312340001 00112233445566778899aabbccddeeff",
        );
        (request, reply)
    }

    #[test]
    fn v20_connectivity_test() {
        let (request, reply) = connectivity_test();
        let header = ipv6::Header::parse(&request).unwrap();
        let nonce = octets("00112233445566778899aabbccddeeff");
        let echo = Echo {
            identifier: 0x1234,
            sequence: 1,
            data: &nonce,
        };
        let built = echo_request(&header.source(), &header.destination(), echo);
        assert_eq!(built, request);
        assert_eq!(echo_answer(&reply), Some(echo));
        assert_eq!(echo_answer(&request), None);
        for octet in 40..reply.len() {
            let mut changed = reply.clone();
            changed[octet] ^= 1;
            assert_eq!(echo_answer(&changed), None, "octet {octet}");
        }
        assert_eq!(echo_answer(&reply[..47]), None);
    }

    #[test]
    fn c57_an_error_counts_only_from_the_host_that_was_asked() {
        let (request, reply) = connectivity_test();
        let host = ipv6::Header::parse(&reply).unwrap().source();
        let error = unreachable(1, &host, &request).unwrap();
        assert_eq!(echo_answer(&error), echo_answer(&reply));
        let elsewhere = unreachable(1, &RELAY, &request).unwrap();
        assert_eq!(echo_answer(&elsewhere), None);
    }
}
