//! The source address of the relay's bubbles: a keyed hash of the destination, so that the bubble
//! that answers it proves that it arrived (requirements ).

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use teredo_common::time::Instant;

/// The time for which one hash is used; it stays valid for as long again.
pub const EPOCH: Duration = Duration::from_secs(64);

/// Universal/local and group bits of an interface identifier (RFC 4291 section 2.5.1).
const UNIVERSAL_AND_GROUP: u8 = 0x03;

/// The secret of one run of the relay.
pub struct Cookie {
    hmac: Hmac<Md5>,
    /// Time that the clock does not count.
    skipped: Duration,
}

impl Cookie {
    /// Creates cookies from a key, which comes from a cryptographic random number generator.
    pub fn new(key: [u8; 16]) -> Self {
        let hmac = Hmac::new_from_slice(&key).expect("HMAC takes keys of any length");
        Self {
            hmac,
            skipped: Duration::ZERO,
        }
    }

    /// Lets cookies age by a time that the clock does not count.
    pub fn skip(&mut self, duration: Duration) {
        self.skipped = self.skipped.saturating_add(duration);
    }

    /// Returns the link-local source address of a bubble to `peer` at `now`.
    pub fn source(&self, now: Instant, peer: &[u8; 16]) -> [u8; 16] {
        self.at(self.epoch(now), peer)
    }

    /// Whether `destination` is the source of a bubble sent to `peer` in this epoch or the one
    /// before.
    pub fn proves(&self, now: Instant, peer: &[u8; 16], destination: &[u8; 16]) -> bool {
        let epoch = self.epoch(now);
        let previous = epoch.checked_sub(1);
        std::iter::once(epoch)
            .chain(previous)
            .any(|epoch| is_equal(&self.at(epoch, peer), destination))
    }

    fn epoch(&self, now: Instant) -> u64 {
        (now + self.skipped).as_nanos() / EPOCH.as_nanos() as u64
    }

    fn at(&self, epoch: u64, peer: &[u8; 16]) -> [u8; 16] {
        let mut hmac = self.hmac.clone();
        hmac.update(peer);
        hmac.update(&epoch.to_be_bytes());
        let hash = hmac.finalize().into_bytes();
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0xfe, 0x80]);
        address[8..].copy_from_slice(&hash[..8]);
        address[8] &= !UNIVERSAL_AND_GROUP;
        address
    }
}

impl std::fmt::Debug for Cookie {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cookie(..)")
    }
}

/// Compares in constant time: the number of octets guessed right must not show.
fn is_equal(one: &[u8; 16], other: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*one) ^ u128::from_ne_bytes(*other) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use teredo_common::scope::is_link_local;

    const START: Instant = Instant::from_nanos(640_000_000_000);

    #[test]
    fn r12_current_and_previous_epoch_are_valid() {
        let cookie = Cookie::new([7; 16]);
        let peer = [0x20; 16];
        let source = cookie.source(START, &peer);
        assert!(cookie.proves(START, &peer, &source));
        assert!(cookie.proves(START + Duration::from_secs(127), &peer, &source));
        assert!(!cookie.proves(START + Duration::from_secs(128), &peer, &source));
        assert!(!cookie.proves(START - Duration::from_secs(1), &peer, &source));
    }

    #[test]
    fn p04_suspension_ends_cookies() {
        let mut cookie = Cookie::new([7; 16]);
        let source = cookie.source(START, &[1; 16]);
        cookie.skip(2 * EPOCH);
        assert!(!cookie.proves(START, &[1; 16], &source));
        let source = cookie.source(START, &[1; 16]);
        assert!(cookie.proves(START, &[1; 16], &source));
    }

    #[test]
    fn r12_the_first_epoch_has_none_before_it() {
        let cookie = Cookie::new([7; 16]);
        assert!(!cookie.proves(Instant::ZERO, &[1; 16], &[2; 16]));
    }

    #[test]
    fn r12_peer_and_key_matter() {
        let cookie = Cookie::new([7; 16]);
        let source = cookie.source(START, &[1; 16]);
        assert!(!cookie.proves(START, &[2; 16], &source));
        assert!(!Cookie::new([8; 16]).proves(START, &[1; 16], &source));
    }

    proptest! {
        #[test]
        fn r12_link_local_without_universal_and_group_bits(key: [u8; 16], peer: [u8; 16], now: u64) {
            let now = Instant::from_nanos(now);
            let cookie = Cookie::new(key);
            let source = cookie.source(now, &peer);
            prop_assert!(is_link_local(&source));
            prop_assert_eq!(&source[2..8], &[0; 6]);
            prop_assert_eq!(source[8] & 3, 0);
            prop_assert!(cookie.proves(now, &peer, &source));
        }
    }
}
