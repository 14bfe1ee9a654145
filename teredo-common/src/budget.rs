//! The budget of what the XDP program passes to the daemon, so that floods end in the driver
//! (requirements L-20 to L-22).
//!
//! Every packet that the program leaves to the daemon belongs to a [`Class`], by what speaks for
//! its honesty. A class has an [`Allowance`] in packets per second: for the networks that its
//! source is in, for everything, and, once that is used up, for those who try again. Packets beyond
//! it are dropped.
//!
//! - **Networks.** What one network sends takes from three buckets: those of an IPv4 address, /24
//!   and /16, or of an IPv6 /64, /48 and /32. They matter as soon as half of the burst of the class is
//!   used up: a flood from one network then leaves the rest to others, while without a flood
//!   nobody is held back.
//! - **Those who try again.** Forged sources are all over, and none comes back; somebody who waits
//!   for an answer repeats the packet after a second or more. Packets that were refused for want
//!   of tokens leave four bits in a [`FILTER`], and the same packet again within [`PERIOD`] to twice
//!   that passes from an allowance of its own.
//!
//! All state is in one array of words, [`WORDS`] long. Buckets are those of [`crate::limiter`].

use bytemuck::{Pod, Zeroable};

use crate::{limiter::Rate, time::Instant};

/// The packets that are limited together.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// To the relay's endpoint: nothing speaks for it.
    Other = 0,
    /// To the relay's endpoint, from the endpoint in its Teredo address.
    Claim = 1,
    /// To the relay's endpoint: a bubble that answers one of the relay's.
    Cookie = 2,
    /// To the relay's endpoint, from the mapping of a peer in the map.
    Peer = 3,
    /// To the relay's address, with the ports elsewhere than usual or absent: fragments and IPv4
    /// options.
    Fragment = 4,
    /// To the server: solicitations of clients with a key, fragments, and others that only the daemon
    /// can judge.
    Server = 5,
    /// From native hosts to peers that are not in the map, and of whose server no client has
    /// answered lately.
    Native = 6,
    /// From native hosts to other peers that are not in the map.
    NativeKnown = 7,
    /// From native hosts to peers in the map.
    NativePeer = 8,
}

/// Number of classes.
pub const CLASSES: usize = 9;
/// Number of classes for which there is room. A power of two, so that a verifier sees without a comparison that a number is
/// within.
pub const ROOM: usize = CLASSES.next_power_of_two();
/// Number of networks that a packet takes tokens of.
pub const LEVELS: usize = 3;

/// The rates of one class.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Allowance {
    /// For networks, the smallest first.
    pub networks: [Rate; LEVELS],
    /// For everything; an interval of zero means that nothing is limited.
    pub total: Rate,
    /// For packets beyond [`Allowance::total`] that were refused before.
    pub again: Rate,
}

/// The shares of networks in the rate of a class: an eighth, a quarter and half of it.
const SHARES: [u32; LEVELS] = [8, 4, 2];
/// The burst, as a part of the rate per second: the same for all, so that a network that has used half of
/// the burst of everything has nothing of its own left.
const BURST: u32 = 2;

impl Allowance {
    /// Makes the allowance of `per_second` packets altogether, and as many again for packets that were
    /// refused before. Zero limits nothing.
    pub const fn new(per_second: u32) -> Self {
        if per_second == 0 {
            const NONE: Rate = Rate {
                interval: 0,
                tolerance: 0,
            };
            return Self {
                networks: [NONE; LEVELS],
                total: NONE,
                again: NONE,
            };
        }
        const fn share(per_second: u32, part: u32) -> Rate {
            let rate = per_second.div_ceil(part);
            Rate::new(rate, rate.div_ceil(BURST))
        }
        let [small, medium, large] = SHARES;
        let total = share(per_second, 1);
        Self {
            networks: [
                share(per_second, small),
                share(per_second, medium),
                share(per_second, large),
            ],
            total,
            again: total,
        }
    }
}

/// The constants that the program is loaded with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Budget {
    /// Random, so that an attacker cannot choose networks that share buckets with a victim's.
    pub seed: u64,
    /// The allowances, by [`Class`].
    pub allowances: [Allowance; ROOM],
}

// The array of words.

