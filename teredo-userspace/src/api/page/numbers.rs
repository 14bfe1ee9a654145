//! Numbers for people.

/// Shows a number with three digits and a unit of thousands that does not break from it: `12.3 k`.
pub fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "\u{a0}k", "\u{a0}M", "\u{a0}G", "\u{a0}T"];
    let mut scaled = number;
    let mut unit = 0;
    // 999.5 would be shown as four digits.
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let decimals = match scaled {
        _ if scaled == 0.0 || (unit == 0 && scaled.fract() == 0.0) => 0,
        scaled if scaled < 9.995 => 2,
        scaled if scaled < 99.95 => 1,
        _ => 0,
    };
    // A unit of its own has no use for hundredths.
    let decimals = if unit == 0 { decimals.min(1) } else { decimals };
    format!("{scaled:.decimals$}{}", UNITS[unit])
}

/// Shows a number of octets with three digits: `12.3 kB`.
pub fn octets(number: u64) -> String {
    let mut text = short(number as f64);
    if !text.contains('\u{a0}') {
        text.push('\u{a0}');
    }
    text + "B"
}

/// Shows a whole number with its thousands apart, by narrow spaces that do not break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Shows a time of seconds in at most two units.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Shows the share of a part, which is `-` of nothing.
pub fn share(part: u64, all: u64) -> String {
    match all {
        0 => "-".to_owned(),
        all if part == all => "100 %".to_owned(),
        // Never 100 % of what is not whole.
        all => format!(
            "{:.1} %",
            (part as f64 * 1_000.0 / all as f64).floor() / 10.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (0.25, "0.2"),
            (7.0, "7"),
            (12.34, "12.3"),
            (999.0, "999"),
            (999.7, "1.00 k"),
            (1_234.0, "1.23 k"),
            (99_960.0, "100 k"),
            (12_345_678.0, "12.3 M"),
            (4e15, "4000 T"),
        ] {
            assert_eq!(short(number), text.replace(' ', "\u{a0}"));
        }
    }

    #[test]
    fn octets_have_their_unit() {
        assert_eq!(octets(0), "0\u{a0}B");
        assert_eq!(octets(1_234), "1.23\u{a0}kB");
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn a_part_is_never_everything() {
        assert_eq!(share(0, 0), "-");
        assert_eq!(share(9_999, 10_000), "99.9 %");
        assert_eq!(share(5, 5), "100 %");
    }
}
