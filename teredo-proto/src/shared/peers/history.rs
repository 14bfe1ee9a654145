//! The memory of the bubbles sent to a peer or an endpoint, and the limits on sending more (P-09,
//! L-12).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use teredo_common::{address::Endpoint, time::Instant};

use crate::shared::keyed::Keyed;

/// The least time between two bursts to the same peer.
pub const GAP: Duration = Duration::from_secs(2);
/// Bursts within [`WINDOW`] that may stay without answer.
pub const MAX_UNANSWERED: usize = 4;
/// See [`MAX_UNANSWERED`].
pub const WINDOW: Duration = Duration::from_secs(300);
/// The pause after [`MAX_UNANSWERED`] bursts without answer, with [`Patience::BackOff`]. Each further
/// burst doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(8);
/// Number of endpoints that are examined to find one that may be forgotten.
const EXAMINED: usize = 8;
/// How often a pause is doubled: up to 64 seconds.
const MAX_DOUBLINGS: u8 = 3;

/// The treatment of a peer that left [`MAX_UNANSWERED`] bursts without answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// There is no further burst until the first of them is [`WINDOW`] ago (RFC 4380 section 5.2.6).
    Window,
    /// There are further bursts after pauses of 8, 16, 32 and 64 seconds, and 64 from then on.
    BackOff,
}

/// The reason why a burst must not be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too soon after the last one; it may be sent at this time.
    TooSoon(Instant),
    /// Too many stayed without answer, and the last one was not long ago.
    Exhausted,
}

/// The latest bursts to one peer. All bubbles that one trigger sends are one burst.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Newest first.
    bursts: [Instant; MAX_UNANSWERED],
    /// Number of bursts since the last answer; saturates where it no longer matters.
    unanswered: u8,
}

const _: () = assert!(MAX_UNANSWERED + MAX_DOUBLINGS as usize <= u8::MAX as usize);

impl History {
    /// Whether another burst may be sent.
    pub fn check(&self, now: Instant, patience: Patience) -> Result<(), Refused> {
        let [last, .., oldest] = self.bursts;
        if let Some(excess) = self.unanswered.checked_sub(MAX_UNANSWERED as u8) {
            let is_over = match patience {
                Patience::Window => now.saturating_since(oldest) >= WINDOW,
                Patience::BackOff => {
                    let pause = FIRST_PAUSE * (1 << excess.min(MAX_DOUBLINGS));
                    now.saturating_since(last) >= pause
                }
            };
            if !is_over {
                return Err(Refused::Exhausted);
            }
        }
        if last != Instant::ZERO && now.saturating_since(last) < GAP {
            return Err(Refused::TooSoon(last + GAP));
        }
        Ok(())
    }

    /// Records a burst sent now. After [`WINDOW`] without any, those before do not count.
    pub fn sent(&mut self, now: Instant) {
        if now.saturating_since(self.last()) >= WINDOW {
            self.unanswered = 0;
        }
        self.bursts.rotate_right(1);
        self.bursts[0] = now;
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Records that the last burst ended only now.
    pub fn ended(&mut self, now: Instant) {
        self.bursts[0] = now;
    }

    /// Records that a packet came directly from the peer.
    pub fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Returns the number of bursts since the last answer, a few at most.
    pub fn unanswered(&self) -> u8 {
        self.unanswered
    }

    /// Whether there was a burst since the last answer.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered > 0
    }

    /// Whether the bursts do not count any more: they were answered, or are long ago.
    pub fn is_over(&self, now: Instant) -> bool {
        let memory = match self.is_unanswered() {
            true => WINDOW,
            false => GAP,
        };
        now.saturating_since(self.last()) >= memory
    }

    /// Returns the time of the last burst; [`Instant::ZERO`] if there was none.
    pub fn last(&self) -> Instant {
        self.bursts[0]
    }
}

/// [`History`] for endpoints, so that many IPv6 addresses that embed one endpoint do not multiply
/// the bubbles sent to it (L-12). An endpoint is not forgotten while its bubbles count: if there are
/// too many such endpoints, bubbles to others have to wait, so that nobody can make the memory lose
/// one by naming many.
#[derive(Debug)]
pub struct Histories {
    capacity: usize,
    patience: Patience,
    histories: HashMap<Endpoint, History, Keyed>,
    /// Number of endpoints that owe an answer: mostly none, and then an answer costs no look-up.
    unanswered: usize,
    order: VecDeque<Endpoint>,
}

impl Histories {
    pub(crate) fn new(capacity: usize, patience: Patience, keyed: Keyed) -> Self {
        Self {
            capacity,
            patience,
            histories: HashMap::with_hasher(keyed),
            unanswered: 0,
            order: VecDeque::new(),
        }
    }

    /// Returns the endpoints with their histories, as [`Histories::restore`] takes them.
    pub fn save(&self) -> Vec<(Endpoint, History)> {
        let endpoints = self.order.iter();
        endpoints
            .filter_map(|endpoint| Some((*endpoint, *self.histories.get(endpoint)?)))
            .collect()
    }

    /// Adds the histories that were stored, as far as there is room.
    pub fn restore(&mut self, saved: &[(Endpoint, History)]) {
        for (endpoint, history) in saved {
            if self.order.len() < self.capacity && !self.histories.contains_key(endpoint) {
                self.histories.insert(*endpoint, *history);
                self.order.push_back(*endpoint);
                self.unanswered += usize::from(history.is_unanswered());
            }
        }
    }