/// Index of the nanoseconds that the clock has not counted, for [`crate::cookie::epoch`]. The daemon
/// writes it, and the two words of the key.
pub const SKIPPED: u32 = 0;
/// Index of the first of two words with the [`crate::cookie::CookieKey`] of the relay.
pub const KEY: u32 = 1;
/// Index of the first of two words of each class: the buckets of everything and of those who try again.
const TOTALS: u32 = 16;
/// Index of the first time at which a client of a server was last heard.
const SERVERS: u32 = TOTALS + 2 * CLASSES as u32;
/// Index of the first bucket of a network.
const NETWORKS: u32 = SERVERS + (1 << SERVER_BITS);
/// Index of the first word of the two filters of packets that were refused.
pub const FILTER: u32 = NETWORKS + ((CLASSES * LEVELS) << NETWORK_BITS) as u32;
/// Number of words.
pub const WORDS: u32 = FILTER + (2 << FILTER_BITS);

const SERVER_BITS: u32 = 14;
const NETWORK_BITS: u32 = 13;
const FILTER_BITS: u32 = 19;

/// The time in which a filter takes new packets, in nanoseconds. It is remembered for as long again.
pub const PERIOD: u64 = 2_000_000_000;
/// The time for which a server counts as one that has answered, in nanoseconds.
pub const SERVER_LIFETIME: u64 = 600_000_000_000;

const _: () = {
    assert!(size_of::<Allowance>() == 80);
    assert!(size_of::<Budget>() == 8 + 80 * ROOM);
    assert!(SKIPPED < KEY && KEY + 2 <= TOTALS);
};

