//! The pace at which changes are reported.

use std::time::Duration;

use tokio::time::Instant;

use super::Changes;

/// The least time between two reports. The first change after a pause is reported at once.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Changes that wait for their report. None is lost: those that come too soon are reported together at
/// the end of the interval.
#[derive(Debug, Default)]
pub struct Pace {
    waiting: Changes,
    /// The end of the interval that the last report began.
    next: Option<Instant>,
}

impl Pace {
    /// Returns the changes that wait, to add others to.
    pub fn waiting(&mut self) -> &mut Changes {
        &mut self.waiting
    }

    /// Takes the changes if it is time to report some. Those of the bits that determine a route do not wait: the
    /// next hops of other destinations would be wrong meanwhile.
    pub fn report(&mut self, now: Instant) -> Option<Changes> {
        let is_early = self.next.is_some_and(|next| now < next) && !self.waiting.depths;
        if self.waiting == Changes::default() || is_early {
            return None;
        }
        self.next = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.waiting))
    }

    /// Returns the time of the next report, if changes wait for it.
    pub fn due(&self) -> Option<Instant> {
        self.next.filter(|_| self.waiting != Changes::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::watch::Hops;

    #[test]
    fn reports_keep_their_distance_and_miss_nothing() {
        let mut pace = Pace::default();
        let start = Instant::now();
        assert_eq!(pace.report(start), None, "nothing changed");
        let (mut reports, mut last) = (0, None);
        // A change each millisecond for a second.
        for millisecond in 0..1000 {
            let now = start + Duration::from_millis(millisecond);
            pace.waiting().hops = Hops::All;
            if let Some(changes) = pace.report(now) {
                assert_eq!(changes.hops, Hops::All);
                assert!(last.is_none_or(|last| now >= last + INTERVAL));
                (reports, last) = (reports + 1, Some(now));
            }
        }
        assert_eq!(reports, 10);
        // Changes after the last report are due when its interval ends.
        pace.waiting().routes = true;
        let due = pace.due().expect("changes wait");
        assert_eq!(due, last.expect("there were reports") + INTERVAL);
        let changes = pace.report(due).expect("it is time");
        assert!(changes.hops == Hops::All && changes.routes);
        assert_eq!(pace.due(), None);
        assert_eq!(pace.report(due + INTERVAL), None);
    }

    #[test]
    fn another_depth_does_not_wait() {
        let mut pace = Pace::default();
        let now = Instant::now();
        pace.waiting().routes = true;
        assert!(pace.report(now).is_some());
        pace.waiting().routes = true;
        assert!(pace.report(now).is_none());
        pace.waiting().depths = true;
        assert!(pace.report(now).is_some_and(|changes| changes.routes));
    }

    #[test]
    fn the_first_change_after_a_pause_is_reported_at_once() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for pause in [0, 1, 50] {
            let now = start + INTERVAL * pause;
            pace.waiting().addresses = true;
            assert!(pace.report(now).is_some());
        }
    }
}
