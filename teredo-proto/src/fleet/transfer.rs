//! Getting the table of another relay (F-17): in parts that are asked for until all are there, a few at
//! a time, so that lost datagrams cost a repetition, and a slow relay sets the pace.

use std::{collections::VecDeque, time::Duration};

use teredo_common::time::Instant;

use super::wire::{Part, REPORTS, Request};

/// Parts of one request, at most.
pub const BATCH: u32 = 64;
/// Requests that are not answered yet, at most.
const OPEN: usize = 4;
/// The time after which what is missing is asked for again.
const RETRY: Duration = Duration::from_millis(200);
/// The time without any answer after which a relay is given up.
const STALLED: Duration = Duration::from_secs(2);
/// The time that a transfer may take, beyond [`PER_PART`].
const LONGEST: Duration = Duration::from_secs(10);
/// The time that a part may take.
const PER_PART: Duration = Duration::from_millis(1);
/// Bound on the parts of a table.
const MAX_PARTS: u32 = 1 << 20;

/// The transfer of a table.
#[derive(Debug)]
pub struct Transfer {
    /// The number of the requests.
    pub id: u32,
    /// Whether only peers are wanted that the other relay heard last itself.
    pub only_own: bool,
    /// Number of parts, once it is known.
    total: Option<u32>,
    /// A bit for each part that came.
    done: Vec<u64>,
    missing: u32,
    /// The next part to ask for.
    next: u32,
    open: VecDeque<Open>,
    began: Instant,
    progressed: Instant,
}

/// A request that is not answered, or not completely.
#[derive(Debug)]
struct Open {
    first: u32,
    end: u32,
    at: Instant,
}

/// Returns the number of parts of a table with as many slots.
pub fn parts(slots: usize) -> u32 {
    let parts = slots.div_ceil(REPORTS);
    u32::try_from(parts).unwrap_or(MAX_PARTS).min(MAX_PARTS)
}

impl Transfer {
    /// Begins a transfer.
    pub fn new(id: u32, only_own: bool, now: Instant) -> Self {
        Self {
            id,
            only_own,
            total: None,
            done: Vec::new(),
            missing: 0,
            next: 0,
            open: VecDeque::new(),
            began: now,
            progressed: now,
        }
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.total.is_some() && self.missing == 0
    }

    /// Whether the other relay is to be given up.
    pub fn has_failed(&self, now: Instant) -> bool {
        let longest = LONGEST + PER_PART * self.total.unwrap_or(0);
        now.saturating_since(self.progressed) >= STALLED
            || now.saturating_since(self.began) >= longest
    }

    /// Records parts that came.
    pub fn handle_part(&mut self, now: Instant, part: Part) {
        let total = match self.total {
            Some(total) => total,
            None => {
                let total = part.total.min(MAX_PARTS);
                self.done = vec![0; total.div_ceil(64) as usize];
                self.missing = total;
                *self.total.insert(total)
            }
        };
        for number in part.first..part.end.min(total).min(part.first.saturating_add(BATCH)) {
            if !self.is_done(number) {
                self.done[number as usize / 64] |= 1 << (number % 64);
                self.missing -= 1;
                self.progressed = now;
            }
        }
        while self.open.front().is_some_and(|open| self.is_answered(open)) {
            self.open.pop_front();
        }
    }

    /// Returns the requests that are due.
    pub fn requests(&mut self, now: Instant) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut open = std::mem::take(&mut self.open);
        open.retain(|open| !self.is_answered(open));
        for open in &mut open {
            if now.saturating_since(open.at) >= RETRY {
                open.at = now;
                open.first = (open.first..open.end)
                    .find(|&number| !self.is_done(number))
                    .unwrap_or(open.first);
                requests.push(self.request(open));
            }
        }
        while open.len() < OPEN && self.next < self.total.unwrap_or(1) {
            let left = self.total.unwrap_or(BATCH) - self.next;
            let asked = Open {
                first: self.next,
                end: self.next + left.min(BATCH),
                at: now,
            };
            requests.push(self.request(&asked));
            self.next = asked.end;
            open.push_back(asked);
        }
        self.open = open;
        requests
    }

    fn request(&self, open: &Open) -> Request {
        Request {
            id: self.id,
            first: open.first,
            count: open.end - open.first,
            only_own: self.only_own,
        }
    }

    fn is_done(&self, number: u32) -> bool {
        let word = self.done.get(number as usize / 64);
        word.is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// Whether all parts of a request came. Those behind the end of the table need not.
    fn is_answered(&self, open: &Open) -> bool {
        self.total.is_some_and(|total| {
            let mut parts = open.first..open.end.min(total);
            parts.all(|number| self.is_done(number))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000_000);

    /// Answers requests, but loses this share of the answers, and returns the time that it took.
    fn transfer(total: u32, loss: f64, seed: u64) -> Option<Duration> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut transfer = Transfer::new(1, false, NOW);
        let mut now = NOW;
        while !transfer.is_complete() {
            if transfer.has_failed(now) {
                return None;
            }
            for request in transfer.requests(now) {
                assert!(request.count <= BATCH);
                let end = (request.first + request.count).min(total);
                for first in request.first..end.max(request.first + 1) {
                    let part = Part {
                        id: 1,
                        first: first.min(end),
                        end: end.min(first + 1),
                        total,
                    };
                    if !random.random_bool(loss) {
                        transfer.handle_part(now, part);
                    }
                }
            }
            assert!(transfer.open.len() <= OPEN);
            now += Duration::from_millis(10);
        }
        Some(now.saturating_since(NOW))
    }

    #[test]
    fn f17_an_empty_table_is_complete_with_the_first_answer() {
        assert_eq!(transfer(0, 0.0, 1), Some(Duration::from_millis(10)));
    }

    #[test]
    fn f17_a_relay_that_does_not_answer_is_given_up() {
        assert_eq!(transfer(1000, 1.0, 1), None);
        let mut transfer = Transfer::new(1, false, NOW);
        transfer.requests(NOW);
        assert!(!transfer.has_failed(NOW + Duration::from_millis(1999)));
        assert!(transfer.has_failed(NOW + STALLED));
    }

    #[test]
    fn f17_a_relay_that_answers_with_nothing_new_is_given_up() {
        let mut transfer = Transfer::new(1, false, NOW);
        let part = Part {
            id: 1,
            first: 0,
            end: 1,
            total: u32::MAX,
        };
        for second in 0..2 {
            transfer.handle_part(NOW + Duration::from_secs(second), part);
        }
        assert!(transfer.has_failed(NOW + STALLED));
        assert!(transfer.done.len() <= (MAX_PARTS / 64) as usize);
    }

    proptest! {
        #[test]
        fn f17_everything_arrives_although_much_is_lost(
            total in 0_u32..2000,
            seed: u64
        ) {
            let took = transfer(total, 0.3, seed);
            prop_assert!(took.is_some_and(|took| took < Duration::from_secs(10)), "{:?}", took);
        }
    }
}
