//! The day on which a running role ends (requirement Z-03).

use std::time::SystemTime;

use crate::sunset::{Date, Phase, phase};

/// Waits for a role's day. None that was over at the start is waited for: the role was started
/// in spite of it.
#[derive(Debug)]
pub struct Sunset(Option<Date>);

impl Sunset {
    pub fn new(date: Option<Date>, now: SystemTime) -> Self {
        Self(date.filter(|date| phase(*date, now) != Phase::Over))
    }

    /// Whether the day has come; only once.
    pub fn has_come(&mut self, now: SystemTime) -> bool {
        let has_come = self.0.is_some_and(|date| phase(date, now) == Phase::Over);
        if has_come {
            self.0 = None;
        }
        has_come
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn z03_the_day_comes_once_and_not_for_who_started_later() {
        let date: Date = "2030-01-02".parse().unwrap();
        let day = UNIX_EPOCH + Duration::from_secs(date.timestamp());
        let second = Duration::from_secs(1);
        let mut sunset = Sunset::new(Some(date), day - second);
        assert!(!sunset.has_come(day - second));
        assert!(sunset.has_come(day));
        assert!(!sunset.has_come(day + second));
        assert!(!Sunset::new(Some(date), day).has_come(day + second));
        assert!(!Sunset::new(None, day - second).has_come(day));
    }
}
