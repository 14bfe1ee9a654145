//! The cookies of a relay: link-local addresses that only the receiver of a bubble can know
//! (requirements ).
//!
//! The daemon sends them, and the XDP program recognises them, without any entry for the peer: a
//! cookie is a keyed hash of the peer's address, of the time, and, if it was sent to a mapping,
//! of the mapping.

use bytemuck::{Pod, Zeroable};

use crate::{address::Endpoint, time::Instant};

/// The time for which one hash is used, in nanoseconds. It stays valid for as long again.
pub const EPOCH: u64 = 64_000_000_000;

/// The first half of every cookie: fe80::/64, network byte order.
pub const PREFIX: u64 = u64::from_ne_bytes([0xfe, 0x80, 0, 0, 0, 0, 0, 0]);

/// All bits of an interface identifier but universal/local and group (RFC 4291 section 2.5.1).
const FREE: u64 = u64::from_ne_bytes([0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);

/// The way that a cookie took to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Through the peer's server: its return proves that the server's side got it.
    Indirectly,
    /// To this mapping: its return proves that the mapping's side got it.
    To(Endpoint),
}

impl Sent {
    /// A number that no other way has.
    #[inline(always)]
    const fn number(self) -> u64 {
        match self {
            Self::Indirectly => 0,
            Self::To(Endpoint {
                address: [a, b, c, d],
                port: [e, f],
            }) => u64::from_be_bytes([0, 1, a, b, c, d, e, f]),
        }
    }
}

/// The secret of one relay.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct CookieKey(pub [u64; 2]);

impl CookieKey {
    /// Returns the interface identifier of the cookie for a peer, in memory order. `peer` is its
    /// address as two words in memory order.
    #[inline(always)]
    pub fn interface_identifier(self, epoch: u64, sent: Sent, peer: [u64; 2]) -> u64 {
        let [first, second] = peer;
        let message = [
            u64::from_be(first),
            u64::from_be(second),
            epoch,
            sent.number(),
        ];
        siphash(self.0, message).to_be() & FREE
    }

    /// Whether an interface identifier is that of a cookie sent in this epoch or the one before.
    #[inline(always)]
    pub fn proves(self, epoch: u64, sent: Sent, peer: [u64; 2], identifier: u64) -> bool {
        let now = self.interface_identifier(epoch, sent, peer) ^ identifier;
        let before = self.interface_identifier(epoch.wrapping_sub(1), sent, peer) ^ identifier;
        now == 0 || before == 0
    }
}

impl core::fmt::Debug for CookieKey {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("CookieKey(..)")
    }
}

/// Returns the epoch of a moment. `skipped` is the time that the clock did not count, in
/// nanoseconds.
#[inline(always)]
pub const fn epoch(now: Instant, skipped: u64) -> u64 {
    now.as_nanos().saturating_add(skipped) / EPOCH
}

/// SipHash-2-4 of the message's numbers, each as eight octets, little endian.
///
/// The library that the daemon uses elsewhere takes messages of any length piece by piece, which
/// is too much code for an XDP program.
#[inline(always)]
fn siphash([k0, k1]: [u64; 2], message: [u64; 4]) -> u64 {
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    const LENGTH: u64 = 32 << 56;
    let [a, b, c, d] = message;
    for word in [a, b, c, d, LENGTH] {
        state[3] ^= word;
        round(&mut state);
        round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    let [v0, v1, v2, v3] = state;
    v0 ^ v1 ^ v2 ^ v3
}

#[inline(always)]
fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v2 = v2.wrapping_add(*v3);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v1);
    *v0 = v0.wrapping_add(*v3);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.rotate_left(32);
}

const _: () = assert!(size_of::<CookieKey>() == 16);

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    use super::*;

    const PEER: [u64; 2] = [1, 2];
    const MAPPED: Endpoint = Endpoint {
        address: [9, 0, 0, 1],
        port: [16, 0],
    };

    #[test]
    fn r12_cookies_are_valid_for_one_epoch_or_two() {
        let key = CookieKey([7, 8]);
        let identifier = key.interface_identifier(10, Sent::Indirectly, PEER);
        let proves = |epoch| key.proves(epoch, Sent::Indirectly, PEER, identifier);
        assert!(proves(10) && proves(11));
        assert!(!proves(9) && !proves(12));
    }

    #[test]
    fn p04_time_that_the_clock_does_not_count_makes_cookies_older() {
        let now = Instant::from_nanos(EPOCH);
        assert_eq!(epoch(now, 0), 1);
        assert_eq!(epoch(now, 2 * EPOCH), 3);
        assert_eq!(epoch(Instant::from_nanos(u64::MAX), 1), u64::MAX / EPOCH);
    }

    #[test]
    fn r35_key_peer_way_and_mapping_matter() {
        let key = CookieKey([7, 8]);
        let identifier = key.interface_identifier(10, Sent::To(MAPPED), PEER);
        let proves = |key: CookieKey, sent, peer| key.proves(10, sent, peer, identifier);
        assert!(proves(key, Sent::To(MAPPED), PEER));
        assert!(!proves(CookieKey([7, 9]), Sent::To(MAPPED), PEER));
        assert!(!proves(key, Sent::To(MAPPED), [1, 3]));
        assert!(!proves(key, Sent::Indirectly, PEER));
        for bit in 0..48 {
            let [_, _, a, b, c, d, e, f] = (Sent::To(MAPPED).number() ^ 1 << bit).to_be_bytes();
            let other = Endpoint {
                address: [a, b, c, d],
                port: [e, f],
            };
            assert!(!proves(key, Sent::To(other), PEER));
        }
    }

    proptest! {
        #[test]
        fn r12_the_hash_is_siphash(key: [u64; 2], message: [u64; 4]) {
            let mut expected = SipHasher24::new_with_keys(key[0], key[1]);
            for word in message {
                expected.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash(key, message), expected.finish());
        }

        #[test]
        fn r12_universal_and_group_bits_are_clear(key: [u64; 2], epoch: u64, peer: [u64; 2]) {
            let identifier = CookieKey(key).interface_identifier(epoch, Sent::Indirectly, peer);
            prop_assert_eq!(identifier.to_ne_bytes()[0] & 3, 0);
        }
    }
}
