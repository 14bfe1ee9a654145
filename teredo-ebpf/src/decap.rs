//! IPv4 to IPv6: a packet of a trusted peer leaves its UDP datagram.

use aya_ebpf::programs::XdpContext;
use teredo_common::{
    address::Endpoint,
    checksum::encapsulation,
    maps::Peer,
    verdict::Verdict,
    wire::{
        DESTINATION_OPTIONS, ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV6, FRAGMENT, HOP_BY_HOP,
        IPV6_HEADER, NO_NEXT_HEADER, ROUTING, UDP, UDP_HEADER,
    },
};

use crate::{
    maps, native,
    outer::{self, FRAGMENTED, OUTER},
    packet::{self, Frame},
    peer, route, settings, transport,
};

/// Octets up to the end of the inner IPv6 header.
const HEADERS: usize = OUTER + IPV6_HEADER;

/// Turns the frame into a native one and returns the interface to send it through, or leaves it as
/// it is and says why. Conditions in the order of the decision table, except that the tests for
/// being addressed to the relay come first.
#[inline(always)]
pub fn decapsulate(context: &XdpContext, frame: Frame) -> Result<u32, Verdict> {
    let outer = frame.first::<OUTER>().ok_or(Verdict::DecapNotOurs)?;
    let relay = settings::relay();
    if outer.read::<u8, 23>() != UDP || outer.read::<u32, 30>() != settings::relay_address() {
        return Err(Verdict::DecapNotOurs);
    }
    if outer.read::<u8, 14>() != 0x45 {
        return Err(Verdict::DecapIpv4Options);
    }
    if outer.read::<u16, 20>() & FRAGMENTED != 0 {
        return Err(Verdict::DecapFragment);
    }
    let from = outer.read::<u32, 26>();
    let port = outer.read::<u16, 34>();
    if outer.read::<u16, 36>() != settings::relay_port() || port == 0 {
        return Err(Verdict::DecapNotOurs);
    }
    if outer.read::<u8, 22>() == 0 {
        return Err(Verdict::DecapTimeToLive);
    }
    if !outer::is_header_valid(outer) {
        return Err(Verdict::DecapHeaderChecksum);
    }
    let (datagram, padding) = outer::lengths(frame, outer).ok_or(Verdict::DecapLength)?;
    if datagram < UDP_HEADER + IPV6_HEADER {
        return Err(Verdict::DecapLength);
    }
    if outer.read::<u8, 15>() & 3 != 0 {
        return Err(Verdict::DecapCongestion);
    }
    if from == settings::relay_address() {
        return Err(Verdict::DecapOwnSource);
    }

    let head = frame.first::<HEADERS>().ok_or(Verdict::DecapLength)?;
    if head.read::<u8, 42>() >> 4 != 6 {
        return Err(Verdict::DecapNotIpv6);
    }
    let payload = head.number::<46>();
    if payload + UDP_HEADER + IPV6_HEADER != datagram {
        return Err(Verdict::DecapTrailers);
    }
    let next_header = head.read::<u8, 48>();
    if payload == 0 || next_header == NO_NEXT_HEADER {
        return Err(Verdict::DecapBubble);
    }
    if is_extended(frame, next_header) {
        return Err(Verdict::DecapExtensionHeader);
    }
    let source = head.words::<50>();
    if source[0] != settings::prefix() {
        return Err(Verdict::DecapSource);
    }

    let slot = maps::peer(source).ok_or(Verdict::DecapUnknownPeer)?;
    let now = maps::now();
    let peer = peer::usable(slot, now).ok_or(Verdict::DecapStalePeer)?;
    let embedded = !source[3] == from && !head.read::<u16, 60>() == port;
    if peer.address != from || peer.port != port || !(embedded || peer.flags & Peer::SYMMETRIC != 0)
    {
        return Err(Verdict::DecapMapping);
    }

    let destination = head.words::<66>();
    if !native::is_relayed(destination) {
        return Err(Verdict::DecapDestination);
    }
    let hop_limit = head.read::<u8, 49>();
    if hop_limit <= 1 {
        return Err(Verdict::DecapHopLimit);
    }
    let checksum = outer.read::<u16, 40>();
    if checksum != 0 {
        let [a, b, c, d] = head.read::<u32, 42>().to_ne_bytes();
        let [e, f, g, h] = head.read::<u32, 46>().to_ne_bytes();
        let client = Endpoint {
            address: from.to_ne_bytes(),
            port: port.to_ne_bytes(),
        };
        let proof = encapsulation(client, relay, &[a, b, c, d, e, f, g, h]);
        if u16::from_ne_bytes(proof) != checksum
            || !transport::covers_payload(frame.skip::<HEADERS>(), next_header, payload)
        {
            return Err(Verdict::DecapChecksum);
        }
    }
    let hop = route::to_ipv6(context, source, destination, now).ok_or(Verdict::DecapNextHop)?;
    if (payload + IPV6_HEADER) as u32 > hop.mtu {
        return Err(Verdict::DecapTooBig);
    }

    if !packet::move_start(context, ENCAPSULATION as i32) {
        return Err(Verdict::DecapLength);
    }
    if padding != 0 && !packet::cut_end(context, padding) {
        return Err(Verdict::DecapAborted);
    }
    let head = Frame::of(context)
        .first::<{ ETHERNET_HEADER + IPV6_HEADER }>()
        .ok_or(Verdict::DecapAborted)?;
    hop.write_ethernet(head, ETHERTYPE_IPV6);
    head.write::<u8, { ETHERNET_HEADER + 7 }>(hop_limit - 1);
    peer::received(slot, peer, now);
    Ok(hop.interface)
}

/// Whether there may be a routing header that userspace has to see: behind options, or in a
/// fragment, too.
#[inline(always)]
fn is_extended(frame: Frame, next_header: u8) -> bool {
    let behind = match frame.skip::<HEADERS>().first::<1>() {
        Some(fragment) if next_header == FRAGMENT => fragment.read::<u8, 0>(),
        _ => next_header,
    };
    let is_nested = behind == FRAGMENT && next_header == FRAGMENT;
    is_nested || matches!(behind, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS)
}
