//! Router advertisements, written over the solicitations that they answer (RFC 4380 section 5.3.2).

use teredo_common::{
    address::Endpoint,
    checksum::Sum,
    respond::Advertisement,
    verdict::Verdict,
    wire::{
        ETHERTYPE_IPV4, ICMPV6, IPV6_HEADER, NONCE_ONLY_LENGTH, ORIGIN_INDICATION_LENGTH,
        UDP_HEADER,
    },
};

use super::{
    NONCE_ONLY,
    request::{Request, add_16},
    server,
};
use crate::{
    environment::Environment,
    frame::Frame,
    headers::{Ipv6, OUTER, Outer, udp_sum},
    outcome::{Outcome, Sent},
    route::Hop,
    thorough,
};

/// The confirmation octet of every answer: no key is out of date where there is none.
const VALID: u8 = 0;

/// The recipient of an advertisement, and the parts of its solicitation that the answer repeats, in
/// registers.
#[derive(Clone, Copy)]
pub struct Recipient {
    way: Hop,
    mapped: Endpoint,
    ipv6: [u64; 2],
    nonce: u64,
    /// The solicitation's confirmation octet, which the answer does not repeat.
    pub confirmation: u8,
}

impl Recipient {
    /// Returns the sender of a solicitation.
    #[inline(always)]
    pub fn of<const AUTHENTICATION: usize>(
        environment: &impl Environment,
        request: Request,
        ipv6: Ipv6,
    ) -> Result<Self, Verdict> {
        let (mut nonce, mut confirmation) = (0, 0);
        if AUTHENTICATION != 0 {
            let header = request
                .frame
                .skip::<OUTER>()
                .first::<NONCE_ONLY_LENGTH>()
                .ok_or(Verdict::RespondMalformed)?;
            nonce = header.read::<u64, 4>();
            confirmation = header.read::<u8, 12>();
        }
        Ok(Self {
            way: Hop::back(environment, request.outer.ethernet()),
            mapped: request.mapped(),
            ipv6: ipv6.source(),
            nonce,
            confirmation,
        })
    }

    /// Returns the sum of a UDP payload: of the authentication header, and of the `rest` after it.
    #[inline(always)]
    pub fn payload_sum<const AUTHENTICATION: usize>(self, confirmation: u8, rest: Sum) -> Sum {
        if AUTHENTICATION == 0 {
            return rest;
        }
        rest.at_odd_offset()
            .add_4(NONCE_ONLY.to_ne_bytes())
            .add_8(self.nonce.to_ne_bytes())
            .add_2([confirmation, 0])
    }
}

/// Returns the sum of an IPv6 packet that contains only ICMPv6 with a right checksum, from its first
/// eight octets alone: [`teredo_common::checksum::encapsulation`] explains why that is enough.
#[inline(always)]
pub fn packet_sum(first: u64, length: usize) -> Sum {
    Sum::ZERO
        .add_8(first.to_ne_bytes())
        .subtract(length as u16)
        .subtract(ICMPV6.into())
}

/// Turns the frame of a solicitation, `length` octets long, into the advertisement.
#[inline(always)]
pub fn send<const AUTHENTICATION: usize>(
    environment: &impl Environment,
    length: usize,
    from: u32,
    to: Recipient,
) -> Outcome {
    let payload =
        AUTHENTICATION + ORIGIN_INDICATION_LENGTH + server::advertisement_length(environment);
    // All of the new frame is written, so its start may be anywhere.
    if !thorough::move_start(environment, length as i32 - (OUTER + payload) as i32) {
        return Err(Verdict::RespondHeadroom);
    }
    write::<AUTHENTICATION>(environment, Frame::of(environment), from, to)
        .ok_or(Verdict::RespondAborted)?;
    Ok(Sent {
        verdict: Verdict::RespondAdvertised,
        interface: to.way.interface,
    })
}

/// Writes the whole frame. Returns `None`, which the verifier cannot rule out, if it is too short.
#[inline(always)]
fn write<const AUTHENTICATION: usize>(
    environment: &impl Environment,
    frame: Frame,
    from: u32,
    to: Recipient,
) -> Option<()> {
    const PLAIN: usize = ORIGIN_INDICATION_LENGTH + Advertisement::PLAIN as usize;
    let length = server::advertisement_length(environment);
    let origin = to.mapped.origin_indication();
    let first = server::advertisement_word::<0>(environment);

    let payload = frame.skip::<OUTER>().skip::<AUTHENTICATION>();
    let packet = payload.first::<PLAIN>()?;
    packet.write::<u64, 0>(u64::from_ne_bytes(origin));
    packet.write::<u64, 8>(first);
    packet.write::<u64, 16>(server::advertisement_word::<1>(environment));
    packet.write::<u64, 24>(server::advertisement_word::<2>(environment));
    packet.write::<u64, 32>(to.ipv6[0]);
    packet.write::<u64, 40>(to.ipv6[1]);
    packet.write::<u64, 48>(server::advertisement_word::<5>(environment));
    packet.write::<u64, 56>(server::advertisement_word::<6>(environment));
    packet.write::<u64, 64>(server::advertisement_word::<7>(environment));
    packet.write::<u64, 72>(server::advertisement_word::<8>(environment));
    packet.write::<u64, 80>(server::advertisement_word::<9>(environment));
    packet.write::<u64, 88>(server::advertisement_word::<10>(environment));
    if length == Advertisement::WITH_MTU as usize {
        let option = payload.skip::<PLAIN>().first::<8>()?;
        option.write::<u64, 0>(server::advertisement_word::<11>(environment));
    }
    let sum = Sum::ZERO.add_2(server::advertisement_sum(environment));
    let checksum = add_16(sum, to.ipv6).checksum();
    packet.write::<u16, 50>(u16::from_ne_bytes(checksum));

    if AUTHENTICATION != 0 {
        let header = frame.skip::<OUTER>().first::<NONCE_ONLY_LENGTH>()?;
        header.write::<u32, 0>(NONCE_ONLY);
        header.write::<u64, 4>(to.nonce);
        header.write::<u8, 12>(VALID);
    }
    let outer = Outer::of(frame)?;
    to.way.write(outer.ethernet(), ETHERTYPE_IPV4);
    let rest = packet_sum(first, length - IPV6_HEADER).add_8(origin);
    let payload = to.payload_sum::<AUTHENTICATION>(VALID, rest);
    let length = (UDP_HEADER + AUTHENTICATION + ORIGIN_INDICATION_LENGTH + length) as u16;
    let from = server::endpoint(environment, from);
    let checksum = udp_sum(from, to.mapped, length)
        .add_sum(payload)
        .udp_checksum();
    outer.write(
        from,
        to.mapped,
        length,
        checksum,
        environment.identification(),
    );
    Some(())
}