    /// Whether a bubble may be sent to `endpoint`; if so, records it as sent.
    pub fn take(&mut self, endpoint: Endpoint, now: Instant) -> bool {
        if let Some(history) = self.histories.get_mut(&endpoint) {
            let permitted = history.check(now, self.patience).is_ok();
            if permitted {
                self.unanswered += usize::from(!history.is_unanswered());
                history.sent(now);
            }
            return permitted;
        }
        if self.order.len() >= self.capacity && !self.forget_one(now) {
            return false;
        }
        let mut history = History::default();
        history.sent(now);
        self.unanswered += 1;
        self.histories.insert(endpoint, history);
        self.order.push_back(endpoint);
        true
    }

    /// Forgets an endpoint whose bubbles do not count any more, if one of the next is such.
    fn forget_one(&mut self, now: Instant) -> bool {
        for _ in 0..EXAMINED {
            let Some(&next) = self.order.front() else {
                return true;
            };
            let history = self.histories.get(&next);
            if history.is_none_or(|history| history.is_over(now)) {
                self.order.pop_front();
                let forgotten = self.histories.remove(&next);
                self.unanswered -= usize::from(forgotten.is_some_and(|one| one.is_unanswered()));
                return true;
            }
            self.order.rotate_left(1);
        }
        false
    }

    /// As [`Histories::take`], for a bubble that may also belong to the last burst.
    pub fn take_again(&mut self, endpoint: Endpoint, now: Instant) -> bool {
        let last = self.histories.get(&endpoint).map(History::last);
        let is_same = last.is_some_and(|last| now.saturating_since(last) < GAP);
        is_same || self.take(endpoint, now)
    }

    /// Records that a packet came directly from `endpoint`.
    pub fn answered(&mut self, endpoint: Endpoint) {
        if self.unanswered == 0 {
            return;
        }
        if let Some(history) = self.histories.get_mut(&endpoint) {
            self.unanswered -= usize::from(history.is_unanswered());
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
        assert_eq!(
            History::default().check(Instant::from_nanos(1), Patience::Window),
            Ok(())
        );
    }

    #[test]
    fn p09_two_seconds_between_bursts() {
        let mut history = History::default();
        history.sent(at(0));
        assert_eq!(
            history.check(at(1_999), Patience::Window),
            Err(Refused::TooSoon(at(2_000)))
        );
        assert_eq!(history.check(at(2_000), Patience::Window), Ok(()));
        history.answered();
        assert_eq!(
            history.check(at(1_999), Patience::Window),
            Err(Refused::TooSoon(at(2_000))),
            "an answer does not shorten the gap"
        );
    }

    #[test]
    fn p09_four_in_three_hundred_seconds_without_answer() {
        let mut history = History::default();
        for second in [0, 100, 200, 290] {
            assert_eq!(history.check(at(second * 1000), Patience::Window), Ok(()));
            history.sent(at(second * 1000));
        }
        assert_eq!(
            history.check(at(299_999), Patience::Window),
            Err(Refused::Exhausted)
        );
        assert_eq!(history.check(at(300_000), Patience::Window), Ok(()));
        history.sent(at(300_000));
        assert_eq!(
            history.check(at(399_000), Patience::Window),
            Err(Refused::Exhausted)
        );
        history.answered();
        assert_eq!(history.check(at(399_000), Patience::Window), Ok(()));
    }

    #[test]
    fn p09_pauses_of_8_to_64_seconds_after_four_bursts() {
        let mut history = History::default();
        let mut now = START;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            history.sent(now);
            let sent = now;
            while history.check(now, Patience::BackOff).is_err() {
                now += Duration::from_millis(500);
            }
            pauses.push(now.saturating_since(sent).as_secs());
        }
        assert_eq!(pauses, [2, 2, 2, 8, 16, 32, 64, 64, 64, 64, 64, 64]);
        history.answered();
        history.sent(now);
        assert_eq!(history.check(now + GAP, Patience::BackOff), Ok(()));
    }

    #[test]
    fn p09_bursts_are_forgotten_after_a_window_without_any() {
        let mut history = History::default();
        for _ in 0..8 {
            history.sent(START);
        }
        history.sent(START + WINDOW);
        let next = START + WINDOW + GAP;
        assert_eq!(history.check(next, Patience::BackOff), Ok(()));
        assert_eq!(history.check(next, Patience::Window), Ok(()));
    }

    #[test]
    fn l12_histories_of_endpoints_are_bounded() {
        let keyed = Keyed::new(&mut StdRng::from_seed([1; 32]));
        let mut histories = Histories::new(10, Patience::Window, keyed);
        for port in 1..=50 {
            let endpoint = Endpoint::new([9, 0, 0, 1].into(), port);
            let is_permitted = histories.take(endpoint, at(0));
            assert_eq!(is_permitted, port <= 10, "nothing that counts is forgotten");
            assert!(!histories.take(endpoint, at(1_000)));
            assert!(histories.histories.len() <= 10);
            assert_eq!(histories.histories.len(), histories.order.len());
        }
        let owing = |histories: &Histories| {
            let all = histories.histories.values();
            all.filter(|history| history.is_unanswered()).count()
        };
        assert_eq!((histories.unanswered, owing(&histories)), (10, 10));
        for port in (1..=10).rev().step_by(2) {
            histories.answered(Endpoint::new([9, 0, 0, 1].into(), port));
        }
        assert_eq!((histories.unanswered, owing(&histories)), (5, 5));
        for port in 41..=60 {
            histories.take(Endpoint::new([9, 0, 0, 1].into(), port), at(9_000));
            assert_eq!(histories.unanswered, owing(&histories));
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
                prop_assert_eq!(history.check(now, Patience::Window).is_ok(), expected);
                if expected {
                    history.sent(now);
                    sent.push(now);
                }
            }
        }
    }
}
