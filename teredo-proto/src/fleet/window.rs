//! Sequence numbers that were seen already (F-05).

use serde::{Deserialize, Serialize};

/// Numbers behind the highest that are still accepted once.
const WIDTH: u64 = 1024;

/// The highest sequence number of a run, and which of those before it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    highest: u64,
    /// A bit for each number, modulo [`WIDTH`].
    seen: [u64; WIDTH as usize / 64],
}

impl Window {
    /// Creates a window that accepts numbers from this one on.
    pub fn from(number: u64) -> Self {
        Self {
            highest: number.saturating_sub(1),
            seen: [u64::MAX; WIDTH as usize / 64],
        }
    }

    /// Accepts a number that is not zero, once. Returns `false` if it came already, or is so old that
    /// it may have.
    pub fn accept(&mut self, number: u64) -> bool {
        if number == 0 || self.highest.saturating_sub(number) >= WIDTH {
            return false;
        }
        if number > self.highest {
            let fresh = number - self.highest;
            if fresh >= WIDTH {
                self.seen = Default::default();
            } else {
                for passed in self.highest + 1..number {
                    self.set(passed, false);
                }
            }
            self.highest = number;
        } else if self.is_set(number) {
            return false;
        }
        self.set(number, true);
        true
    }

    fn is_set(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, number: u64, value: bool) {
        let (word, bit) = place(number);
        match value {
            true => self.seen[word] |= bit,
            false => self.seen[word] &= !bit,
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    let number = number % WIDTH;
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn f05_a_number_is_accepted_once(
            start in 0_u64..1 << 40,
            steps in prop::collection::vec((-1100_i64..1100, 0_u64..3), 0..400)
        ) {
            let mut window = Window::default();
            let mut accepted = BTreeSet::new();
            let mut highest = 0;
            for (step, leap) in steps {
                let number = start.saturating_add_signed(step) + leap * 5000;
                let is_recent = number + WIDTH > highest;
                let is_new = number != 0 && is_recent && !accepted.contains(&number);
                prop_assert_eq!(window.accept(number), is_new, "{}", number);
                if is_new {
                    accepted.insert(number);
                    highest = highest.max(number);
                }
            }
        }
    }

    #[test]
    fn f05_what_was_before_the_start_is_refused() {
        for step in [1, 2, 900, 1024, 5000] {
            let mut window = Window::from(3_000);
            assert!(!window.accept(2_999));
            assert!(window.accept(3_000 + step - 1));
            assert!(!window.accept(2_999) && !window.accept(2_500) && !window.accept(1));
            assert_eq!(window.accept(3_000), (2..=1024).contains(&step), "{step}");
        }
        assert!(Window::from(1).accept(1) && !Window::from(1).accept(0));
    }

    #[test]
    fn f05_the_largest_number_is_no_trouble() {
        let mut window = Window::default();
        assert!(window.accept(u64::MAX));
        assert!(!window.accept(u64::MAX));
        assert!(!window.accept(1));
        assert!(window.accept(u64::MAX - 1));
    }
}
