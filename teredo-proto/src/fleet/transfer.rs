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
/// The time after which a relay is given up that gave less than [`LEAST`] meanwhile.
const STALLED: Duration = Duration::from_secs(2);
/// Parts of the table that have to come in this time, or an eighth of those that are missing. A network that loses six
/// of ten datagrams in each direction lets as many through.
const LEAST: u32 = 400;
/// The time that a transfer may take, beyond [`PER_PART`].
const LONGEST: Duration = Duration::from_secs(10);
/// The time that a part may take: half a minute for the largest table.
const PER_PART: Duration = Duration::from_micros(250);
/// Bound on the parts of a table.
const MAX_PARTS: u32 = 1 << 20;

/// The transfer of a table.
#[derive(Debug)]
pub struct Transfer {
    /// The number of the requests.
    pub id: u32,
    /// Whether only peers are wanted that no other relay tells about.
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
    /// The time from which on [`Transfer::least`] parts have to come.
    since: Instant,
    /// Parts that came since then.
    came: u32,
    /// Parts that have to come.
    least: u32,
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
            since: now,
            came: 0,
            least: 1,
        }
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        self.total.is_some() && self.missing == 0
    }

    /// Whether the other relay is to be given up: it gives nothing, or too little. Nobody waits long for one that does not want
    /// to give its table.
    pub fn has_failed(&mut self, now: Instant) -> bool {
        let longest = LONGEST + PER_PART * self.total.unwrap_or(0);
        if now.saturating_since(self.began) >= longest {
            return true;
        }
        if now.saturating_since(self.since) < STALLED {
            return false;
        }
        let has_stalled = self.came < self.least;
        (self.since, self.came) = (now, 0);
        self.least = (self.missing / 8).clamp(1, LEAST);
        has_stalled
    }

    /// Whether one of these parts was asked for and did not come.
    pub fn wants(&self, part: &Part) -> bool {
        let Some(total) = self.total else {
            return part.id == self.id;
        };
        let mut numbers = part.first..self.end(part, total);
        part.id == self.id && numbers.any(|number| !self.is_done(number))
    }

    /// Records parts that came. Of a table that has more, `most` are wanted.
    pub fn handle_part(&mut self, part: Part, most: u32) {
        let total = match self.total {
            Some(total) => total,
            None => {
                let total = part.total.min(most).min(MAX_PARTS);
                self.done = vec![0; total.div_ceil(64) as usize];
                self.missing = total;
                *self.total.insert(total)
            }
        };
        for number in part.first..self.end(&part, total) {
            if !self.is_done(number) {
                self.done[number as usize / 64] |= 1 << (number % 64);
                self.missing -= 1;
                self.came += 1;
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

    /// Returns the part after the last one of these that could be asked for.
    fn end(&self, part: &Part, total: u32) -> u32 {
        let most = part.first.saturating_add(BATCH);
        part.end.min(self.next.min(total)).min(most)
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
                        transfer.handle_part(part, MAX_PARTS);
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
        transfer.requests(NOW);
        assert!(transfer.wants(&part));
        transfer.handle_part(part, 1_000);
        assert!(!transfer.wants(&part));
        assert!(!transfer.has_failed(NOW + STALLED));
        transfer.handle_part(part, 1_000);
        assert!(transfer.has_failed(NOW + STALLED * 2));
        assert_eq!(transfer.done.len(), 16);
    }

    /// It could go on for minutes.
    #[test]
    fn f17_a_relay_that_answers_slowly_is_given_up() {
        let mut transfer = Transfer::new(1, false, NOW);
        let (mut now, mut first) = (NOW, 0);
        while !transfer.has_failed(now) {
            for request in transfer.requests(now) {
                // One part of each.
                let part = Part {
                    id: 1,
                    first: request.first,
                    end: request.first + 1,
                    total: 20_000,
                };
                transfer.handle_part(part, MAX_PARTS);
                first += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!(first > 0 && now <= NOW + STALLED * 2, "{first} {now:?}");
    }

    /// At any pace.
    #[test]
    fn f17_a_transfer_ends_within_half_a_minute() {
        let mut transfer = Transfer::new(1, false, NOW);
        let most = (4_194_304 / REPORTS) as u32;
        transfer.requests(NOW);
        let part = Part {
            id: 1,
            first: 0,
            end: 1,
            total: u32::MAX,
        };
        transfer.handle_part(part, most);
        assert_eq!(transfer.total, Some(most));
        transfer.came = u32::MAX / 2;
        assert!(!transfer.has_failed(NOW + Duration::from_secs(20)));
        transfer.came = u32::MAX / 2;
        assert!(transfer.has_failed(NOW + Duration::from_secs(32)));
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
