//! IPv6 to IPv4: encapsulation of a packet for a trusted peer.

use core::hint::cold_path;

use teredo_common::{
    checksum::{Sum, encapsulation_between},
    maps::Settings,
    traffic::Towards,
    verdict::Verdict,
    wire::{
        ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV4, IPV6_HEADER, NO_NEXT_HEADER, ROUTING,
        UDP_HEADER,
    },
};

use crate::{
    environment::Environment,
    frame::Frame,
    headers::{
        Ipv6, Ipv6Start, OUTER, Outer, Transport, covering_checksum, covers_payload,
        is_of_pseudo_header, is_plain, is_unfinished, udp_sum,
    },
    moment::Moment,
    native,
    outcome::{Outcome, Sent},
    peer, route, settings, sum, thorough,
};

/// Octets up to the end of the IPv6 header.
const HEADERS: usize = ETHERNET_HEADER + IPV6_HEADER;
/// Octets of an encapsulated frame that are written: up to the eighth of the IPv6 header.
const WRITTEN: usize = OUTER + 8;

/// Octets up to the end of a UDP header in the packet.
const TRANSPORT: usize = HEADERS + UDP_HEADER;

/// A packet to a peer that has nothing unusual, as far as its octets show.
struct Packet {
    frame: Frame,
    ipv6: Ipv6,
    /// Octets behind the IPv6 header.
    payload: usize,
    /// Octets behind the packet.
    padding: usize,
    /// Whether a checksum is known to be there that covers the payload.
    is_covered: bool,
}

/// Encapsulates the frame, or leaves it as it is. Conditions in the order of decision table D2,
/// except that the test for the Teredo prefix comes first.
#[inline(always)]
pub fn encapsulate<E: Environment>(environment: &E, frame: Frame) -> Outcome {
    let ipv6 = Ipv6::of(frame.skip::<ETHERNET_HEADER>()).ok_or(Verdict::EncapLength)?;
    if ipv6.destination_prefix() != settings::prefix(environment) {
        return Err(Verdict::EncapNotOurs);
    }
    let usual = match E::IS_THOROUGH {
        true => None,
        false => usual(environment, frame, ipv6),
    };
    let packet = match usual {
        Some(packet) => packet,
        None => {
            examine(environment, frame, ipv6)?;
            Packet::examined(environment).ok_or(Verdict::EncapLength)?
        }
    };
    let Packet { frame, ipv6, .. } = packet;
    let entry = peer::find(environment, ipv6.teredo_destination(), Some(Towards::Peer))
        .ok_or(Verdict::EncapUnknownPeer)?;
    let moment = Moment::of(environment);
    if !entry.is_fresh(environment, moment) {
        return Err(Verdict::EncapStalePeer);
    }
    let hop_limit = ipv6.hop_limit();
    if hop_limit <= 1 {
        return Err(Verdict::EncapHopLimit);
    }
    let length = packet.payload + IPV6_HEADER;
    if length > settings::mtu(environment) {
        return Err(Verdict::EncapTooBig);
    }
    let (transport, next_header) = (frame.skip::<HEADERS>(), ipv6.next_header());
    let is_doubtful =
        !packet.is_covered && is_unfinished(ipv6, transport, next_header, packet.payload);
    let is_covered = packet.is_covered || covers_payload(transport, next_header, packet.payload);
    let is_zero = settings::has(environment, Settings::ALWAYS_ZERO_CHECKSUM)
        || (!is_covered && settings::has(environment, Settings::ALLOW_ZERO_CHECKSUM));
    // The sum over the packet, where the headers do not tell enough.
    let whole = if is_doubtful || !(is_zero || is_covered) {
        if !E::IS_THOROUGH {
            return Err(Verdict::EncapChecksum);
        }
        sum::of(environment, frame.skip::<ETHERNET_HEADER>(), length)
            .ok_or(Verdict::EncapChecksum)?
    } else {
        Sum::ZERO
    };
    if is_doubtful && !(is_covered && is_finished(ipv6, whole)) {
        return Err(Verdict::EncapChecksum);
    }
    let checksum = if is_zero {
        0
    } else if is_covered {
        let [a, b, c, d, .., next_header, _] = ipv6.start();
        let [e, f] = (packet.payload as u16).to_be_bytes();
        let start = [a, b, c, d, e, f, next_header, hop_limit - 1];
        let endpoints = Sum::ZERO
            .add_4(settings::relay_address(environment).to_ne_bytes())
            .add_2(settings::relay_port(environment).to_ne_bytes())
            .add_4(entry.address.to_ne_bytes())
            .add_2(entry.port.to_ne_bytes());
        u16::from_ne_bytes(encapsulation_between(endpoints, &start))
    } else {
        let sum = whole
            .subtract(u16::from_be_bytes([next_header, hop_limit]))
            .add_2([next_header, hop_limit - 1]);
        let datagram = (length + UDP_HEADER) as u16;
        let header = udp_sum(settings::relay(environment), entry.mapped(), datagram);
        u16::from_ne_bytes(header.add_sum(sum).udp_checksum())
    };
    let mapped = entry.mapped();
    let hop = route::to_mapping(environment, mapped, moment).ok_or(Verdict::EncapNextHop)?;
    if length + ENCAPSULATION > hop.mtu {
        return Err(hop.too_big(Verdict::EncapTooBig));
    }

    if !thorough::move_start(environment, -(ENCAPSULATION as i32)) {
        return Err(Verdict::EncapHeadroom);
    }
    if packet.padding != 0 && !environment.cut_end(packet.padding) {
        return Err(Verdict::EncapAborted);
    }
    let written = Frame::of(environment)
        .first::<WRITTEN>()
        .ok_or(Verdict::EncapAborted)?;
    let outer = Outer::new(written.part::<0, OUTER>());
    let datagram = length as u16 + UDP_HEADER as u16;
    hop.write(outer.ethernet(), ETHERTYPE_IPV4);
    outer.write(
        settings::relay(environment),
        mapped,
        datagram,
        checksum.to_ne_bytes(),
        environment.identification(),
    );
    Ipv6Start::new(written.part::<OUTER, 8>()).set_hop_limit(hop_limit - 1);
    entry.sent(environment, moment.now, length);
    Ok(Sent {
        verdict: Verdict::EncapForwarded,
        interface: hop.interface,
    })
}