/// Mixes the bits of a number with the seed: which numbers share a part of the result depends on all of
/// the seed's bits.
#[inline(always)]
pub const fn mix(seed: u64, number: u64) -> u64 {
    let mixed = (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_add(seed.rotate_left(32));
    let mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Class {
    /// Returns the index of the bucket for everything.
    #[inline(always)]
    pub const fn total(self) -> u32 {
        TOTALS + 2 * self as u32
    }

    /// Returns the index of the bucket for those who try again.
    #[inline(always)]
    pub const fn again(self) -> u32 {
        self.total() + 1
    }

    /// Returns the index of the bucket of a network, from the hash of its address.
    #[inline(always)]
    pub const fn network(self, level: u32, hash: u64) -> u32 {
        let table = self as u32 * LEVELS as u32 + level;
        NETWORKS + (table << NETWORK_BITS) + (hash >> (u64::BITS - NETWORK_BITS)) as u32
    }
}

/// Returns the index of the word of a server, from the hash of its address.
#[inline(always)]
pub const fn server(hash: u64) -> u32 {
    SERVERS + (hash >> (u64::BITS - SERVER_BITS)) as u32
}

/// Whether a server that was last heard at `stamp` counts as one that has answered.
#[inline(always)]
pub const fn is_server_known(stamp: u64, now: Instant) -> bool {
    stamp != 0 && now.as_nanos() < stamp.saturating_add(SERVER_LIFETIME)
}

/// The place of a packet in the filters: a word in each, and four of its bits. The upper 16 bits of a word
/// say in which period it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    word: u32,
    bits: u64,
    period: u64,
}

/// Bits of a word that are no part of the period.
const MARKS: u32 = 48;

impl Mark {
    /// Returns the place of a packet with this hash.
    #[inline(always)]
    pub const fn new(hash: u64, now: Instant) -> Self {
        /// Bits of the hash that choose one bit of the word.
        const CHOICE: u32 = 11;
        const {
            assert!(4 * CHOICE + FILTER_BITS <= u64::BITS);
        }
        let one = (hash as u32 % (1 << CHOICE) * MARKS) >> CHOICE;
        let two = ((hash >> CHOICE) as u32 % (1 << CHOICE) * MARKS) >> CHOICE;
        let three = ((hash >> (2 * CHOICE)) as u32 % (1 << CHOICE) * MARKS) >> CHOICE;
        let four = ((hash >> (3 * CHOICE)) as u32 % (1 << CHOICE) * MARKS) >> CHOICE;
        Self {
            word: (hash >> (u64::BITS - FILTER_BITS)) as u32,
            bits: (1 << one) | (1 << two) | (1 << three) | (1 << four),
            // The period of an empty word is zero.
            period: now.as_nanos() / PERIOD + 1,
        }
    }

    /// Returns the indices of the words in the filter of this period, and in that of the one before.
    #[inline(always)]
    pub const fn words(self) -> [u32; 2] {
        let this = (self.period & 1) as u32;
        [
            FILTER + (this << FILTER_BITS) + self.word,
            FILTER + ((1 - this) << FILTER_BITS) + self.word,
        ]
    }

    /// Whether words hold the packet. `words` are those at [`Self::words`].
    #[inline(always)]
    pub const fn is_in(self, words: [u64; 2]) -> bool {
        let [this, before] = words;
        self.holds(this, self.period) || self.holds(before, self.period - 1)
    }

    #[inline(always)]
    const fn holds(self, word: u64, period: u64) -> bool {
        word >> MARKS == period & 0xffff && word & self.bits == self.bits
    }

    /// Returns the first of the words with the packet added.
    #[inline(always)]
    pub const fn add_to(self, word: u64) -> u64 {
        let kept = match word >> MARKS == self.period & 0xffff {
            true => word,
            false => (self.period & 0xffff) << MARKS,
        };
        kept | self.bits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limiter::take;

    extern crate std;
    use std::{
        collections::{HashMap, HashSet},
        vec,
    };

    const CLASS: [Class; CLASSES] = [
        Class::Other,
        Class::Claim,
        Class::Cookie,
        Class::Peer,
        Class::Fragment,
        Class::Server,
        Class::Native,
        Class::NativeKnown,
        Class::NativePeer,
    ];

    #[test]
    fn every_bucket_has_a_word_of_its_own() {
        let mut words = HashSet::from([SKIPPED]);
        for class in CLASS {
            assert!(words.insert(class.total()) && words.insert(class.again()));
            for level in 0..LEVELS as u32 {
                assert!(words.insert(class.network(level, 0)));
                assert!(words.insert(class.network(level, u64::MAX)));
            }
        }
        assert!(words.insert(server(0)) && words.insert(server(u64::MAX)));
        let mark = Mark::new(u64::MAX, Instant::from_nanos(0));
        assert!(mark.words().into_iter().all(|word| words.insert(word)));
        assert_eq!(words.iter().max(), Some(&(WORDS - 1)));
    }

    #[test]
    fn a_network_has_its_share() {
        let allowance = Allowance::new(8000);
        let rate = |rate: Rate| 1_000_000_000 / rate.interval;
        assert_eq!(allowance.networks.map(rate), [1000, 2000, 4000]);
        assert_eq!([allowance.total, allowance.again].map(rate), [8000; 2]);
        assert_eq!(Allowance::new(0), Allowance::default());
        // Rounded up, so that a network is never without any.
        assert!(take(0, Allowance::new(1).networks[0], Instant::from_nanos(1)).is_some());
    }

    #[test]
    fn a_packet_is_remembered_for_one_period_or_two() {
        let at = |nanos| Mark::new(0x1234_5678_9abc_def0, Instant::from_nanos(nanos));
        let mut words = vec![0; WORDS as usize];
        let knows =
            |words: &[u64], mark: Mark| mark.is_in(mark.words().map(|index| words[index as usize]));
        let first = at(9 * PERIOD);
        assert!(!knows(&words, first));
        let [index, _] = first.words();
        words[index as usize] = first.add_to(words[index as usize]);
        assert!(knows(&words, first));
        assert!(knows(&words, at(11 * PERIOD - 1)));
        assert!(!knows(&words, at(11 * PERIOD)));
        assert!(!knows(&words, at(8 * PERIOD)));
    }

    #[test]
    fn a_filter_that_half_a_million_packets_a_second_fill_knows_few_others() {
        let mut words = vec![0; WORDS as usize];
        let mut strangers = 0;
        for number in 0..500_000 * PERIOD / 1_000_000_000 {
            let mark = Mark::new(mix(1, number), Instant::from_nanos(PERIOD));
            let [index, _] = mark.words();
            words[index as usize] = mark.add_to(words[index as usize]);
        }
        for number in 0..100_000 {
            let mark = Mark::new(mix(2, number), Instant::from_nanos(PERIOD));
            let [index, _] = mark.words();
            strangers += u32::from(mark.is_in([words[index as usize], 0]));
        }
        assert!(strangers < 300, "{strangers}");
    }

    #[test]
    fn a_server_that_has_answered_is_known_for_a_while() {
        let now = Instant::from_nanos(10 * SERVER_LIFETIME);
        assert!(!is_server_known(0, Instant::from_nanos(1)));
        assert!(is_server_known(now.as_nanos(), now));
        assert!(!is_server_known(now.as_nanos() - SERVER_LIFETIME, now));
    }

    proptest! {
        #[test]
        fn what_was_added_is_there(hashes in prop::collection::vec(any::<u64>(), 1..50), now: u64) {
            let now = Instant::from_nanos(now);
            let mut words = HashMap::new();
            for &hash in &hashes {
                let mark = Mark::new(hash, now);
                let word: &mut u64 = words.entry(mark.words()[0]).or_default();
                *word = mark.add_to(*word);
            }
            for hash in hashes {
                let mark = Mark::new(hash, now);
                let seen = mark.words().map(|index| words.get(&index).copied().unwrap_or(0));
                prop_assert!(mark.is_in(seen));
            }
        }
    }
}
