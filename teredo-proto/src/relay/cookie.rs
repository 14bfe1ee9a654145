//! The source address of the relay's bubbles: a keyed hash of the destination, so that the bubble
//! that answers it proves that it arrived (requirements ).

use std::time::Duration;

use teredo_common::{
    cookie::{self, CookieKey, Sent},
    time::Instant,
};

/// The secrets of one run of the relay, or of all relays of a fleet (F-02).
#[derive(Debug)]
pub struct Cookie {
    key: CookieKey,
    /// Keys of cookies that are valid as well.
    others: Vec<CookieKey>,
    /// Time that the clock does not count.
    skipped: Duration,
    /// The largest difference to the clocks of other relays.
    skew: Duration,
}

impl Cookie {
    /// Creates cookies from a key, which comes from a cryptographic random number generator.
    pub fn new(key: CookieKey) -> Self {
        Self {
            key,
            others: Vec::new(),
            skipped: Duration::ZERO,
            skew: Duration::ZERO,
        }
    }

    /// Shares cookies with relays whose clocks differ by `skew` at most (F-02). The first key is for
    /// new cookies; without any, nothing changes.
    pub fn share(&mut self, keys: &[CookieKey], skew: Duration) {
        if let [first, others @ ..] = keys {
            self.key = *first;
            self.others = others.to_vec();
            self.skew = skew;
        }
    }

    /// Returns the key of new cookies.
    pub fn key(&self) -> CookieKey {
        self.key
    }

    /// Returns the time by which cookies are older than the clock says.
    pub fn skipped(&self) -> Duration {
        self.skipped
    }

    /// Returns the same time for cookies that arrive, of which the newest are those of the relay whose
    /// clock is ahead most.
    pub fn skipped_at_most(&self) -> Duration {
        self.skipped.saturating_add(self.skew)
    }

    /// Lets cookies age by a time that the clock does not count.
    pub fn skip(&mut self, duration: Duration) {
        self.set_skipped(self.skipped.saturating_add(duration));
    }

    /// Sets the time that the clock does not count.
    pub fn set_skipped(&mut self, skipped: Duration) {
        self.skipped = skipped;
    }

    /// Returns the link-local source address of a bubble to `peer` at `now`.
    pub fn source(&self, now: Instant, sent: Sent, peer: &[u8; 16]) -> [u8; 16] {
        let epoch = epoch(now, self.skipped);
        let identifier = self.key.interface_identifier(epoch, sent, words(peer));
        bytemuck::cast([cookie::PREFIX, identifier])
    }

    /// Whether `destination` is the source of a bubble that was sent to `peer` this way, in this
    /// epoch or the one before.
    pub fn proves(
        &self,
        now: Instant,
        sent: Sent,
        peer: &[u8; 16],
        destination: &[u8; 16],
    ) -> bool {
        let [prefix, identifier] = words(destination);
        let identifier = identifier.to_ne_bytes();
        prefix == cookie::PREFIX && self.proves_identifier(now, sent, peer, identifier)
    }

    /// As [`Cookie::proves`], for the interface identifier alone.
    pub fn proves_identifier(
        &self,
        now: Instant,
        sent: Sent,
        peer: &[u8; 16],
        identifier: [u8; 8],
    ) -> bool {
        let identifier = u64::from_ne_bytes(identifier);
        // By the clock that is ahead most, so that no epoch is still to come.
        let epoch = epoch(now, self.skipped_at_most());
        let mut keys = std::iter::once(&self.key).chain(&self.others);
        keys.any(|key| key.proves(epoch, sent, words(peer), identifier))
    }
}

fn epoch(now: Instant, skipped: Duration) -> u64 {
    let skipped = u64::try_from(skipped.as_nanos()).unwrap_or(u64::MAX);
    cookie::epoch(now, skipped)
}

/// Returns an address as two words in memory order.
fn words(address: &[u8; 16]) -> [u64; 2] {
    bytemuck::cast(*address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use teredo_common::scope::is_link_local;

    use super::*;

    const EPOCH: Duration = Duration::from_nanos(cookie::EPOCH);
    const START: Instant = Instant::from_nanos(10 * cookie::EPOCH);
    const PEER: [u8; 16] = [0x20; 16];

    #[test]
    fn r12_current_and_previous_epoch_are_valid() {
        let cookie = Cookie::new(CookieKey([7; 2]));
        let source = cookie.source(START, Sent::Indirectly, &PEER);
        let proves = |now| cookie.proves(now, Sent::Indirectly, &PEER, &source);
        assert!(proves(START));
        assert!(proves(START + Duration::from_secs(127)));
        assert!(!proves(START + Duration::from_secs(128)));
        assert!(!proves(START - Duration::from_secs(1)));
    }

    #[test]
    fn p04_suspension_ends_cookies() {
        let mut cookie = Cookie::new(CookieKey([7; 2]));
        let source = cookie.source(START, Sent::Indirectly, &PEER);
        cookie.skip(2 * EPOCH);
        assert!(!cookie.proves(START, Sent::Indirectly, &PEER, &source));
        let source = cookie.source(START, Sent::Indirectly, &PEER);
        assert!(cookie.proves(START, Sent::Indirectly, &PEER, &source));
    }

    #[test]
    fn f02_relays_with_the_same_key_know_each_others_cookies() {
        const SKEW: Duration = Duration::from_secs(5);
        let relay = |key: &[CookieKey], ahead: u64| {
            let mut cookie = Cookie::new(CookieKey([1; 2]));
            cookie.share(key, SKEW);
            cookie.set_skipped(Duration::from_secs(1_000_000 + ahead));
            cookie
        };
        let (old, new) = (CookieKey([7; 2]), CookieKey([8; 2]));
        // Moments on all sides of the border of an epoch.
        for second in 0..128 {
            let now = START + Duration::from_secs(second);
            for ahead in 0..=10 {
                // Each is at most five seconds from the other.
                let (one, other) = (relay(&[old], 5), relay(&[new, old], ahead));
                let source = one.source(now, Sent::Indirectly, &PEER);
                let proves = |later| {
                    let later = now + Duration::from_secs(later);
                    other.proves(later, Sent::Indirectly, &PEER, &source)
                };
                assert!(proves(0) && proves(53), "{second} {ahead}");
                assert!(!proves(138), "{second} {ahead}");
            }
        }
    }

    proptest! {
        #[test]
        fn r12_cookies_are_link_local_addresses(key: [u64; 2], peer: [u8; 16], now: u64) {
            let now = Instant::from_nanos(now);
            let cookie = Cookie::new(CookieKey(key));
            let source = cookie.source(now, Sent::Indirectly, &peer);
            prop_assert!(is_link_local(&source));
            prop_assert!(cookie.proves(now, Sent::Indirectly, &peer, &source));
            let mut other = source;
            other[1] ^= 0x40;
            prop_assert!(!cookie.proves(now, Sent::Indirectly, &peer, &other));
        }
    }
}
