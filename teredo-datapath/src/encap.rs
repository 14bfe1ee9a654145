//! IPv6 to IPv4: encapsulation of a packet for a trusted peer.

use teredo_common::{
    checksum::encapsulation,
    maps::Settings,
    verdict::Verdict,
    wire::{
        ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV4, IPV6_HEADER, NO_NEXT_HEADER, UDP_HEADER,
    },
};

use crate::{
    environment::Environment,
    frame::Frame,
    headers::{Ipv6, Ipv6Start, OUTER, Outer, covers_payload, is_plain, is_unfinished},
    native,
    outcome::{Outcome, Sent},
    peer, route, settings,
};

/// Octets up to the end of the IPv6 header.
const HEADERS: usize = ETHERNET_HEADER + IPV6_HEADER;
/// Octets of an encapsulated frame that are written: up to the eighth of the IPv6 header.
const WRITTEN: usize = OUTER + 8;

/// Encapsulates the frame, or leaves it as it is. Conditions in the order of decision table D2,
/// except that the test for the Teredo prefix comes first.
#[inline(always)]
pub fn encapsulate(environment: &impl Environment, frame: Frame) -> Outcome {
    let ipv6 = Ipv6::of(frame.skip::<ETHERNET_HEADER>()).ok_or(Verdict::EncapLength)?;
    if ipv6.destination_prefix() != settings::prefix(environment) {
        return Err(Verdict::EncapNotOurs);
    }
    let payload = ipv6.payload_length();
    let padding = frame.length().wrapping_sub(HEADERS + payload);
    if ipv6.version() != 6 || (padding as isize) < 0 {
        return Err(Verdict::EncapLength);
    }
    if !native::is_relayed(environment, ipv6.source_words()) {
        return Err(Verdict::EncapSource);
    }
    let next_header = ipv6.next_header();
    if payload == 0 || next_header == NO_NEXT_HEADER {
        return Err(Verdict::EncapBubble);
    }
    if !is_plain(frame.skip::<HEADERS>(), next_header) {
        return Err(Verdict::EncapExtensionHeader);
    }

    let entry =
        peer::find(environment, ipv6.destination_words()).ok_or(Verdict::EncapUnknownPeer)?;
    let now = environment.now();
    if !entry.is_fresh(environment, now) {
        return Err(Verdict::EncapStalePeer);
    }
    let hop_limit = ipv6.hop_limit();
    if hop_limit <= 1 {
        return Err(Verdict::EncapHopLimit);
    }
    let length = (payload + IPV6_HEADER) as u32;
    if length > settings::mtu(environment) {
        return Err(Verdict::EncapTooBig);
    }
    if is_unfinished(ipv6, frame.skip::<HEADERS>(), next_header, payload) {
        return Err(Verdict::EncapChecksum);
    }
    let relay = settings::relay(environment);
    let mapped = entry.mapped();
    let [a, b, c, d, e, f, g, _] = ipv6.start();
    let start = [a, b, c, d, e, f, g, hop_limit - 1];
    let checksum = if settings::has(environment, Settings::ALWAYS_ZERO_CHECKSUM) {
        [0, 0]
    } else if covers_payload(frame.skip::<HEADERS>(), next_header, payload) {
        encapsulation(relay, mapped, &start)
    } else if settings::has(environment, Settings::ALLOW_ZERO_CHECKSUM) {
        [0, 0]
    } else {
        return Err(Verdict::EncapChecksum);
    };
    let hop = route::to_mapping(environment, mapped, now).ok_or(Verdict::EncapNextHop)?;
    if length + ENCAPSULATION as u32 > hop.mtu {
        return Err(Verdict::EncapTooBig);
    }

    if !environment.move_start(-(ENCAPSULATION as i32)) {
        return Err(Verdict::EncapHeadroom);
    }
    if padding != 0 && !environment.cut_end(padding) {
        return Err(Verdict::EncapAborted);
    }
    let written = Frame::of(environment)
        .first::<WRITTEN>()
        .ok_or(Verdict::EncapAborted)?;
    let outer = Outer::new(written.part::<0, OUTER>());
    let datagram = length as u16 + UDP_HEADER as u16;
    hop.write(outer.ethernet(), ETHERTYPE_IPV4);
    outer.write(
        relay,
        mapped,
        datagram,
        checksum,
        environment.identification(),
    );
    Ipv6Start::new(written.part::<OUTER, 8>()).set_hop_limit(hop_limit - 1);
    entry.sent(now);
    Ok(Sent {
        verdict: Verdict::EncapForwarded,
        interface: hop.interface,
    })
}
