//! The distribution of durations.

use std::time::Duration;

/// Upper bounds of the classes, in microseconds. Longer durations are in a class of their own.
const BOUNDS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Durations from a millisecond to half a minute, in classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Durations {
    /// Adds a duration.
    pub fn add(&mut self, duration: Duration) {
        let microseconds = duration.as_micros();
        let class = BOUNDS.partition_point(|&bound| u128::from(bound) < microseconds);
        self.counts[class] += 1;
        self.sum += duration;
    }

    /// Returns the sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the upper bound of each class in seconds, with the number of durations in it, shortest
    /// first. The last bound is infinite.
    #[must_use]
    pub fn classes(&self) -> [(f64, u64); BOUNDS.len() + 1] {
        let mut classes = self.counts.map(|count| (f64::INFINITY, count));
        for ((bound, _), microseconds) in classes.iter_mut().zip(BOUNDS) {
            *bound = microseconds as f64 / 1e6;
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_class_of_the_next_bound() {
        let mut durations = Durations::default();
        for milliseconds in [0, 1, 2, 30_000, 30_001] {
            durations.add(Duration::from_millis(milliseconds));
        }
        let used = durations
            .classes()
            .into_iter()
            .filter(|(_, count)| *count > 0);
        let expected = [(1e-3, 2), (2.5e-3, 1), (30.0, 1), (f64::INFINITY, 1)];
        assert_eq!(used.collect::<Vec<_>>(), expected);
        assert_eq!(durations.sum(), Duration::from_millis(60_004));
    }
}
