//! When the gateway is asked again.

use std::time::Duration;

use teredo_common::time::Instant;

/// The waits after requests that nobody answered, one after the other; the last one repeats.
const BACK_OFF: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
/// The wait after an answer. A gateway that restarted has forgotten the mapping.
const RENEWAL: Duration = Duration::from_secs(300);
/// The least time between a request and a renewal for another reason.
const GAP: Duration = Duration::from_secs(10);
/// The age at which a mapping is as good as new.
const FRESH: Duration = Duration::from_secs(2);

/// The time of the next request.
#[derive(Debug, Default)]
pub struct Schedule {
    due: Option<Instant>,
    /// The time of the last result.
    last: Option<Instant>,
    /// Requests without an answer, in a row.
    failures: usize,
}

impl Schedule {
    /// Returns the time of the next request.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Notes that the gateway has answered.
    pub fn answered(&mut self, now: Instant) {
        self.failures = 0;
        self.last = Some(now);
        self.due = Some(now + RENEWAL);
    }

    /// Notes that nobody has answered.
    pub fn unanswered(&mut self, now: Instant) {
        let wait = BACK_OFF[self.failures.min(BACK_OFF.len() - 1)];
        self.failures += 1;
        self.last = Some(now);
        self.due = Some(now + wait);
    }

    /// Brings the next request forward, because the gateway may have changed.
    pub fn hasten(&mut self, now: Instant) {
        let (Some(due), Some(last)) = (self.due, self.last) else {
            return;
        };
        if now.saturating_since(last) < FRESH {
            return;
        }
        self.failures = 0;
        self.due = Some(due.min(now.max(last + GAP)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn x20_a_missing_gateway_is_searched_with_back_off() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.due(), None);
        let mut now = at(100);
        let mut waits = Vec::new();
        for _ in 0..8 {
            schedule.unanswered(now);
            let due = schedule.due().unwrap();
            waits.push(due.saturating_since(now).as_secs());
            now = due;
        }
        assert_eq!(waits, [5, 15, 30, 60, 120, 300, 300, 300]);
        // A gateway that appears is found as soon by the next one that is late.
        schedule.answered(now);
        assert_eq!(schedule.due(), Some(now + RENEWAL));
        schedule.unanswered(now);
        assert_eq!(schedule.due(), Some(now + Duration::from_secs(5)));
    }

    #[test]
    fn x20_qualification_renews_a_mapping_that_is_not_new() {
        let mut schedule = Schedule::default();
        // Nothing was asked yet: there is nothing to renew.
        schedule.hasten(at(1));
        assert_eq!(schedule.due(), None);
        schedule.answered(at(100));
        schedule.hasten(at(101));
        assert_eq!(schedule.due(), Some(at(400)), "it was made for this");
        schedule.hasten(at(104));
        assert_eq!(schedule.due(), Some(at(110)), "too soon after the last");
        schedule.answered(at(110));
        schedule.hasten(at(200));
        assert_eq!(schedule.due(), Some(at(200)));
        schedule.hasten(at(205));
        assert_eq!(schedule.due(), Some(at(200)), "it is postponed");
    }

    #[test]
    fn x20_qualification_ends_the_back_off() {
        let mut schedule = Schedule::default();
        for second in [0, 100, 200, 300, 400, 500] {
            schedule.unanswered(at(second));
        }
        schedule.hasten(at(600));
        assert_eq!(schedule.due(), Some(at(600)));
        schedule.unanswered(at(600));
        assert_eq!(schedule.due(), Some(at(605)));
    }
}
