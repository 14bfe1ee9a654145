//! The limits on unsolicited packets (C-58, L-12, R-16).

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use super::super::Config;
use crate::shared::{
    keyed::Keyed,
    limiter::{Bucket, Rate, SavedBuckets, Tiers},
    peers::{Histories, History, Patience},
};

/// Number of endpoints whose bubbles are remembered: as many as there are bubbles to at the total
/// rate by default, in the time for which they count.
const ENDPOINTS: usize = 16_384;

/// The token buckets, and the memory of bubbles by endpoint.
#[derive(Debug)]
pub struct Limits {
    test_rate: Rate,
    tests: Bucket,
    unreachable_rate: Rate,
    unreachable: Bucket,
    direct: Tiers,
    endpoints: Histories,
    /// Answers to relays.
    relays: Histories,
}

/// The state of [`Limits`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SavedLimits {
    tests: Bucket,
    unreachable: Bucket,
    direct: Vec<SavedBuckets>,
    endpoints: Vec<(Endpoint, History)>,
    relays: Vec<(Endpoint, History)>,
}

impl Limits {
    pub fn new(config: &Config, keyed: Keyed) -> Self {
        Self {
            test_rate: config.test_rate,
            tests: Bucket::default(),
            unreachable_rate: config.unreachable_rate,
            unreachable: Bucket::default(),
            direct: config.direct_bubble_rates.tiers(keyed),
            endpoints: Histories::new(ENDPOINTS, Patience::Window, keyed),
            relays: Histories::new(ENDPOINTS, Patience::BackOff, keyed),
        }
    }

    /// Returns the levels of the buckets, and the bubbles that are remembered.
    pub fn save(&self, now: Instant) -> SavedLimits {
        SavedLimits {
            tests: self.tests,
            unreachable: self.unreachable,
            direct: self.direct.save(now),
            endpoints: self.endpoints.save(),
            relays: self.relays.save(),
        }
    }

    /// Sets what was stored.
    pub fn restore(&mut self, saved: &SavedLimits) {
        self.tests = saved.tests;
        self.unreachable = saved.unreachable;
        self.direct.restore(&saved.direct);
        self.endpoints.restore(&saved.endpoints);
        self.relays.restore(&saved.relays);
    }

    /// Whether a connectivity test may be sent.
    pub fn take_test(&mut self, now: Instant) -> bool {
        self.tests.take(self.test_rate, now)
    }

    /// Whether the host may be informed that a destination is unreachable.
    pub fn take_unreachable(&mut self, now: Instant) -> bool {
        self.unreachable.take(self.unreachable_rate, now)
    }

    /// Whether a bubble that begins a burst may be sent to this endpoint, regardless of the IPv6
    /// address.
    pub fn take_direct(&mut self, to: Endpoint, now: Instant) -> bool {
        self.endpoints.take(to, now) && self.direct.take(&to.address, now)
    }

    /// Whether a bubble that ends a burst may be sent: it may follow another one to the same
    /// endpoint.
    pub fn take_answer(&mut self, to: Endpoint, now: Instant) -> bool {
        self.endpoints.take_again(to, now) && self.direct.take(&to.address, now)
    }

    /// Whether a relay's bubble may be answered. Bubbles that others forge in a relay's name must not
    /// silence this client towards it for minutes.
    pub fn take_relay(&mut self, relay: Endpoint, now: Instant) -> bool {
        self.relays.take(relay, now) && self.direct.take(&relay.address, now)
    }

    /// As [`Limits::take_relay`], for another bubble within two seconds.
    pub fn take_relay_again(&mut self, relay: Endpoint, now: Instant) -> bool {
        self.relays.take_again(relay, now) && self.direct.take(&relay.address, now)
    }

    /// Records that a packet came directly from `endpoint`.
    pub fn answered(&mut self, endpoint: Endpoint) {
        self.endpoints.answered(endpoint);
        self.relays.answered(endpoint);
    }
}
