//! The date on which a role ends: Teredo is meant to end when native IPv6 is available everywhere
//! (RFC 4380 section 5.5).

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

/// Days before the date on which warnings begin.
pub const NOTICE_DAYS: u32 = 90;
const SECONDS_PER_DAY: u64 = 86_400;
/// Days of a common year before each month.
const DAYS_BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// A day of the Gregorian calendar, from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u32,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
}

/// The position of a moment relative to the date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// More than [`NOTICE_DAYS`] remain.
    Far,
    /// At most [`NOTICE_DAYS`] remain.
    Near {
        /// Days that remain, including today: 1 to [`NOTICE_DAYS`].
        days: u32,
    },
    /// The date has come: a running role drains, and none starts.
    Over,
}

/// Returns the phase of `now` relative to the date, which begins at midnight UTC.
#[must_use]
pub fn phase(date: Date, now: SystemTime) -> Phase {
    // A clock before 1970 is before every date.
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match date
        .timestamp()
        .saturating_sub(now)
        .div_ceil(SECONDS_PER_DAY)
    {
        0 => Phase::Over,
        days if days <= u64::from(NOTICE_DAYS) => Phase::Near { days: days as u32 },
        _ => Phase::Far,
    }
}

impl Date {
    /// Returns the seconds from the Unix epoch to the beginning of the day, UTC.
    #[must_use]
    pub fn timestamp(self) -> u64 {
        let past = self.year - 1;
        let leap_days = |years: u32| years / 4 - years / 100 + years / 400;
        let is_past_february = self.month > 2;
        let days = (self.year - 1970) * 365 + leap_days(past) - leap_days(1969)
            + DAYS_BEFORE[self.month as usize - 1]
            + u32::from(is_past_february && is_leap(self.year))
            + self.day
            - 1;
        u64::from(days) * SECONDS_PER_DAY
    }
}

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Parses the form "YYYY-MM-DD".
impl FromStr for Date {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let date = || {
            let has_form = text.bytes().enumerate().all(|(place, octet)| match place {
                4 | 7 => octet == b'-',
                _ => octet.is_ascii_digit(),
            });
            if text.len() != "YYYY-MM-DD".len() || !has_form {
                return None;
            }
            let number = |part: &str| part.parse::<u32>().ok();
            let (year, month, day) = (
                number(&text[..4])?,
                number(&text[5..7])?,
                number(&text[8..])?,
            );
            let exists = year >= 1970
                && (1..=12).contains(&month)
                && (1..=days_of(year, month)).contains(&day);
            exists.then_some(Self { year, month, day })
        };
        date().ok_or("not a date of the form YYYY-MM-DD")
    }
}

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:04}-{:02}-{:02}",
            self.year, self.month, self.day
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn at(timestamp: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(timestamp)
    }

    #[test]
    fn timestamps_agree_with_the_calendar() {
        // `date -ud DATE +%s`
        for (text, timestamp) in [
            ("1970-01-01", 0),
            ("1972-02-29", 68_169_600),
            ("1972-03-01", 68_256_000),
            ("2000-02-29", 951_782_400),
            ("2000-03-01", 951_868_800),
            ("2026-11-21", 1_795_219_200),
            ("2027-12-31", 1_830_211_200),
            ("2100-03-01", 4_107_542_400),
            ("9999-12-31", 253_402_214_400),
        ] {
            assert_eq!(date(text).timestamp(), timestamp, "{text}");
            assert_eq!(date(text).to_string(), text);
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut expected = 0;
        for year in 1970..2500 {
            for month in 1..=12 {
                for day in 1..=days_of(year, month) {
                    let date = Date { year, month, day };
                    assert_eq!(date.timestamp(), expected, "{date}");
                    assert_eq!(date.to_string().parse(), Ok(date));
                    expected += SECONDS_PER_DAY;
                }
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "2027-02-29",
            "2100-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-01-00",
            "2027-04-31",
            "1969-12-31",
            "2027-1-01",
            "2027-01-1",
            "27-01-01",
            "2027/01/01",
            "2027-01-01 ",
            "+027-01-01",
            "2027-01-+1",
            "tomorrow",
            "２０２７-01-01",
            "é027-01-1",
        ] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }

    /// Z-03: warn from 90 days before, drain on the day.
    #[test]
    fn the_phases_begin_at_midnight() {
        let end = date("2027-06-30");
        let midnight = end.timestamp();
        let notice = u64::from(NOTICE_DAYS) * SECONDS_PER_DAY;
        for (now, expected) in [
            (0, Phase::Far),
            (midnight - notice - 1, Phase::Far),
            (midnight - notice, Phase::Near { days: 90 }),
            (midnight - SECONDS_PER_DAY - 1, Phase::Near { days: 2 }),
            (midnight - 1, Phase::Near { days: 1 }),
            (midnight, Phase::Over),
            (midnight + notice, Phase::Over),
        ] {
            assert_eq!(phase(end, at(now)), expected, "{now}");
        }
        assert_eq!(phase(end, UNIX_EPOCH - Duration::from_secs(1)), Phase::Far);
    }
}
