//! IPv4 to IPv6: decapsulation of a packet from a trusted peer.

use core::hint::cold_path;

use teredo_common::{
    checksum::is_encapsulation,
    traffic::Towards,
    verdict::Verdict,
    wire::{
        ECHO_REPLY, ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV6, ICMPV6, IPV6_HEADER,
        NO_NEXT_HEADER, UDP_HEADER,
    },
};

use crate::{
    environment::Environment,
    frame::Frame,
    headers::{
        Ethernet, Ipv6, Ipv6Start, OUTER, Outer, Transport, covering_checksum, covers_payload,
        is_plain,
    },
    moment::Moment,
    native,
    outcome::{Outcome, Sent},
    peer, route, settings, thorough,
};

/// Octets up to the end of the inner IPv6 header.
const HEADERS: usize = OUTER + IPV6_HEADER;
/// Octets of an echo reply to the relay's question: its header, and the cookie.
const ANSWER: usize = 16;
/// Octets of a decapsulated frame that are written: up to the eighth of the IPv6 header.
const WRITTEN: usize = ETHERNET_HEADER + 8;

/// Octets up to the end of a UDP header in the inner packet.
const TRANSPORT: usize = HEADERS + UDP_HEADER;

/// A packet to the relay that has nothing unusual, as far as its octets show.
struct Packet {
    frame: Frame,
    outer: Outer,
    ipv6: Ipv6,
    /// Octets behind the IPv6 header.
    payload: usize,
    /// Octets behind the IPv4 packet, which is as long as the IPv6 packet says.
    padding: usize,
    /// Whether the outer checksum is known to be right.
    is_intact: bool,
}

/// Decapsulates the frame, or leaves it as it is. Conditions in the order of decision table D1,
/// except that the tests for the relay's endpoint come first.
#[inline(always)]
pub fn decapsulate<E: Environment>(environment: &E, frame: Frame) -> Outcome {
    let usual = match E::IS_THOROUGH {
        true => None,
        false => usual(environment, frame),
    };
    let packet = match usual {
        Some(packet) => packet,
        None => {
            examine(environment, frame)?;
            Packet::examined(environment).ok_or(Verdict::DecapLength)?
        }
    };
    let Packet { outer, ipv6, .. } = packet;
    let entry = peer::find(environment, ipv6.teredo_source(), Some(Towards::Native))
        .ok_or(Verdict::DecapUnknownPeer)?;
    let moment = Moment::of(environment);
    if !entry.is_fresh(environment, moment) {
        return Err(Verdict::DecapStalePeer);
    }
    if !entry.is_at(outer.source(), outer.source_port()) {
        return Err(Verdict::DecapMapping);
    }

    if !native::is_relayed(environment, ipv6.destination()) {
        return Err(Verdict::DecapDestination);
    }
    let hop_limit = ipv6.hop_limit();
    if hop_limit <= 1 {
        return Err(Verdict::DecapHopLimit);
    }
    if !packet.is_intact && !is_intact(environment, &packet) {
        return Err(Verdict::DecapChecksum);
    }
    let hop = route::to_native(environment, ipv6, moment).ok_or(Verdict::DecapNextHop)?;
    if packet.payload + IPV6_HEADER > hop.mtu {
        return Err(hop.too_big(Verdict::DecapTooBig));
    }

    if !thorough::move_start(environment, ENCAPSULATION as i32) {
        return Err(Verdict::DecapLength);
    }
    if packet.padding != 0 && !environment.cut_end(packet.padding) {
        return Err(Verdict::DecapAborted);
    }
    let written = Frame::of(environment)
        .first::<WRITTEN>()
        .ok_or(Verdict::DecapAborted)?;
    let ethernet = Ethernet::new(written.part::<0, ETHERNET_HEADER>());
    hop.write(ethernet, ETHERTYPE_IPV6);
    Ipv6Start::new(written.part::<ETHERNET_HEADER, 8>()).set_hop_limit(hop_limit - 1);
    entry.received(environment, moment.now, packet.payload + IPV6_HEADER);
    Ok(Sent {
        verdict: Verdict::DecapForwarded,
        interface: hop.interface,
    })
}

