//! IPv6 to IPv4: a packet for a trusted peer is put into a UDP datagram.

use aya_ebpf::programs::XdpContext;
use teredo_common::{
    checksum::encapsulation,
    maps::Settings,
    verdict::Verdict,
    wire::{
        DESTINATION_OPTIONS, ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV4, HOP_BY_HOP,
        IPV6_HEADER, NO_NEXT_HEADER, ROUTING, UDP_HEADER,
    },
};

use crate::{
    maps, native, outer,
    packet::{self, Frame},
    peer, route, settings, transport,
};

/// Octets up to the end of the IPv6 header.
const HEADERS: usize = ETHERNET_HEADER + IPV6_HEADER;
/// Octets up to the end of the first eight of the IPv6 header, once encapsulated.
const WRITTEN: usize = ETHERNET_HEADER + ENCAPSULATION + 8;

/// Turns the frame into an encapsulated one and returns the interface to send it through, or leaves
/// it as it is and says why. Conditions in the order of the decision table, except that the test
/// for being a Teredo client's comes first.
#[inline(always)]
pub fn encapsulate(context: &XdpContext, frame: Frame) -> Result<u32, Verdict> {
    let head = frame.first::<HEADERS>().ok_or(Verdict::EncapLength)?;
    if head.read::<u32, 38>() != settings::prefix() {
        return Err(Verdict::EncapNotOurs);
    }
    let payload = head.number::<18>();
    let padding = frame.length().wrapping_sub(HEADERS + payload);
    if head.read::<u8, 14>() >> 4 != 6 || (padding as isize) < 0 {
        return Err(Verdict::EncapLength);
    }
    if !native::is_relayed(head.words::<22>()) {
        return Err(Verdict::EncapSource);
    }
    let next_header = head.read::<u8, 20>();
    if payload == 0 || next_header == NO_NEXT_HEADER {
        return Err(Verdict::EncapBubble);
    }
    if matches!(next_header, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
        return Err(Verdict::EncapExtensionHeader);
    }

    let slot = maps::peer(head.words::<38>()).ok_or(Verdict::EncapUnknownPeer)?;
    let now = maps::now();
    let peer = peer::usable(slot, now).ok_or(Verdict::EncapStalePeer)?;
    let hop_limit = head.read::<u8, 21>();
    if hop_limit <= 1 {
        return Err(Verdict::EncapHopLimit);
    }
    let length = (payload + IPV6_HEADER) as u32;
    if length > settings::mtu() {
        return Err(Verdict::EncapTooBig);
    }
    let relay = settings::relay();
    let mapped = peer.mapped();
    let [a, b, c, d] = head.read::<u32, 14>().to_ne_bytes();
    let [e, f, g, _] = head.read::<u32, 18>().to_ne_bytes();
    let first = [a, b, c, d, e, f, g, hop_limit - 1];
    let checksum = if settings::has(Settings::ALWAYS_ZERO_CHECKSUM) {
        [0, 0]
    } else if transport::covers_payload(frame.skip::<HEADERS>(), next_header, payload) {
        encapsulation(relay, mapped, &first)
    } else if settings::has(Settings::ALLOW_ZERO_CHECKSUM) {
        [0, 0]
    } else {
        return Err(Verdict::EncapChecksum);
    };
    // SAFETY: a field of a value of the map.
    let next_hop = unsafe { &raw mut (*slot).next_hop };
    let hop = route::to_ipv4(context, mapped, next_hop, now).ok_or(Verdict::EncapNextHop)?;
    if length + ENCAPSULATION as u32 > hop.mtu {
        return Err(Verdict::EncapTooBig);
    }

    if !packet::move_start(context, -(ENCAPSULATION as i32)) {
        return Err(Verdict::EncapHeadroom);
    }
    if padding != 0 && !packet::cut_end(context, padding) {
        return Err(Verdict::EncapAborted);
    }
    let head = Frame::of(context)
        .first::<WRITTEN>()
        .ok_or(Verdict::EncapAborted)?;
    hop.write_ethernet(head, ETHERTYPE_IPV4);
    let datagram = length as u16 + UDP_HEADER as u16;
    outer::write(head, relay, mapped, datagram, checksum);
    head.write::<u8, 49>(hop_limit - 1);
    peer::sent(slot, now);
    Ok(hop.interface)
}
