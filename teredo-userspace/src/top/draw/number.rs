//! Numbers as people read them.

use std::time::Duration;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PREFIXES: [&str; 5] = ["", "k", "M", "G", "T"];

/// Returns a number with at most three digits before a decimal prefix, such as `48.1k`.
pub fn short(value: f64) -> String {
    let mut value = value.max(0.0);
    if value > 0.0 && value < 9.95 {
        return match value {
            value if value < 0.05 => "<0.1".to_owned(),
            value if (value - value.round()).abs() < 0.05 => format!("{value:.0}"),
            value => format!("{value:.1}"),
        };
    }
    let mut prefix = 0;
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1_000.0;
        prefix += 1;
    }
    match prefix > 0 && value < 99.95 {
        true => format!("{value:.1}{}", PREFIXES[prefix]),
        false => format!("{value:.0}{}", PREFIXES[prefix]),
    }
}

/// Returns a rate, or a dash if it is unknown.
pub fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), short)
}

/// Returns octets in a second as bits.
pub fn bits(octets: Option<f64>) -> String {
    rate(octets.map(|octets| octets * 8.0))
}

/// Returns a number with a comma after each thousand.
pub fn whole(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of seconds with the unit that suits it, such as `4 min`.
pub fn age(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "never".to_owned();
    };
    match seconds as u64 {
        0..60 => format!("{seconds:.0} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Returns a duration with two units, such as `3 h 12 min`.
pub fn long(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Returns the share of a part in percent. Only all of it is 100 %.
pub fn share(part: f64, all: f64) -> String {
    if all <= 0.0 {
        return "-".to_owned();
    }
    let percent = part / all * 100.0;
    match percent >= 99.95 && part < all {
        true => "99.9 %".to_owned(),
        false if percent >= 100.0 => "100 %".to_owned(),
        false => format!("{percent:.1} %"),
    }
}

/// Returns a graph of the last values, the newest to the right: `height` lines of `width` characters.
pub fn graph<'a>(
    values: impl DoubleEndedIterator<Item = &'a f64>,
    width: usize,
    height: usize,
) -> Vec<String> {
    let mut last: Vec<f64> = values.rev().take(width).copied().collect();
    last.reverse();
    let most = last.iter().copied().fold(0.0, f64::max);
    let steps = BARS.len();
    // The steps of the bar that are in a line, counted from below.
    let bar = |value: f64, line: usize| {
        let full = match value > 0.0 {
            true => (value / most * (steps * height) as f64).ceil() as usize,
            false => 0,
        };
        match full.saturating_sub(line * steps).min(steps) {
            0 => ' ',
            filled => BARS[filled - 1],
        }
    };
    let lines = (0..height).rev().map(|line| {
        let bars: String = last.iter().map(|value| bar(*value, line)).collect();
        format!("{bars:>width$}")
    });
    lines.collect()
}

/// Returns a gauge of a part of something, `width` characters wide.
pub fn gauge(part: u64, all: u64, width: usize) -> String {
    let share = if all == 0 {
        0.0
    } else {
        part as f64 / all as f64
    };
    let full = ((share * width as f64).round() as usize).min(width);
    // Something is never nothing.
    let full = full.max(usize::from(part > 0).min(width));
    "█".repeat(full) + &"░".repeat(width - full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.5, "0.5"),
            (3.0, "3"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (48_123.0, "48.1k"),
            (412_000_000.0, "412M"),
            (5e15, "5000T"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(whole(1_000_000), "1,000,000");
        assert_eq!(whole(12), "12");
        assert_eq!(rate(None), "-");
        assert_eq!(bits(Some(1_000.0)), "8.0k");
    }

    #[test]
    fn times_have_units() {
        assert_eq!(age(None), "never");
        assert_eq!(age(Some(59.0)), "59 s");
        assert_eq!(age(Some(3_599.0)), "59 min");
        assert_eq!(age(Some(200_000.0)), "2 d");
        assert_eq!(long(Duration::from_secs(11_520)), "3 h 12 min");
    }

    #[test]
    fn all_is_only_all() {
        assert_eq!(share(1e9 - 1.0, 1e9), "99.9 %");
        assert_eq!(share(5.0, 5.0), "100 %");
        assert_eq!(share(0.0, 0.0), "-");
        assert_eq!(share(1.0, 3.0), "33.3 %");
    }

    #[test]
    fn graphs_end_with_the_newest_value() {
        assert_eq!(graph([0.0, 1.0, 4.0, 8.0].iter(), 6, 1), ["   ▁▄█"]);
        assert_eq!(graph([9.0, 1.0, 2.0].iter(), 2, 1), ["▄█"]);
        assert_eq!(graph([1.0, 2.0].iter(), 2, 2), [" █", "██"]);
        assert_eq!(graph([].iter(), 2, 1), ["  "]);
        assert_eq!(gauge(1, 1_000_000, 4), "█░░░");
        assert_eq!(gauge(2, 4, 4), "██░░");
        assert_eq!(gauge(0, 0, 4), "░░░░");
    }
}
