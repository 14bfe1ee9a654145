//! The generations of cached next hops: one for each bucket of destinations, so that a change of a route
//! invalidates only the hops of destinations near its own.
//!
//! The destinations of a route are those of one bucket, or of several if its prefix is short. Routes of
//! the internet change all the time, most of them far away from the hosts that packets go to.

/// Buckets of destinations.
pub const GENERATIONS: usize = 1 << 16;

/// Bits of an IPv4 prefix whose addresses share a bucket.
pub const IPV4_BITS: u8 = 16;
/// Bits of an IPv6 prefix whose addresses share a bucket, with those of others.
pub const IPV6_BITS: u8 = 32;

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
}
