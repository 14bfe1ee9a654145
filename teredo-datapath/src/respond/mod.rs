//! The server's answers that need no state: solicitations and bubbles (RFC 4380 sections 5.3.1 and
//! 5.3.2). Packets that the daemon's server would certainly drop are dropped here, so that a flood of
//! them costs little; everything uncertain is left to the daemon.

mod advertisement;
mod bubble;
mod limits;
mod request;
pub mod server;
mod solicitation;

use teredo_common::{
    respond::ServerConstants,
    verdict::Verdict,
    wire::{ICMPV6, NO_NEXT_HEADER, NONCE_ONLY_LENGTH},
};

use self::request::Request;
use crate::{
    environment::Environment,
    frame::Frame,
    headers::{OUTER, Outer},
    outcome::Outcome,
};

/// The first octets of an authentication header without client identifier and value.
const NONCE_ONLY: u32 = u32::from_ne_bytes([0, 1, 0, 0]);
/// The first two octets of an authentication header.
const AUTHENTICATION: u16 = u16::from_ne_bytes([0, 1]);

/// Answers a frame, or leaves it as it is. The verdict is [`Verdict::RespondNotOurs`] if the frame is
/// not for the server, or is for a relay at the same endpoint.
#[inline(always)]
pub fn respond(environment: &impl Environment, frame: Frame) -> Outcome {
    let outer = Outer::of(frame).ok_or(Verdict::RespondNotOurs)?;
    if !request::is_for_server(environment, outer) {
        return Err(Verdict::RespondNotOurs);
    }
    answer(environment, Request::read(environment, frame, outer)?)
}

#[inline(always)]
fn answer(environment: &impl Environment, request: Request) -> Outcome {
    let start = request
        .frame
        .skip::<OUTER>()
        .first::<4>()
        .ok_or(Verdict::RespondMalformed)?;
    if start.read::<u32, 0>() == NONCE_ONLY {
        let ipv6 = request.ipv6::<NONCE_ONLY_LENGTH>()?;
        if ipv6.next_header() != ICMPV6 {
            return Err(Verdict::RespondUnexpectedHeader);
        }
        if !ipv6.is_to_all_routers() {
            return Err(Verdict::RespondIcmpv6);
        }
        return solicitation::answer::<NONCE_ONLY_LENGTH>(environment, request, ipv6);
    }
    if start.read::<u16, 0>() == AUTHENTICATION {
        return Err(Verdict::RespondAuthentication);
    }
    if start.read::<u16, 0>() == 0 {
        return Err(Verdict::RespondUnexpectedHeader);
    }
    let ipv6 = request.ipv6::<0>()?;
    if ipv6.next_header() == ICMPV6 && ipv6.is_to_all_routers() {
        return solicitation::answer::<0>(environment, request, ipv6);
    }
    if ipv6.next_header() == NO_NEXT_HEADER && ipv6.payload_length() == 0 {
        return bubble::forward(environment, request, ipv6);
    }
    if request.is_for_relay(environment) {
        return Err(Verdict::RespondNotOurs);
    }
    if ipv6.next_header() == ICMPV6 {
        return Err(Verdict::RespondIcmpv6);
    }
    if request.is_to_secondary(environment) {
        return Err(Verdict::RespondSecondary);
    }
    if server::has(environment, ServerConstants::TUNNEL) {
        return Err(Verdict::RespondDaemon);
    }
    Err(Verdict::RespondNotService)
}