/// Whether the checksum of a packet with this sum is finished. One in 65,536 is, and is that of the pseudo-header alone
/// nevertheless.
#[inline(always)]
fn is_finished(ipv6: Ipv6, whole: Sum) -> bool {
    let [a, b, c, d, _, _, next_header, hop_limit] = ipv6.start();
    // The sum has the pseudo-header but for the length, which the header's own stands for.
    whole
        .subtract(u16::from_be_bytes([a, b]))
        .subtract(u16::from_be_bytes([c, d]))
        .subtract(u16::from_be_bytes([next_header, hop_limit]))
        .add(next_header.into())
        .is_valid()
}

/// Returns the packet of a frame as almost all are: without padding, TCP or UDP, with a checksum.
/// [`examine`] finds the same one, in twice the time, and the reasons against all others.
#[inline(always)]
fn usual(environment: &impl Environment, frame: Frame, ipv6: Ipv6) -> Option<Packet> {
    // A bound for all that follows.
    frame.first::<TRANSPORT>()?;
    let length = frame.length();
    if length > u16::MAX.into() {
        return None;
    }
    let payload = (length - HEADERS) as u16;
    if ipv6.version() != 6 || !ipv6.has_payload(payload) {
        return None;
    }
    let next_header = ipv6.next_header();
    let checksum = covering_checksum(frame.skip::<HEADERS>(), next_header, payload)?;
    let is_covered = !is_of_pseudo_header(checksum, ipv6, next_header, payload)
        && native::is_relayed(environment, ipv6.source());
    is_covered.then_some(Packet {
        frame,
        ipv6,
        payload: payload.into(),
        padding: 0,
        is_covered,
    })
}

impl Packet {
    /// Reads a frame that was examined once more, so that the verifier forgets the results of the examination, and follows the
    /// code after it once.
    #[inline(always)]
    fn examined(environment: &impl Environment) -> Option<Self> {
        let frame = Frame::of(environment);
        let ipv6 = Ipv6::of(frame.skip::<ETHERNET_HEADER>())?;
        let payload = ipv6.payload_length();
        Some(Self {
            frame,
            ipv6,
            payload,
            padding: frame.length().wrapping_sub(HEADERS + payload),
            is_covered: false,
        })
    }
}

/// Checks a frame that is not usual. An error is the reason why it is not translated.
#[inline(always)]
fn examine<E: Environment>(environment: &E, frame: Frame, ipv6: Ipv6) -> Result<(), Verdict> {
    cold_path();
    let payload = ipv6.payload_length();
    let padding = frame.length().wrapping_sub(HEADERS + payload);
    if ipv6.version() != 6 || (padding as isize) < 0 {
        return Err(Verdict::EncapLength);
    }
    if !native::is_relayed(environment, ipv6.source()) {
        return Err(Verdict::EncapSource);
    }
    let next_header = ipv6.next_header();
    if payload == 0 || next_header == NO_NEXT_HEADER {
        return Err(Verdict::EncapBubble);
    }
    let start = frame.skip::<HEADERS>();
    if !is_plain(start, next_header) {
        // The destination of a routing header is in the checksum of the transport.
        if !E::IS_THOROUGH || next_header == ROUTING {
            return Err(Verdict::EncapExtensionHeader);
        }
        let transport =
            Transport::behind(start, next_header, payload).ok_or(Verdict::EncapExtensionHeader)?;
        if is_unfinished(ipv6, transport.start, transport.protocol, transport.length) {
            return Err(Verdict::EncapChecksum);
        }
    }
    Ok(())
}
