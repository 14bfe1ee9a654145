//! The memory of the bubbles sent to a peer or an endpoint, and the limits on sending more (P-09,
//! L-12).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use teredo_common::{address::Endpoint, time::Instant};

use crate::shared::keyed::Keyed;

/// The least time between two bursts to the same peer.
pub const GAP: Duration = Duration::from_secs(2);
/// Bursts within [`WINDOW`] that may stay without answer.
pub const MAX_UNANSWERED: usize = 4;
/// See [`MAX_UNANSWERED`].
pub const WINDOW: Duration = Duration::from_secs(300);
/// The reason why a burst must not be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too soon after the last one; it may be sent at this time.
    TooSoon(Instant),
    /// Too many stayed without answer.
    Exhausted,
}

/// The latest bursts to one peer. All bubbles that one trigger sends are one burst.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// Newest first.
    bursts: [Instant; MAX_UNANSWERED],
    /// How many of `bursts` count as unanswered; saturates at [`MAX_UNANSWERED`].
    unanswered: usize,
}

impl History {
    /// Whether another burst may be sent.
    pub fn check(&self, now: Instant) -> Result<(), Refused> {
        let [last, .., oldest] = self.bursts;
        if self.unanswered == MAX_UNANSWERED && now.saturating_since(oldest) < WINDOW {
            return Err(Refused::Exhausted);
        }
        if last != Instant::ZERO && now.saturating_since(last) < GAP {
            return Err(Refused::TooSoon(last + GAP));
        }
        Ok(())
    }

    /// Records a burst sent now.
    pub fn sent(&mut self, now: Instant) {
        self.bursts.rotate_right(1);
        self.bursts[0] = now;
        self.unanswered = (self.unanswered + 1).min(MAX_UNANSWERED);
    }

    /// Records that the last burst ended only now.
    pub fn ended(&mut self, now: Instant) {
        self.bursts[0] = now;
    }

    /// Records that a packet came directly from the peer.
    pub fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Returns the time of the last burst; [`Instant::ZERO`] if there was none.
    pub fn last(&self) -> Instant {
        self.bursts[0]
    }
}

/// [`History`] for endpoints, so that many IPv6 addresses that embed one endpoint do not multiply
/// the bubbles sent to it (L-12). Forgets the oldest endpoints first.
#[derive(Debug)]
pub struct Histories {
    capacity: usize,
    histories: HashMap<Endpoint, History, Keyed>,
    order: VecDeque<Endpoint>,
}

impl Histories {
    pub(crate) fn new(capacity: usize, keyed: Keyed) -> Self {
        Self {
            capacity,
            histories: HashMap::with_hasher(keyed),
            order: VecDeque::new(),
        }
    }

    /// Whether a bubble may be sent to `endpoint`; if so, records it as sent.
    pub fn take(&mut self, endpoint: Endpoint, now: Instant) -> bool {
        if let Some(history) = self.histories.get_mut(&endpoint) {
            let permitted = history.check(now).is_ok();
            if permitted {
                history.sent(now);
            }
            return permitted;
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.histories.remove(&oldest);
        }
        let mut history = History::default();
        history.sent(now);
        self.histories.insert(endpoint, history);
        self.order.push_back(endpoint);
        true
    }

    /// As [`Histories::take`], for a bubble that may also belong to the last burst.
    pub fn take_again(&mut self, endpoint: Endpoint, now: Instant) -> bool {
        let last = self.histories.get(&endpoint).map(History::last);
        let is_same = last.is_some_and(|last| now.saturating_since(last) < GAP);
        is_same || self.take(endpoint, now)
    }

    /// Records that a packet came directly from `endpoint`.
    pub fn answered(&mut self, endpoint: Endpoint) {
        if let Some(history) = self.histories.get_mut(&endpoint) {
            history.answered();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    const START: Instant = Instant::from_nanos(1_000_000_000_000);

    fn at(milliseconds: u64) -> Instant {
        START + Duration::from_millis(milliseconds)
    }

    #[test]
    fn p02_the_first_burst_is_never_refused() {
        assert_eq!(History::default().check(Instant::from_nanos(1)), Ok(()));
    }

    #[test]
    fn p09_two_seconds_between_bursts() {
        let mut history = History::default();
        history.sent(at(0));
        assert_eq!(history.check(at(1_999)), Err(Refused::TooSoon(at(2_000))));
        assert_eq!(history.check(at(2_000)), Ok(()));
        history.answered();
        assert_eq!(
            history.check(at(1_999)),
            Err(Refused::TooSoon(at(2_000))),
            "an answer does not shorten the gap"
        );
    }

    #[test]
    fn p09_four_in_three_hundred_seconds_without_answer() {
        let mut history = History::default();
        for second in [0, 100, 200, 290] {
            assert_eq!(history.check(at(second * 1000)), Ok(()));
            history.sent(at(second * 1000));
        }
        assert_eq!(history.check(at(299_999)), Err(Refused::Exhausted));
        assert_eq!(history.check(at(300_000)), Ok(()));
        history.sent(at(300_000));
        assert_eq!(history.check(at(399_000)), Err(Refused::Exhausted));
        history.answered();
        assert_eq!(history.check(at(399_000)), Ok(()));
    }

    #[test]
    fn l12_histories_of_endpoints_are_bounded() {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        let mut histories = Histories::new(10, keyed);
        for port in 1..=50 {
            let endpoint = Endpoint::new([9, 0, 0, 1].into(), port);
            assert!(histories.take(endpoint, at(0)));
            assert!(!histories.take(endpoint, at(1_000)));
            assert!(histories.histories.len() <= 10);
            assert_eq!(histories.histories.len(), histories.order.len());
        }
    }

    proptest! {
        #[test]
        fn p09_no_history_exceeds_the_limits(
            steps in prop::collection::vec((0_u64..90_000, prop::bool::weighted(0.1)), 1..200)
        ) {
            let mut history = History::default();
            let mut now = START;
            let mut sent: Vec<Instant> = Vec::new();
            let mut since_answer = 0;
            for (gap, answer) in steps {
                now += Duration::from_millis(gap);
                if answer {
                    history.answered();
                    since_answer = sent.len();
                }
                let too_soon = sent.last().is_some_and(|&last| now.saturating_since(last) < GAP);
                let recent = sent[since_answer..]
                    .iter()
                    .filter(|&&burst| now.saturating_since(burst) < WINDOW)
                    .count();
                let expected = !too_soon && recent < MAX_UNANSWERED;
                prop_assert_eq!(history.check(now).is_ok(), expected);
                if expected {
                    history.sent(now);
                    sent.push(now);
                }
            }
        }
    }
}
