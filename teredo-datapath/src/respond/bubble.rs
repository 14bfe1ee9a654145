//! Bubbles for clients of the server (requirements S-08, S-09, S-14, S-15).

use teredo_common::{
    address::Endpoint,
    checksum::Sum,
    respond::ServerConstants,
    scope::{embedded_router, is_link_local, may_be_source},
    verdict::Verdict,
    wire::{ENCAPSULATION, ETHERTYPE_IPV4, IPV6_HEADER, ORIGIN_INDICATION_LENGTH, UDP_HEADER},
};

use super::{
    limits,
    request::{Request, add_16, is_own},
    server,
};
use crate::{
    environment::Environment,
    frame::Frame,
    headers::{Ipv6, OUTER, Outer, udp_sum},
    maps,
    outcome::{Outcome, Sent},
    route, thorough,
};

/// Octets of a bubble with an origin indication.
const PAYLOAD: usize = ORIGIN_INDICATION_LENGTH + IPV6_HEADER;

/// Forwards a bubble with an origin indication.
#[inline(always)]
pub fn forward(environment: &impl Environment, request: Request, ipv6: Ipv6) -> Outcome {
    if request.is_to_secondary(environment) {
        return Err(Verdict::RespondSecondary);
    }
    request.check_source(environment)?;
    if !request.ends_with(ipv6, 0) {
        return Err(Verdict::RespondTrailers);
    }
    if server::has(environment, ServerConstants::MORE_PREFIXES) {
        return Err(Verdict::RespondDaemon);
    }
    let to = check(environment, request, ipv6)?;

    let (start, source, destination) = (ipv6.start_word(), ipv6.source(), ipv6.destination());
    let packet = add_16(
        add_16(Sum::ZERO.add_8(start.to_ne_bytes()), source),
        destination,
    );
    if !request.is_intact(environment, packet) {
        return Err(Verdict::RespondChecksum);
    }
    let from = server::endpoint(environment, server::primary(environment));
    let hop = route::to_endpoint(environment, from, to).ok_or(Verdict::RespondNextHop)?;
    if hop.mtu < ENCAPSULATION + PAYLOAD {
        return Err(hop.too_big(Verdict::RespondNextHop));
    }
    let now = environment.now();
    if maps::draining(environment).is_some_and(|end| now >= end) {
        return Err(Verdict::RespondDraining);
    }
    limits::take_token(environment, request.source, now)?;

    let origin = request.mapped().origin_indication();
    let longer = (OUTER + PAYLOAD) as i32 - request.frame.length() as i32;
    if !thorough::move_start(environment, -longer) {
        return Err(Verdict::RespondHeadroom);
    }
    let written = Frame::of(environment)
        .first::<{ OUTER + PAYLOAD }>()
        .ok_or(Verdict::RespondAborted)?;
    let outer = Outer::new(written.part::<0, OUTER>());
    let length = (UDP_HEADER + PAYLOAD) as u16;
    let checksum = udp_sum(from, to, length)
        .add_sum(packet)
        .add_8(origin)
        .udp_checksum();
    hop.write(outer.ethernet(), ETHERTYPE_IPV4);
    outer.write(from, to, length, checksum, environment.identification());
    let payload = written.part::<OUTER, PAYLOAD>();
    payload.write::<u64, 0>(u64::from_ne_bytes(origin));
    payload.write::<u64, 8>(start);
    payload.write::<u64, 16>(source[0]);
    payload.write::<u64, 24>(source[1]);
    payload.write::<u64, 32>(destination[0]);
    payload.write::<u64, 40>(destination[1]);
    Ok(Sent {
        verdict: Verdict::RespondForwarded,
        interface: hop.interface,
    })
}

/// Returns the endpoint to send the bubble to, if the server forwards it.
#[inline(always)]
fn check(
    environment: &impl Environment,
    request: Request,
    ipv6: Ipv6,
) -> Result<Endpoint, Verdict> {
    let (source, destination) = (ipv6.source_words(), ipv6.destination_words());
    if source == destination {
        return Err(Verdict::RespondSameAddress);
    }
    let is_left_to_daemon =
        request.is_for_relay(environment) || server::has(environment, ServerConstants::TUNNEL);
    if !server::is_served(environment, destination[0]) {
        return Err(match is_left_to_daemon {
            true => Verdict::RespondDaemon,
            false => Verdict::RespondDestination,
        });
    }
    if server::is_served(environment, source[0]) {
        if embedded(source) != request.mapped() {
            return Err(Verdict::RespondSourceMismatch);
        }
    } else {
        check_native(environment, ipv6.source())?;
    }
    if destination[1] != server::primary(environment) {
        return Err(
            match server::has(environment, ServerConstants::FORWARDS_FOREIGN) {
                true => Verdict::RespondDaemon,
                false => Verdict::RespondForeign,
            },
        );
    }
    let to = embedded(destination);
    let is_reachable = to.port != [0, 0]
        && server::scope(environment).accepts(to.address)
        && !is_own(environment, u32::from_ne_bytes(to.address));
    is_reachable.then_some(to).ok_or(Verdict::RespondMapping)
}

/// Whether an address that is not Teredo may be the source of a bubble.
#[inline(always)]
fn check_native(environment: &impl Environment, source: [u64; 2]) -> Result<(), Verdict> {
    let [a, b, c, d, e, f, g, h] = source[0].to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = source[1].to_ne_bytes();
    let source = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
    if !may_be_source(&source) {
        return Err(Verdict::RespondSource);
    }
    if let Some(router) = embedded_router(&source)
        && is_own(environment, u32::from_ne_bytes(router))
    {
        return Err(Verdict::RespondSource);
    }
    if server::has(environment, ServerConstants::TUNNEL) && !is_link_local(&source) {
        return Err(Verdict::RespondDaemon);
    }
    Ok(())
}

/// Returns the endpoint in a Teredo address.
#[inline(always)]
fn embedded([_, _, flags_and_port, address]: [u32; 4]) -> Endpoint {
    let [_, _, a, b] = flags_and_port.to_ne_bytes();
    Endpoint {
        address: (!address).to_ne_bytes(),
        port: [!a, !b],
    }
}
