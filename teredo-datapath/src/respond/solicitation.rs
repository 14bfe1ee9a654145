//! Router solicitations (RFC 4861 section 4.1) in the forms that Windows and Miredo send.

use teredo_common::{
    checksum::Sum,
    respond::ServerConstants,
    verdict::Verdict,
    wire::{ICMPV6, IPV6_HEADER, NEIGHBOR_DISCOVERY_HOP_LIMIT},
};

use super::{
    advertisement::{self, Recipient},
    limits,
    request::{Request, add_16},
    server,
};
use crate::{
    environment::Environment,
    headers::{Ipv6, OUTER, Options, Solicitation},
    maps,
    outcome::Outcome,
};

/// Octets of a solicitation of Windows XP: a link-layer address of two units of eight octets.
const WITH_OPTION: usize = Solicitation::LENGTH + Options::LENGTH;

/// Answers a solicitation to all routers that comes after a nonce-only authentication header, or without one.
#[inline(always)]
pub fn answer<const AUTHENTICATION: usize>(
    environment: &impl Environment,
    request: Request,
    ipv6: Ipv6,
) -> Outcome {
    request.check_source(environment)?;
    let length = ipv6.payload_length();
    if (length != Solicitation::LENGTH && length != WITH_OPTION)
        || !request.ends_with(ipv6, AUTHENTICATION)
    {
        return Err(Verdict::RespondIcmpv6);
    }
    let message = request
        .frame
        .skip::<OUTER>()
        .skip::<AUTHENTICATION>()
        .skip::<IPV6_HEADER>();
    let solicitation = Solicitation::of(message).ok_or(Verdict::RespondMalformed)?;
    if !solicitation.is_solicitation() || !is_link_local(ipv6.source()[0]) {
        return Err(Verdict::RespondIcmpv6);
    }
    if solicitation.code() != 0 || ipv6.hop_limit() != NEIGHBOR_DISCOVERY_HOP_LIMIT {
        return Err(Verdict::RespondInvalidSolicitation);
    }
    let mut sum = add_16(Sum::ZERO, ipv6.source());
    sum = add_16(sum, Ipv6::ALL_ROUTERS)
        .add(length as u16)
        .add(ICMPV6.into())
        .add_8(solicitation.word().to_ne_bytes());
    if length == WITH_OPTION {
        if length > server::icmpv6_payload(environment) {
            return Err(Verdict::RespondIcmpv6);
        }
        let options = Options::of(message).ok_or(Verdict::RespondMalformed)?;
        if !options.are_valid() {
            return Err(Verdict::RespondInvalidSolicitation);
        }
        sum = add_16(sum, options.words());
    }
    if !sum.is_valid() {
        return Err(Verdict::RespondInvalidSolicitation);
    }
    if server::has(environment, ServerConstants::REQUIRES_AUTHENTICATION) {
        return Err(Verdict::RespondAuthentication);
    }
    let recipient = Recipient::of::<AUTHENTICATION>(environment, request, ipv6)?;
    let packet = advertisement::packet_sum(ipv6.start_word(), length);
    let payload = recipient.payload_sum::<AUTHENTICATION>(recipient.confirmation, packet);
    if !request.is_intact(environment, payload) {
        return Err(Verdict::RespondChecksum);
    }
    if maps::draining(environment).is_some() {
        return Err(Verdict::RespondDraining);
    }
    let is_cone = ipv6.source()[1] & CONE != 0;
    if is_cone && !server::has(environment, ServerConstants::ONE_INTERFACE) {
        return Err(Verdict::RespondCone);
    }
    let from = match is_cone != request.is_to_secondary(environment) {
        true => server::secondary(environment),
        false => server::primary(environment),
    };
    limits::take_token(environment, request.source, environment.now())?;
    advertisement::send::<AUTHENTICATION>(environment, request.frame.length(), from, recipient)
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
