//! IPv6 packets, their extension headers, and the ICMPv6 messages about them.

use teredo_common::{scope::is_global_unicast, wire::MTU};
use teredo_proto::wire::{
    bubble, ecn,
    icmpv6::{self, Echo},
    ipv6::{self, ChainLink, Header},
};

use super::offset;

const SOURCE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Parses the octets as a packet with others after it.
pub fn run(octets: &[u8]) {
    let Ok(header) = Header::parse(octets) else {
        assert!(!icmpv6::may_answer(octets));
        assert_eq!(icmpv6::echo_answer(octets), None);
        return;
    };
    let packet = &octets[..header.packet_length()];
    let (source, destination) = (header.source(), header.destination());
    let built = ipv6::header(
        header.payload_length(),
        header.next_header(),
        header.hop_limit(),
        &source,
        &destination,
    );
    // All but traffic class and flow label.
    assert_eq!(packet[4..built.len()], built[4..]);
    chain(packet);
    marks(header, packet);
    errors(packet, &source);
    echoes(packet);
    if header.is_bubble() {
        let mut bubble = bubble::build(&source, &destination);
        bubble[..8].copy_from_slice(&packet[..8]);
        assert_eq!(packet, bubble);
    }
}

/// The chain of headers ends, with the transport at its end or without.
fn chain(packet: &[u8]) {
    let links: Vec<_> = ipv6::chain(packet).collect();
    assert!(links.len() <= packet.len() / 8);
    let (mut is_routed, mut is_hidden) = (false, false);
    for (index, link) in links.iter().enumerate() {
        match *link {
            ChainLink::Transport(_, rest) => {
                assert_eq!(index + 1, links.len());
                assert_eq!(offset(packet, rest) + rest.len(), packet.len());
                is_hidden = false;
            }
            ChainLink::Routing(kind) => is_routed |= kind != 2,
            ChainLink::FirstFragment => is_hidden = true,
            ChainLink::Other => {}
        }
    }
    let is_forbidden = is_routed || is_hidden;
    assert_eq!(ipv6::has_forbidden_routing(packet), is_forbidden, "L-11");
}

/// The marks that the tunnel sets change nothing else.
fn marks(header: Header<'_>, packet: &[u8]) {
    let mut marked = packet.to_vec();
    ipv6::set_congestion_experienced(&mut marked);
    let is_marked = Header::parse(&marked).map(Header::congestion);
    assert_eq!(is_marked, Ok(ecn::CONGESTION_EXPERIENCED));
    marked[1] ^= (ecn::CONGESTION_EXPERIENCED ^ header.congestion()) << 4;
    if header.hop_limit() > 0 {
        ipv6::decrement_hop_limit(&mut marked);
        marked[7] += 1;
    }
    assert_eq!(marked, packet);
}

/// An error is valid, short enough, for a unicast address, and never about an error.
fn errors(packet: &[u8], source: &[u8; 16]) {
    let error = icmpv6::address_unreachable(&SOURCE, packet);
    assert_eq!(error.is_some(), icmpv6::may_answer(packet));
    let Some(error) = error else { return };
    assert!(error.len() <= MTU.into());
    assert!(!icmpv6::may_answer(&error), "an error about an error");
    let header = Header::parse(&error).expect("a packet");
    assert_eq!((header.source(), header.destination()), (SOURCE, *source));
    assert!(is_global_unicast(source) || source[0] != 0xff);
    assert!(error.len() <= packet.len() + 48);
}

/// A reply is to the sender, as long as the request, and repeats it.
fn echoes(packet: &[u8]) {
    let mut reply = b"before".to_vec();
    if !icmpv6::echo_reply(&SOURCE, packet, &mut reply) {
        assert_eq!(reply, b"before");
    } else {
        let reply = &reply[6..];
        assert_eq!(reply.len(), packet.len());
        let echo = icmpv6::echo_answer(reply).expect("a valid reply");
        assert_eq!(echo.data, &packet[48..]);
    }
    if let Some(echo) = icmpv6::echo_answer(packet) {
        let Echo {
            identifier,
            sequence,
            data,
        } = echo;
        let request = icmpv6::echo_request(&SOURCE, &SOURCE, echo);
        let mut reply = Vec::new();
        assert!(icmpv6::echo_reply(&SOURCE, &request, &mut reply));
        let again = icmpv6::echo_answer(&reply).expect("a valid reply");
        assert_eq!(
            (again.identifier, again.sequence, again.data),
            (identifier, sequence, data)
        );
    }
}
