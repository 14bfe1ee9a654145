//! IPv4 to IPv6: decapsulation of a packet from a trusted peer.

use teredo_common::{
    address::Endpoint,
    checksum::is_encapsulation,
    verdict::Verdict,
    wire::{
        ECHO_REPLY, ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV6, ICMPV6, IPV6_HEADER,
        NO_NEXT_HEADER, UDP_HEADER,
    },
};

use crate::{
    environment::Environment,
    frame::Frame,
    headers::{Ethernet, Ipv6, Ipv6Start, OUTER, Outer, covers_payload, is_plain},
    native,
    outcome::{Outcome, Sent},
    peer, route, settings,
};

/// Octets up to the end of the inner IPv6 header.
const HEADERS: usize = OUTER + IPV6_HEADER;
/// Octets of an echo reply to the relay's question: its header, and the cookie.
const ANSWER: usize = 16;
/// Octets of a decapsulated frame that are written: up to the eighth of the IPv6 header.
const WRITTEN: usize = ETHERNET_HEADER + 8;

/// Decapsulates the frame, or leaves it as it is. Conditions in the order of decision table D1,
/// except that the tests for the relay's endpoint come first.
#[inline(always)]
pub fn decapsulate(environment: &impl Environment, frame: Frame) -> Outcome {
    let outer = Outer::of(frame).ok_or(Verdict::DecapNotOurs)?;
    let relay = settings::relay(environment);
    if !outer.is_udp() || outer.destination() != settings::relay_address(environment) {
        return Err(Verdict::DecapNotOurs);
    }
    if outer.has_options() {
        return Err(Verdict::DecapIpv4Options);
    }
    if outer.is_fragment() {
        return Err(Verdict::DecapFragment);
    }
    let from = outer.source();
    let port = outer.source_port();
    if outer.destination_port() != settings::relay_port(environment) || port == 0 {
        return Err(Verdict::DecapNotOurs);
    }
    if outer.time_to_live() == 0 {
        return Err(Verdict::DecapTimeToLive);
    }
    if !outer.is_ipv4_valid() {
        return Err(Verdict::DecapHeaderChecksum);
    }
    let (datagram, padding) = outer.lengths(frame).ok_or(Verdict::DecapLength)?;
    if datagram < UDP_HEADER + IPV6_HEADER {
        return Err(Verdict::DecapLength);
    }
    if outer.has_congestion_notification() {
        return Err(Verdict::DecapCongestion);
    }
    if from == settings::relay_address(environment) {
        return Err(Verdict::DecapOwnSource);
    }

    let ipv6 = Ipv6::of(frame.skip::<OUTER>()).ok_or(Verdict::DecapLength)?;
    if ipv6.version() != 6 {
        return Err(Verdict::DecapNotIpv6);
    }
    let payload = ipv6.payload_length();
    if payload + UDP_HEADER + IPV6_HEADER != datagram {
        return Err(Verdict::DecapTrailers);
    }
    let next_header = ipv6.next_header();
    if payload == 0 || next_header == NO_NEXT_HEADER {
        return Err(Verdict::DecapBubble);
    }
    if next_header == ICMPV6 && payload == ANSWER && is_reply(frame.skip::<HEADERS>()) {
        return Err(Verdict::DecapAnswer);
    }
    if !is_plain(frame.skip::<HEADERS>(), next_header) {
        return Err(Verdict::DecapExtensionHeader);
    }
    let source = ipv6.source_words();
    if source[0] != settings::prefix(environment) {
        return Err(Verdict::DecapSource);
    }

    let entry = peer::find(environment, source).ok_or(Verdict::DecapUnknownPeer)?;
    let now = environment.now();
    if !entry.is_fresh(environment, now) {
        return Err(Verdict::DecapStalePeer);
    }
    if !entry.is_at(from, port) {
        return Err(Verdict::DecapMapping);
    }

    let destination = ipv6.destination_words();
    if !native::is_relayed(environment, destination) {
        return Err(Verdict::DecapDestination);
    }
    let hop_limit = ipv6.hop_limit();
    if hop_limit <= 1 {
        return Err(Verdict::DecapHopLimit);
    }
    let checksum = outer.checksum();
    if checksum != 0 {
        let client = Endpoint {
            address: from.to_ne_bytes(),
            port: port.to_ne_bytes(),
        };
        if !is_encapsulation(client, relay, &ipv6.start(), checksum.to_ne_bytes())
            || !covers_payload(frame.skip::<HEADERS>(), next_header, payload)
        {
            return Err(Verdict::DecapChecksum);
        }
    }
    let hop =
        route::to_native(environment, source, destination, now).ok_or(Verdict::DecapNextHop)?;
    if (payload + IPV6_HEADER) as u32 > hop.mtu {
        return Err(Verdict::DecapTooBig);
    }

    if !environment.move_start(ENCAPSULATION as i32) {
        return Err(Verdict::DecapLength);
    }
    if padding != 0 && !environment.cut_end(padding) {
        return Err(Verdict::DecapAborted);
    }
    let written = Frame::of(environment)
        .first::<WRITTEN>()
        .ok_or(Verdict::DecapAborted)?;
    let ethernet = Ethernet::new(written.part::<0, ETHERNET_HEADER>());
    hop.write(ethernet, ETHERTYPE_IPV6);
    Ipv6Start::new(written.part::<ETHERNET_HEADER, 8>()).set_hop_limit(hop_limit - 1);
    entry.received(now);
    Ok(Sent {
        verdict: Verdict::DecapForwarded,
        interface: hop.interface,
    })
}

/// Whether an ICMPv6 message is an echo reply.
#[inline(always)]
fn is_reply(message: Frame) -> bool {
    let message = message.first::<1>();
    message.is_some_and(|message| message.read::<u8, 0>() == ECHO_REPLY)
}
