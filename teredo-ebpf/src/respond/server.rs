//! The server's constants, which the daemon loads the program with.

use core::ptr;

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    limiter::{Limits, Rate},
    respond::{Advertisement, PREFIXES, ServerConstants},
    scope::Ipv4Scope,
};

use crate::settings;

const NO_RATE: Rate = Rate {
    interval: 0,
    tolerance: 0,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
static SERVER: ServerConstants = ServerConstants {
    limits: Limits {
        seed: 0,
        source: NO_RATE,
        network: NO_RATE,
        total: NO_RATE,
    },
    chunk: NO_RATE,
    advertisement: Advertisement {
        packet: [[0; 8]; 12],
        length: 0,
        sum: [0; 2],
        reserved: [0; 2],
    },
    prefixes: [ServicePrefix::STANDARD; PREFIXES],
    primary: [0; 4],
    secondary: [0; 4],
    port: [0; 2],
    scope: 0,
    icmpv6_payload: 0,
    flags: 0,
};

/// Reads a field in one instruction. `$field` has the size of `$type`.
macro_rules! field {
    ($($field:tt)+) => {
        // SAFETY: inside a static that lives as long as the program. Volatile, because the compiler
        // must not use the initial values.
        unsafe { ptr::read_volatile(&raw const SERVER.$($field)+) }
    };
}

/// Reads a field of four octets in one instruction.
macro_rules! word {
    ($($field:tt)+) => {
        // SAFETY: as in `field`; all of these are at offsets that are multiples of four.
        unsafe { ptr::read_volatile((&raw const SERVER.$($field)+).cast::<u32>()) }
    };
}

/// Whether there is a server.
#[inline(always)]
pub fn is_enabled() -> bool {
    port() != 0
}

/// Returns the primary address, network byte order.
#[inline(always)]
pub fn primary() -> u32 {
    word!(primary)
}

/// Returns the secondary address, network byte order.
#[inline(always)]
pub fn secondary() -> u32 {
    word!(secondary)
}

/// Returns the UDP port, network byte order.
#[inline(always)]
pub fn port() -> u16 {
    // SAFETY: as in `field`; the offset is even.
    unsafe { ptr::read_volatile((&raw const SERVER.port).cast::<u16>()) }
}

/// Returns the endpoint with one of the two addresses.
#[inline(always)]
pub fn endpoint(address: u32) -> Endpoint {
    Endpoint {
        address: address.to_ne_bytes(),
        port: port().to_ne_bytes(),
    }
}

/// Returns the rule for global unicast addresses.
#[inline(always)]
pub fn scope() -> Ipv4Scope {
    ServerConstants::scope(field!(scope))
}

/// Returns the length of the longest ICMPv6 message that the server accepts, in octets.
#[inline(always)]
pub fn icmpv6_payload() -> usize {
    usize::from(field!(icmpv6_payload))
}

/// Whether a flag of [`ServerConstants`] is set.
#[inline(always)]
pub fn has(flag: u32) -> bool {
    field!(flags) & flag != 0
}

/// Whether the relay receives on the primary address and the same port.
#[inline(always)]
pub fn shares_its_port() -> bool {
    settings::relay_address() == primary() && settings::relay_port() == port()
}

/// Whether the first word of an IPv6 address is a service prefix of the server.
#[inline(always)]
pub fn is_served(prefix: u32) -> bool {
    prefix == word!(prefixes[0])
        || prefix == word!(prefixes[1])
        || prefix == word!(prefixes[2])
        || prefix == word!(prefixes[3])
}

/// Returns the rate limits of the server's answers.
#[inline(always)]
pub fn limits() -> Limits {
    Limits {
        seed: field!(limits.seed),
        source: rate(
            field!(limits.source.interval),
            field!(limits.source.tolerance),
        ),
        network: rate(
            field!(limits.network.interval),
            field!(limits.network.tolerance),
        ),
        total: rate(
            field!(limits.total.interval),
            field!(limits.total.tolerance),
        ),
    }
}

/// Returns the rate at which chunks of tokens may be taken.
#[inline(always)]
pub fn chunk() -> Rate {
    rate(field!(chunk.interval), field!(chunk.tolerance))
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
pub fn advertisement_length() -> usize {
    field!(advertisement.length) as usize
}

/// Returns eight octets of the advertisement.
#[inline(always)]
pub fn advertisement_word<const INDEX: usize>() -> u64 {
    // SAFETY: as in `field`; the packet is at an offset that is a multiple of eight.
    unsafe { ptr::read_volatile((&raw const SERVER.advertisement.packet[INDEX]).cast::<u64>()) }
}

/// Returns [`Advertisement::sum`].
#[inline(always)]
pub fn advertisement_sum() -> [u8; 2] {
    // SAFETY: as in `field`; the offset is even.
    unsafe { ptr::read_volatile((&raw const SERVER.advertisement.sum).cast::<u16>()) }.to_ne_bytes()
}
