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
//! All destinations in a bucket that agree in their first [`shared_bits`] bits have the same route, as far as
//! the daemon knows. If that leads to a gateway, they have the same next hop, too. Fewer bits than those of a bucket
//! are shared with other buckets, and so is the generation: [`Family::common`].

use core::time::Duration;

use crate::{maps::Route, time::Instant};

/// Buckets of destinations of one family.
pub const BUCKETS: usize = 1 << 16;
/// The index of the time when the daemon last showed that it lives, in units of [`SECOND`].
pub const HEARTBEAT: usize = 0;
/// The index of two numbers that are [`Sets`](crate::peers::Sets).
pub const SETS: usize = HEARTBEAT + 2;
/// The index of the first number of two [`Route`]s, one for each family: many that share it.
pub const FIRST_ROUTES: usize = SETS + 2;
/// Numbers of 32 bits in a route.
const ROUTE: usize = size_of::<Route>() / 4;
/// The index of the first generation: those that the buckets of a family share, one for each family, and then those of the
/// buckets, with the families in the same order.
pub const FIRST_GENERATION: usize = FIRST_ROUTES + 2 * ROUTE;
/// The index of the generation of the first bucket.
pub const FIRST_BUCKET: usize = FIRST_GENERATION + 2;
/// Numbers of 32 bits in the map: the generations, and in front of them what else almost every packet needs, so that
/// one look-up finds all of it.
pub const NUMBERS: usize = FIRST_BUCKET + 2 * BUCKETS;

/// The version of a destination's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Returns the bits of a prefix whose addresses share a bucket; in IPv6, with those of others.
    #[inline(always)]
    pub const fn bucket_bits(self) -> u8 {
        match self {
            Self::Ipv4 => 16,
            Self::Ipv6 => 32,
        }
    }

    /// Returns the most bits of a prefix whose addresses share a next hop.
    pub const fn shared_bits_max(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 64,
        }
    }

    /// Returns the number of the bucket of a destination that begins with this word in network byte order, over the
    /// buckets of both families.
    #[inline(always)]
    pub const fn bucket(self, first: u32) -> u32 {
        match self {
            Self::Ipv4 => u32::from_be(first) >> 16,
            Self::Ipv6 => (u32::from_be(first).wrapping_mul(0x9e37_79b1) >> 16) + BUCKETS as u32,
        }
    }

    /// Returns the index of the generation of next hops that buckets share.
    #[inline(always)]
    pub const fn common(self) -> usize {
        FIRST_GENERATION + self as usize
    }

    /// Returns the index of the first number of the family's route that is looked at before all others.
    #[inline(always)]
    pub const fn first_route(self) -> usize {
        FIRST_ROUTES + self as usize * ROUTE
    }
}

/// About a second, the unit of [`HEARTBEAT`].
pub const SECOND: Duration = Duration::from_nanos(1 << 30);
/// The [`silence`] beyond which the daemon counts as gone.
pub const SILENCE: u32 = 4;
/// The longest time for which a next hop is used without another look at the kernel's tables, while the
/// daemon lives.
pub const LIFETIME: Duration = Duration::from_secs(16);

/// The bits of a generation.
pub const GENERATION: u32 = 0x00ff_ffff;
/// The position of the shared bits in the number of a bucket.
const SHIFT: u32 = 24;
/// The flag of a bucket with destinations on the link, which are looked for one by one before those that share a next
/// hop.
const ON_LINK: u8 = 1 << 7;

/// Returns the generation in the number of a bucket.
#[inline(always)]
pub const fn generation(number: u32) -> u32 {
    number & GENERATION
}

/// Returns how many bits of a destination determine its route, up to [`Family::shared_bits_max`]; zero if all of
/// them do.
#[inline(always)]
pub const fn shared_bits(number: u32) -> u8 {
    (number >> SHIFT) as u8 & !ON_LINK
}

/// Whether some destinations of a bucket are on the link.
#[inline(always)]
pub const fn is_on_link(number: u32) -> bool {
    (number >> SHIFT) as u8 & ON_LINK != 0
}

/// Returns the number of a bucket.
pub const fn number(generation: u32, shared_bits: u8, is_on_link: bool) -> u32 {
    let bits = shared_bits | if is_on_link { ON_LINK } else { 0 };
    generation & GENERATION | (bits as u32) << SHIFT
}

/// Returns the same number with the next generation.
pub const fn raised(number: u32) -> u32 {
    number & !GENERATION | next(generation(number))
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

/// Returns the age of a heartbeat, in units of [`SECOND`], plus one.
#[inline(always)]
pub const fn silence(heartbeat: u32, now: Instant) -> u32 {
    // The daemon's clock is finer than the program's, and may be one ahead.
    seconds(now).wrapping_add(1).wrapping_sub(heartbeat)
}

/// Returns the heartbeat of a daemon that has just gone at this time.
pub const fn gone(now: Instant) -> u32 {
    seconds(now).saturating_sub(SILENCE)
}

/// Returns the heartbeat of this time.
#[inline(always)]
pub const fn seconds(now: Instant) -> u32 {
    (now.as_nanos() / SECOND.as_nanos() as u64) as u32
}

const _: () = {
    assert!(FIRST.is_multiple_of(2));
    assert!(SETS.is_multiple_of(2) && FIRST_ROUTES.is_multiple_of(2));
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbouring_prefixes_have_buckets_of_their_own() {
        let buckets: BTreeSet<_> = (0..10_000_u32)
            .map(|number| Family::Ipv6.bucket((0x2400_0000 + number).to_be()))
            .collect();
        assert!(buckets.len() > 8_000, "{}", buckets.len());
        assert_eq!(
            Family::Ipv4.bucket(u32::from_ne_bytes([9, 8, 7, 6])),
            0x0908
        );
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
        let is_alive = |heartbeat, now| silence(heartbeat, now) <= SILENCE;
        for (age, alive) in [(0, true), (2, true), (5, false), (1_000, false)] {
            assert_eq!(is_alive(heartbeat, beat + SECOND * age), alive, "{age}");
        }
        // The program's clock may lag.
        assert!(is_alive(heartbeat + 1, beat));
        assert!(!is_alive(0, beat), "it has never been there");
        assert!(!is_alive(gone(beat), beat));
    }

    #[test]
    fn a_number_holds_both_parts() {
        for is_link in [false, true] {
            let number = number(0x00ab_cdef, 48, is_link);
            assert_eq!((generation(number), shared_bits(number)), (0xab_cdef, 48));
            assert_eq!(is_on_link(number), is_link);
            assert_eq!(generation(raised(number)), next(0xab_cdef));
            assert_eq!(
                (shared_bits(raised(number)), is_on_link(raised(number))),
                (48, is_link)
            );
        }
    }
}
