//! The server's constants, which the daemon loads the program with.

use core::ptr;

use teredo_common::{
    address::Endpoint,
    limiter::{Limits, Rate},
    respond::ServerConstants,
    scope::Ipv4Scope,
};

use crate::{environment::Environment, settings};

/// Reads a field in one instruction. `$field` has the size of `$type`.
macro_rules! field {
    ($environment:ident, $($field:tt)+) => {{
        let server: &ServerConstants = $environment.server();
        // SAFETY: inside the constants. Volatile, because the compiler of the XDP program must not use
        // the initial values.
        unsafe { ptr::read_volatile(&raw const server.$($field)+) }
    }};
}

/// Reads a field of four octets in one instruction.
macro_rules! word {
    ($environment:ident, $($field:tt)+) => {{
        let server: &ServerConstants = $environment.server();
        // SAFETY: as in `field`; all of these are at offsets that are multiples of four.
        unsafe { ptr::read_volatile((&raw const server.$($field)+).cast::<u32>()) }
    }};
}

/// Whether there is a server.
#[inline(always)]
pub fn is_enabled(environment: &impl Environment) -> bool {
    port(environment) != 0
}

/// Returns the primary address, network byte order.
#[inline(always)]
pub fn primary(environment: &impl Environment) -> u32 {
    word!(environment, primary)
}

/// Returns the secondary address, network byte order.
#[inline(always)]
pub fn secondary(environment: &impl Environment) -> u32 {
    word!(environment, secondary)
}

/// Returns the UDP port, network byte order.
#[inline(always)]
pub fn port(environment: &impl Environment) -> u16 {
    let server = environment.server();
    // SAFETY: as in `field`; the offset is even.
    unsafe { ptr::read_volatile((&raw const server.port).cast::<u16>()) }
}

/// Returns the endpoint with one of the two addresses.
#[inline(always)]
pub fn endpoint(environment: &impl Environment, address: u32) -> Endpoint {
    Endpoint {
        address: address.to_ne_bytes(),
        port: port(environment).to_ne_bytes(),
    }
}

/// Returns the rule for global unicast addresses.
#[inline(always)]
pub fn scope(environment: &impl Environment) -> Ipv4Scope {
    ServerConstants::scope(field!(environment, scope))
}

/// Returns the length of the longest ICMPv6 message that the server accepts, in octets.
#[inline(always)]
pub fn icmpv6_payload(environment: &impl Environment) -> usize {
    usize::from(field!(environment, icmpv6_payload))
}

/// Whether a flag of [`ServerConstants`] is set.
#[inline(always)]
pub fn has(environment: &impl Environment, flag: u32) -> bool {
    field!(environment, flags) & flag != 0
}

/// Whether the relay receives on the primary address and the same port.
#[inline(always)]
pub fn shares_its_port(environment: &impl Environment) -> bool {
    settings::relay_address(environment) == primary(environment)
        && settings::relay_port(environment) == port(environment)
}

/// Whether the first word of an IPv6 address is a service prefix of the server.
#[inline(always)]
pub fn is_served(environment: &impl Environment, prefix: u32) -> bool {
    prefix == word!(environment, prefixes[0])
        || prefix == word!(environment, prefixes[1])
        || prefix == word!(environment, prefixes[2])
        || prefix == word!(environment, prefixes[3])
}

/// Returns the rate limits of the server's answers.
#[inline(always)]
pub fn limits(environment: &impl Environment) -> Limits {
    Limits {
        seed: field!(environment, limits.seed),
        source: rate(
            field!(environment, limits.source.interval),
            field!(environment, limits.source.tolerance),
        ),
        network: rate(
            field!(environment, limits.network.interval),
            field!(environment, limits.network.tolerance),
        ),
        total: rate(
            field!(environment, limits.total.interval),
            field!(environment, limits.total.tolerance),
        ),
    }
}

/// Returns the rate at which chunks of tokens may be taken.
#[inline(always)]
pub fn chunk(environment: &impl Environment) -> Rate {
    rate(
        field!(environment, chunk.interval),
        field!(environment, chunk.tolerance),
    )
}

#[inline(always)]
fn rate(interval: u64, tolerance: u64) -> Rate {
    Rate {
        interval,
        tolerance,
    }
}

/// Returns the length of an advertisement's IPv6 packet, in octets.
#[inline(always)]
pub fn advertisement_length(environment: &impl Environment) -> usize {
    field!(environment, advertisement.length) as usize
}

/// Returns eight octets of the advertisement.
#[inline(always)]
pub fn advertisement_word<const INDEX: usize>(environment: &impl Environment) -> u64 {
    let server = environment.server();
    // SAFETY: as in `field`; the packet is at an offset that is a multiple of eight.
    unsafe { ptr::read_volatile((&raw const server.advertisement.packet[INDEX]).cast::<u64>()) }
}

/// Returns [`Advertisement::sum`].
#[inline(always)]
pub fn advertisement_sum(environment: &impl Environment) -> [u8; 2] {
    let server = environment.server();
    // SAFETY: as in `field`; the offset is even.
    unsafe { ptr::read_volatile((&raw const server.advertisement.sum).cast::<u16>()) }.to_ne_bytes()
}
