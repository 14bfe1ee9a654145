//! The constants with which the XDP program answers for the server.

use bytemuck::{Pod, Zeroable};

use crate::{
    address::ServicePrefix,
    checksum::ipv6_pseudo_header,
    limiter::{Limits, Rate},
    scope::Ipv4Scope,
    wire::{ICMPV6, IPV6_HEADER},
};

/// Service prefixes that the program knows. With more of them, bubbles are left to the daemon.
pub const PREFIXES: usize = 4;

/// Tokens of the bucket for everything that a CPU takes at once, so that CPUs do not take its cache
/// line from each other at every packet. Tokens that a CPU has taken and not used are lost to the others: the
/// total is missed by as many on each CPU at most. It is exceeded by a packet when two CPUs take at
/// the same moment.
pub const CHUNK: u32 = 64;

/// The server as constants to the verifier; all zero if there is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ServerConstants {
    /// The rates of its answers.
    pub limits: Limits,
    /// The rate at which a CPU may take [`CHUNK`] tokens at once from the bucket for everything.
    pub chunk: Rate,
    /// The advertisement that it sends.
    pub advertisement: Advertisement,
    /// The prefixes whose clients are served; unused entries repeat the first.
    pub prefixes: [ServicePrefix; PREFIXES],
    /// Its primary address, network byte order.
    pub primary: [u8; 4],
    /// Its secondary address, network byte order.
    pub secondary: [u8; 4],
    /// Its UDP port, network byte order.
    pub port: [u8; 2],
    /// The rule for global unicast addresses, as a number: see [`ServerConstants::scope`].
    pub scope: u8,
    /// The longest ICMPv6 message that the server accepts, if that is less than 255 octets (DEC-20).
    pub icmpv6_payload: u8,
    /// [`ServerConstants::ONE_INTERFACE`] and others.
    pub flags: u32,
}

impl ServerConstants {
    /// Both addresses are reached through the same interface, so that an answer may leave from the
    /// other address (requirement S-18).
    pub const ONE_INTERFACE: u32 = 1;
    /// Solicitations without valid authentication are not answered.
    pub const REQUIRES_AUTHENTICATION: u32 = 2;
    /// Only sources in [`crate::maps::ALLOWED`] are served.
    pub const ALLOWS_SOME: u32 = 4;
    /// The daemon forwards bubbles for clients of other servers, too (DEC-8).
    pub const FORWARDS_FOREIGN: u32 = 8;
    /// The daemon has a tunnel service (T-04): it judges packets from native addresses.
    pub const TUNNEL: u32 = 16;
    /// The server has more than [`PREFIXES`] service prefixes.
    pub const MORE_PREFIXES: u32 = 32;

    /// [`ServerConstants::scope`] for a rule.
    pub const fn scope_number(scope: Ipv4Scope) -> u8 {
        match scope {
            Ipv4Scope::Strict => 0,
            Ipv4Scope::Rfc4380 => 1,
            Ipv4Scope::Lab => 2,
        }
    }

    /// The rule of [`ServerConstants::scope`].
    #[inline(always)]
    pub const fn scope(scope: u8) -> Ipv4Scope {
        match scope {
            1 => Ipv4Scope::Rfc4380,
            2 => Ipv4Scope::Lab,
            _ => Ipv4Scope::Strict,
        }
    }
}

const WORDS: usize = Advertisement::WITH_MTU as usize / 8;

/// The common part of all router advertisements of a server.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Advertisement {
    /// The IPv6 packet, with zeros for the destination and the checksum, and behind the end.
    pub packet: [[u8; 8]; WORDS],
    /// Octets of the packet: [`Advertisement::PLAIN`] or [`Advertisement::WITH_MTU`].
    pub length: u32,
    /// The sum that the ICMPv6 checksum is made of, but for the destination.
    pub sum: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
}

impl Advertisement {
    /// Octets without the MTU option.
    pub const PLAIN: u32 = 88;
    /// Octets with the MTU option.
    pub const WITH_MTU: u32 = 96;

    /// The common part of advertisements, taken from one of them, of [`Advertisement::PLAIN`] or
    /// [`Advertisement::WITH_MTU`] octets. Its other fields are ignored.
    pub fn new(packet: &[u8]) -> Self {
        let length = match packet.len() as u32 {
            Self::WITH_MTU.. => Self::WITH_MTU,
            _ => Self::PLAIN,
        };
        let mut octets = [0; Self::WITH_MTU as usize];
        for (to, from) in octets.iter_mut().zip(packet) {
            *to = *from;
        }
        octets[24..IPV6_HEADER].fill(0);
        octets[IPV6_HEADER + 2..IPV6_HEADER + 4].fill(0);
        let mut source = [0; 16];
        source.copy_from_slice(&octets[8..24]);
        let message = &octets[IPV6_HEADER..length as usize];
        let sum = ipv6_pseudo_header(&source, &[0; 16], message.len() as u32, ICMPV6)
            .add_octets(message)
            .fold();
        Self {
            packet: bytemuck::cast(octets),
            length,
            sum,
            reserved: [0; 2],
        }
    }
}

/// The rate at which a CPU may take [`CHUNK`] tokens at once from a bucket of this rate.
pub const fn chunk(rate: Rate) -> Rate {
    let others = rate.interval.saturating_mul(CHUNK as u64 - 1);
    match rate.tolerance.checked_sub(others) {
        Some(tolerance) => Rate {
            interval: rate.interval.saturating_mul(CHUNK as u64),
            tolerance,
        },
        // A burst is less than a chunk.
        None => Rate {
            interval: 0,
            tolerance: 0,
        },
    }
}

const _: () = {
    assert!(size_of::<Advertisement>() == 104);
    assert!(size_of::<ServerConstants>() == 208);
};

#[cfg(feature = "user")]
mod user {
    use super::ServerConstants;

    // SAFETY: `repr(C)` without padding (bytemuck::Pod proves it) and valid for any octets.
    unsafe impl aya::Pod for ServerConstants {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limiter::take, time::Instant};

    #[test]
    fn a_chunk_is_as_many_single_tokens() {
        for rate in [
            Rate::new(1_000_000, 100_000),
            Rate::new(1000, CHUNK),
            Rate::new(7, CHUNK - 1),
            Rate::new(7, 1),
            Rate::new(0, 9),
        ] {
            for bucket in [0, 999_000_000, 1_000_000_000, 1_030_000_000, 9_000_000_000] {
                let now = Instant::from_nanos(1_000_000_000);
                let mut single = Some(bucket);
                for _ in 0..CHUNK {
                    single = single.and_then(|bucket| take(bucket, rate, now));
                }
                assert_eq!(take(bucket, chunk(rate), now), single, "{rate:?} {bucket}");
            }
        }
    }
}
