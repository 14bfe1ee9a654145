//! The clock of the protocol.

use std::{fs, sync::LazyLock, time::Duration};

use nix::time::{ClockId, clock_gettime};
use teredo_common::time::Instant;

/// Longer than any deadline.
pub const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The nanoseconds by which a time namespace, as some containers have one, sets `CLOCK_MONOTONIC` ahead
/// for this process (time_namespaces(7)).
static AHEAD: LazyLock<i64> = LazyLock::new(|| {
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    monotonic_offset(&offsets).unwrap_or(0)
});

/// Returns the time on the kernel's `CLOCK_MONOTONIC`, which the fast path uses, too. It knows no
/// namespaces.
pub fn now() -> Instant {
    let time: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .expect("Linux has a monotonic clock")
        .into();
    let nanoseconds = time.as_nanos() as u64;
    Instant::from_nanos(nanoseconds.saturating_add_signed(AHEAD.wrapping_neg()))
}

/// Returns the processor's time that this thread has used.
pub fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.expect("Linux has a clock for each thread").into()
}

/// Returns the nanoseconds in the line of `CLOCK_MONOTONIC`.
fn monotonic_offset(offsets: &str) -> Option<i64> {
    let mut lines = offsets.lines();
    let line = lines.find_map(|line| line.strip_prefix("monotonic"))?;
    let mut words = line.split_whitespace().map(str::parse::<i64>);
    let seconds = words.next()?.ok()?;
    let nanoseconds = words.next()?.ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_is_that_of_its_work() {
        let start = of_this_thread();
        std::thread::sleep(Duration::from_millis(100));
        assert!(of_this_thread() - start < Duration::from_millis(50));
        let begin = now();
        while of_this_thread() - start < Duration::from_millis(50) {}
        assert!(now().saturating_since(begin) > Duration::from_millis(10));
    }

    #[test]
    fn offsets_are_read_as_the_kernel_writes_them() {
        for (text, offset) in [
            (
                "monotonic           0         0\nboottime            0         0\n",
                Some(0),
            ),
            (
                "monotonic       86400         5\nboottime            0         0\n",
                Some(86_400_000_000_005),
            ),
            // Nanoseconds are never negative.
            (
                "boottime 7 7\nmonotonic -60 999999999\n",
                Some(-59_000_000_001),
            ),
            ("", None),
            ("monotonic now\n", None),
        ] {
            assert_eq!(monotonic_offset(text), offset, "{text}");
        }
    }
}
