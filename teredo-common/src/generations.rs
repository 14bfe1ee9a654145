//! The generations of cached next hops: one for each bucket of destinations, so that a change of a route
//! invalidates only the hops of destinations near its own.
//!
//! The destinations of a route are those of one bucket, or of several if its prefix is short. Routes of
//! the internet change all the time, most of them far away from the hosts that packets go to.
//!
//! While the daemon lives it changes the generation of a bucket when the kernel's tables change, and of
//! every bucket once in [`LIFETIME`], in case it has missed something. It shows that it lives at
//! [`HEARTBEAT`]. Without it, all buckets have the generation of the clock, which changes every
//! [`SECOND`].
//!
//! # Destinations that share a next hop
//!
//! All destinations in a bucket of IPv6 that agree in their first [`shared_bits`] bits have the same route,
//! as far as the daemon knows. If that leads to a gateway, they have the same next hop, too.

use core::time::Duration;

use crate::time::Instant;

/// Buckets of destinations.
pub const GENERATIONS: usize = 1 << 16;
/// The index, behind those of the buckets, of the time when the daemon last showed that it lives, in units
/// of [`SECOND`].
pub const HEARTBEAT: usize = GENERATIONS;
/// Numbers of 32 bits in the map: with the heartbeat, and one more so that the value is a multiple of eight
/// octets.
pub const NUMBERS: usize = GENERATIONS + 2;

/// Bits of an IPv4 prefix whose addresses share a bucket.
pub const IPV4_BITS: u8 = 16;
/// Bits of an IPv6 prefix whose addresses share a bucket, with those of others.
pub const IPV6_BITS: u8 = 32;
/// The most bits of an IPv6 prefix whose addresses share a next hop.
pub const SHARED_BITS_MAX: u8 = 64;

/// About a second, the unit of [`HEARTBEAT`].
pub const SECOND: Duration = Duration::from_nanos(1 << 30);
/// The age of the heartbeat beyond which the daemon counts as gone, in units of [`SECOND`].
const SILENCE: u32 = 4;
/// The longest time for which a next hop is used without another look at the kernel's tables, while the
/// daemon lives.
pub const LIFETIME: Duration = Duration::from_secs(16);

/// The bits of a generation.
pub const GENERATION: u32 = 0x00ff_ffff;
/// The position of the shared bits in the number of a bucket.
const SHIFT: u32 = 24;

/// Returns the bucket of an IPv4 destination.
#[inline(always)]
pub const fn ipv4_bucket([a, b, _, _]: [u8; 4]) -> u16 {
    u16::from_be_bytes([a, b])
}

/// Returns the bucket of an IPv6 destination that begins with this word in network byte order.
#[inline(always)]
pub const fn ipv6_bucket(first: u32) -> u16 {
    (u32::from_be(first).wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// Returns the generation in the number of a bucket.
#[inline(always)]
pub const fn generation(number: u32) -> u32 {
    number & GENERATION
}

/// Returns how many bits of an IPv6 destination determine its route, up to [`SHARED_BITS_MAX`]; zero if
/// all of them do.
#[inline(always)]
pub const fn shared_bits(number: u32) -> u8 {
    (number >> SHIFT) as u8
}

/// Returns the number of a bucket.
pub const fn number(generation: u32, shared_bits: u8) -> u32 {
    generation & GENERATION | (shared_bits as u32) << SHIFT
}

/// Returns the generation after this one: an even number, and none of those that [`crate::maps::NextHop`]
/// reserves, which are the first ones.
pub const fn next(generation: u32) -> u32 {
    let next = (generation & !1).wrapping_add(2) & GENERATION;
    if next < FIRST { FIRST } else { next }
}

/// The least generation of a daemon.
pub const FIRST: u32 = 8;

/// Returns the generation of all buckets at this time if there is no daemon, an odd number.
#[inline(always)]
pub const fn of_clock(now: Instant) -> u32 {
    (seconds(now) << 1 | 1) & GENERATION
}

/// Whether the daemon lives, if this is its heartbeat.
#[inline(always)]
pub const fn is_alive(heartbeat: u32, now: Instant) -> bool {
    // The daemon's clock is finer than the program's, and may be one ahead.
    seconds(now).wrapping_add(1).wrapping_sub(heartbeat) <= SILENCE
}

/// Returns the heartbeat of this time.
#[inline(always)]
pub const fn seconds(now: Instant) -> u32 {
    (now.as_nanos() / SECOND.as_nanos() as u64) as u32
}

const _: () = assert!(FIRST.is_multiple_of(2));

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbouring_prefixes_have_buckets_of_their_own() {
        let buckets: BTreeSet<_> = (0..10_000_u32)
            .map(|number| ipv6_bucket((0x2400_0000 + number).to_be()))
            .collect();
        assert!(buckets.len() > 8_000, "{}", buckets.len());
        assert_eq!(ipv4_bucket([9, 8, 7, 6]), 0x0908);
    }

    #[test]
    fn generations_of_daemon_and_clock_are_never_the_same() {
        let mut generation = GENERATION - 100;
        let mut wrapped = false;
        for _ in 0..200 {
            let after = next(generation);
            assert!(after.is_multiple_of(2) && (FIRST..=GENERATION).contains(&after));
            wrapped |= after < generation;
            generation = after;
        }
        assert!(wrapped);
        for second in [0, 1, 1 << 22, 1 << 23, 1 << 30] {
            let now = Instant::from_nanos(second << 30);
            assert!(!of_clock(now).is_multiple_of(2) && of_clock(now) <= GENERATION);
            assert_ne!(of_clock(now), of_clock(now + SECOND));
        }
    }

    #[test]
    fn a_daemon_that_is_silent_is_gone() {
        let beat = Instant::from_nanos(1_000_000_000_000);
        let heartbeat = seconds(beat);
        for (age, alive) in [(0, true), (2, true), (5, false), (1_000, false)] {
            assert_eq!(is_alive(heartbeat, beat + SECOND * age), alive, "{age}");
        }
        // The program's clock may lag.
        assert!(is_alive(heartbeat + 1, beat));
        assert!(!is_alive(0, beat), "it has never been there");
    }

    #[test]
    fn a_number_holds_both_parts() {
        let number = number(0x00ab_cdef, 48);
        assert_eq!((generation(number), shared_bits(number)), (0xab_cdef, 48));
    }
}
