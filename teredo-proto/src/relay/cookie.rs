//! The source address of the relay's bubbles: a keyed hash of the destination, so that the bubble
//! that answers it proves that it arrived (requirements ).

use std::time::Duration;

use teredo_common::{
    cookie::{self, CookieKey, Sent},
    time::Instant,
};

/// The secret of one run of the relay.
#[derive(Debug)]
pub struct Cookie {
    key: CookieKey,
    /// Time that the clock does not count.
    skipped: Duration,
}

impl Cookie {
    /// Creates cookies from a key, which comes from a cryptographic random number generator.
    pub fn new(key: CookieKey) -> Self {
        Self {
            key,
            skipped: Duration::ZERO,
        }
    }

    /// Returns the key.
    pub fn key(&self) -> CookieKey {
        self.key
    }

    /// Returns the time by which cookies are older than the clock says.
    pub fn skipped(&self) -> Duration {
        self.skipped
    }

    /// Lets cookies age by a time that the clock does not count.
    pub fn skip(&mut self, duration: Duration) {
        self.skipped = self.skipped.saturating_add(duration);
    }

    /// Returns the link-local source address of a bubble to `peer` at `now`.
    pub fn source(&self, now: Instant, sent: Sent, peer: &[u8; 16]) -> [u8; 16] {
        let epoch = self.epoch(now);
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
        (self.key).proves(self.epoch(now), sent, words(peer), identifier)
    }

    fn epoch(&self, now: Instant) -> u64 {
        let skipped = u64::try_from(self.skipped.as_nanos()).unwrap_or(u64::MAX);
        cookie::epoch(now, skipped)
    }
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
