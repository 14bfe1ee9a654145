//! The server's answers that need no state: solicitations and bubbles (RFC 4380 sections 5.3.1 and
//! 5.3.2). What the daemon's server would drop for certain is dropped here, so that a flood of it
//! costs little; whatever is not certain is left to the daemon.

mod advertisement;
mod bubble;
mod limits;
mod request;
mod server;
mod solicitation;

use aya_ebpf::programs::XdpContext;
use teredo_common::{
    respond::Server,
    verdict::Verdict,
    wire::{ICMPV6, NO_NEXT_HEADER, NONCE_ONLY_LENGTH},
};

use self::request::Request;
use crate::{outer::OUTER, packet::Frame};

/// The first octets of an authentication header without client identifier and value.
const NONCE_ONLY: u32 = u32::from_ne_bytes([0, 1, 0, 0]);
/// The first two octets of an authentication header.
const AUTHENTICATION: u16 = u16::from_ne_bytes([0, 1]);

/// Answers a frame, or leaves it as it is and says why, with the interface to send the answer
/// through. `None` if the frame is not the server's, or for a relay on the same port.
#[inline(always)]
pub fn respond(context: &XdpContext, frame: Frame) -> Option<Result<(Verdict, u32), Verdict>> {
    if !server::is_there() {
        return None;
    }
    let outer = frame.first::<OUTER>()?;
    if !request::is_for_server(outer) {
        return None;
    }
    let request = match Request::read(frame, outer) {
        Ok(request) => request,
        Err(verdict) => return Some(Err(verdict)),
    };
    answer(context, request).transpose()
}

#[inline(always)]
fn answer(context: &XdpContext, request: Request) -> Result<Option<(Verdict, u32)>, Verdict> {
    let Some(start) = request.frame.skip::<OUTER>().first::<4>() else {
        return Err(Verdict::RespondMalformed);
    };
    if start.read::<u32, 0>() == NONCE_ONLY {
        let head = request.head::<NONCE_ONLY_LENGTH>()?;
        if head.next_header() != ICMPV6 {
            return Err(Verdict::RespondUnexpectedHeader);
        }
        if !head.is_to_all_routers() {
            return Err(Verdict::RespondIcmpv6);
        }
        return solicitation::answer::<NONCE_ONLY_LENGTH>(context, request, head).map(Some);
    }
    if start.read::<u16, 0>() == AUTHENTICATION {
        return Err(Verdict::RespondAuthentication);
    }
    if start.read::<u16, 0>() == 0 {
        return Err(Verdict::RespondUnexpectedHeader);
    }
    let head = request.head::<0>()?;
    if head.next_header() == ICMPV6 && head.is_to_all_routers() {
        return solicitation::answer::<0>(context, request, head).map(Some);
    }
    if head.next_header() == NO_NEXT_HEADER && head.payload_length() == 0 {
        return bubble::forward(context, request, head).map(Some);
    }
    if request.is_for_relay() {
        return Ok(None);
    }
    if head.next_header() == ICMPV6 {
        return Err(Verdict::RespondIcmpv6);
    }
    if request.is_to_secondary() {
        return Err(Verdict::RespondSecondary);
    }
    if server::has(Server::TUNNEL) {
        return Err(Verdict::RespondDaemon);
    }
    Err(Verdict::RespondNotService)
}
