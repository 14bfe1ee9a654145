//! Router solicitations (RFC 4861 section 4.1) in the forms that Windows and Miredo send.

use aya_ebpf::programs::XdpContext;
use teredo_common::{
    checksum::Sum,
    respond::Server,
    verdict::Verdict,
    wire::{ICMPV6, IPV6_HEADER, NEIGHBOR_DISCOVERY_HOP_LIMIT, ROUTER_SOLICITATION},
};

use super::{
    advertisement::{self, Recipient},
    limits,
    request::{Head, Request, add_16},
    server,
};
use crate::{maps, outer::OUTER, packet::Octets};

/// Octets of a solicitation without options.
const PLAIN: usize = 8;
/// Octets of a solicitation of Windows XP: a link-layer address of two units of eight octets.
const WITH_OPTION: usize = 24;

/// Answers a solicitation that comes after a nonce-only authentication header, or without one.
#[inline(always)]
pub fn answer<const AUTHENTICATION: usize>(
    context: &XdpContext,
    request: Request,
    head: Head,
) -> Result<(Verdict, u32), Verdict> {
    request.check_source()?;
    let length = head.payload_length();
    if (length != PLAIN && length != WITH_OPTION) || !request.ends_with(head, AUTHENTICATION) {
        return Err(Verdict::RespondIcmpv6);
    }
    let icmpv6 = request
        .frame
        .skip::<OUTER>()
        .skip::<AUTHENTICATION>()
        .skip::<IPV6_HEADER>();
    let message = icmpv6.first::<PLAIN>().ok_or(Verdict::RespondMalformed)?;
    if message.read::<u8, 0>() != ROUTER_SOLICITATION || !is_link_local(head.source()[0]) {
        return Err(Verdict::RespondIcmpv6);
    }
    if message.read::<u8, 1>() != 0 || head.hop_limit() != NEIGHBOR_DISCOVERY_HOP_LIMIT {
        return Err(Verdict::RespondInvalidSolicitation);
    }
    let mut sum = add_16(Sum::ZERO, head.source());
    sum = add_16(sum, head.destination())
        .add(length as u16)
        .add(ICMPV6.into())
        .add_8(message.read::<u64, 0>().to_ne_bytes());
    if length == WITH_OPTION {
        if length > server::icmpv6_payload() {
            return Err(Verdict::RespondIcmpv6);
        }
        let options = icmpv6
            .skip::<PLAIN>()
            .first::<{ WITH_OPTION - PLAIN }>()
            .ok_or(Verdict::RespondMalformed)?;
        if !are_valid(options) {
            return Err(Verdict::RespondInvalidSolicitation);
        }
        sum = sum
            .add_8(options.read::<u64, 0>().to_ne_bytes())
            .add_8(options.read::<u64, 8>().to_ne_bytes());
    }
    if !sum.is_valid() {
        return Err(Verdict::RespondInvalidSolicitation);
    }
    if server::has(Server::REQUIRES_AUTHENTICATION) {
        return Err(Verdict::RespondAuthentication);
    }
    let recipient = Recipient::of::<AUTHENTICATION>(context, request, head)?;
    let packet = advertisement::packet_sum(head.first(), length);
    let payload = recipient.payload_sum::<AUTHENTICATION>(recipient.confirmation, packet);
    if !request.is_intact(payload) {
        return Err(Verdict::RespondChecksum);
    }
    if maps::draining().is_some() {
        return Err(Verdict::RespondDraining);
    }
    let is_cone = head.source()[1] & CONE != 0;
    if is_cone && !server::has(Server::ONE_INTERFACE) {
        return Err(Verdict::RespondCone);
    }
    let from = match is_cone != request.is_to_secondary() {
        true => server::secondary(),
        false => server::primary(),
    };
    limits::take_token(request.source, maps::now())?;
    advertisement::send::<AUTHENTICATION>(context, request.frame.length(), from, recipient)
}

/// The cone flag in the second half of an address.
const CONE: u64 = u64::from_ne_bytes([0x80, 0, 0, 0, 0, 0, 0, 0]);

/// Whether the first half is that of a link-local address.
#[inline(always)]
fn is_link_local(half: u64) -> bool {
    const MASK: u64 = u64::from_ne_bytes([0xff, 0xc0, 0, 0, 0, 0, 0, 0]);
    const PREFIX: u64 = u64::from_ne_bytes([0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
    half & MASK == PREFIX
}

/// Whether the options, of two units together, are of valid lengths: one of two, or two of one.
#[inline(always)]
fn are_valid(options: Octets<16>) -> bool {
    match options.read::<u8, 1>() {
        2 => true,
        1 => options.read::<u8, 9>() == 1,
        _ => false,
    }
}
