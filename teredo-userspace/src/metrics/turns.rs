//! The distribution of the times for which packets wait.

use std::time::Duration;

/// Upper bounds of the classes, in microseconds. Longer times are in a class of their own.
const BOUNDS: [u64; 10] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000,
];

/// Times of turns of the event loop, in classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Turns {
    /// Adds a turn.
    pub fn add(&mut self, time: Duration) {
        let microseconds = time.as_micros();
        let class = BOUNDS.partition_point(|&bound| u128::from(bound) < microseconds);
        self.counts[class] += 1;
        self.sum += time;
    }

    /// Returns the time of all turns together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the upper bound of each class in seconds, with the number of turns in it, shortest first.
    /// The last bound is infinite.
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
    fn a_turn_is_in_the_class_of_the_next_bound() {
        let mut turns = Turns::default();
        for microseconds in [0, 50, 51, 5_000, 5_001, 1_000_000] {
            turns.add(Duration::from_micros(microseconds));
        }
        let expected = [
            (50e-6, 2),
            (100e-6, 1),
            (5e-3, 1),
            (10e-3, 1),
            (f64::INFINITY, 1),
        ];
        let used = turns.classes().into_iter().filter(|(_, count)| *count > 0);
        assert_eq!(used.collect::<Vec<_>>(), expected);
        assert_eq!(turns.sum(), Duration::from_micros(1_010_102));
    }
}