/// Returns the packet of a frame as almost all are: without padding, TCP or UDP, with an outer checksum that is right.
/// [`examine`] finds the same one, in twice the time, and the reasons against all others.
#[inline(always)]
fn usual(environment: &impl Environment, frame: Frame) -> Option<Packet> {
    let octets = frame.first::<TRANSPORT>()?;
    let outer = Outer::new(octets.part::<0, OUTER>());
    let ipv6 = Ipv6::new(octets.part::<OUTER, IPV6_HEADER>());
    let length = frame.length();
    if length > u16::MAX.into() {
        return None;
    }
    let payload = (length - HEADERS) as u16;
    let datagram = payload + (UDP_HEADER + IPV6_HEADER) as u16;
    let is_usual = outer.is_plain_udp()
        && outer.destination() == settings::relay_address(environment)
        && outer.destination_port() == settings::relay_port(environment)
        && outer.source_port() != 0
        && outer.source() != settings::relay_address(environment)
        && outer.has_lengths(datagram)
        && outer.is_ipv4_valid()
        && ipv6.version() == 6
        && ipv6.has_payload(payload)
        && ipv6.source_prefix() == settings::prefix(environment);
    let checksum = outer.checksum();
    let [a, b, c, d, .., next_header, hop_limit] = ipv6.start();
    let [e, f] = payload.to_be_bytes();
    let is_intact = is_usual
        && covering_checksum(frame.skip::<HEADERS>(), next_header, payload).is_some()
        && checksum != 0
        && is_encapsulation(
            outer.sender(),
            settings::relay(environment),
            &[a, b, c, d, e, f, next_header, hop_limit],
            checksum.to_ne_bytes(),
        );
    is_intact.then_some(Packet {
        frame,
        outer,
        ipv6,
        payload: payload.into(),
        padding: 0,
        is_intact,
    })
}

impl Packet {
    /// Reads a frame that was examined once more, so that the verifier forgets the results of the examination, and follows the
    /// code after it once.
    #[inline(always)]
    fn examined(environment: &impl Environment) -> Option<Self> {
        let frame = Frame::of(environment);
        let octets = frame.first::<HEADERS>()?;
        let ipv6 = Ipv6::new(octets.part::<OUTER, IPV6_HEADER>());
        let payload = ipv6.payload_length();
        Some(Self {
            frame,
            outer: Outer::new(octets.part::<0, OUTER>()),
            ipv6,
            payload,
            padding: frame.length().wrapping_sub(HEADERS + payload),
            is_intact: false,
        })
    }
}

/// Checks a frame that is not usual. An error is the reason why it is not translated.
#[inline(always)]
fn examine<E: Environment>(environment: &E, frame: Frame) -> Result<(), Verdict> {
    cold_path();
    let outer = Outer::of(frame).ok_or(Verdict::DecapNotOurs)?;
    if !outer.is_udp() || outer.destination() != settings::relay_address(environment) {
        return Err(Verdict::DecapNotOurs);
    }
    if outer.has_options() {
        return Err(Verdict::DecapIpv4Options);
    }
    if outer.is_fragment() {
        return Err(Verdict::DecapFragment);
    }
    if outer.destination_port() != settings::relay_port(environment) || outer.source_port() == 0 {
        return Err(Verdict::DecapNotOurs);
    }
    if outer.time_to_live() == 0 {
        return Err(Verdict::DecapTimeToLive);
    }
    if !outer.is_ipv4_valid() {
        return Err(Verdict::DecapHeaderChecksum);
    }
    let (datagram, _) = outer.lengths(frame).ok_or(Verdict::DecapLength)?;
    if datagram < UDP_HEADER + IPV6_HEADER {
        return Err(Verdict::DecapLength);
    }
    if outer.has_congestion_notification() {
        return Err(Verdict::DecapCongestion);
    }
    if outer.source() == settings::relay_address(environment) {
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
    let inner = frame.skip::<HEADERS>();
    if !is_plain(inner, next_header)
        && (!E::IS_THOROUGH || Transport::behind(inner, next_header, payload).is_none())
    {
        return Err(Verdict::DecapExtensionHeader);
    }
    if ipv6.source_prefix() != settings::prefix(environment) {
        return Err(Verdict::DecapSource);
    }
    Ok(())
}

/// Whether there is no outer checksum, or it is right.
#[inline(always)]
fn is_intact<E: Environment>(environment: &E, packet: &Packet) -> bool {
    let Packet {
        frame, outer, ipv6, ..
    } = packet;
    let checksum = outer.checksum();
    let datagram = packet.payload + IPV6_HEADER + UDP_HEADER;
    checksum == 0
        || is_encapsulation(
            outer.sender(),
            settings::relay(environment),
            &ipv6.start(),
            checksum.to_ne_bytes(),
        ) && covers_payload(frame.skip::<HEADERS>(), ipv6.next_header(), packet.payload)
        || E::IS_THOROUGH && outer.is_valid(environment, *frame, datagram)
}

/// Whether an ICMPv6 message is an echo reply.
#[inline(always)]
fn is_reply(message: Frame) -> bool {
    let message = message.first::<1>();
    message.is_some_and(|message| message.read::<u8, 0>() == ECHO_REPLY)
}
