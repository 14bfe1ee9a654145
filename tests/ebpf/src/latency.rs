//! The time that packets take from generator to sink: a stamp in each, and a histogram.

/// Octets of the payload that hold the stamp: nanoseconds modulo 2^32, or the number of the packet, in the
/// machine's byte order, and the complement, so that no checksum depends on it.
pub const ROOM: [u8; 8] = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

/// Number of buckets of the histogram.
pub const BUCKETS: u32 = 512;
/// Buckets for each power of two.
const STEPS: u32 = 16;

/// Returns the bucket of a latency in nanoseconds. Its bounds are within 1/16 of each other.
#[inline(always)]
pub const fn bucket(nanoseconds: u32) -> u32 {
    if nanoseconds < STEPS {
        return nanoseconds;
    }
    let power = nanoseconds.ilog2();
    let step = (nanoseconds >> (power - STEPS.ilog2())) & (STEPS - 1);
    (power - STEPS.ilog2() + 1) * STEPS + step
}

/// Returns the least latency of a bucket in nanoseconds.
pub const fn least(bucket: u32) -> u32 {
    if bucket < STEPS {
        return bucket;
    }
    let (power, step) = (bucket / STEPS - 1, bucket % STEPS);
    (STEPS + step) << power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_begin_with_their_least() {
        for number in 0..bucket(u32::MAX) {
            assert_eq!(bucket(least(number)), number);
            assert_eq!(bucket(least(number + 1) - 1), number);
        }
        assert!(bucket(u32::MAX) < BUCKETS);
        assert_eq!(bucket(1000), bucket(1007));
    }
}
