//! The median and the extremes.

use serde::{Deserialize, Serialize};

/// The median and the extremes of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median: the middle figure, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest figure.
    pub minimum: f64,
    /// The largest figure.
    pub maximum: f64,
}

impl Spread {
    /// Computes the spread of these figures, if there are any.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures = figures.into_iter().collect::<Vec<_>>();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        Some(Self {
            median: match figures.len() % 2 {
                0 => (figures.get(middle.checked_sub(1)?)? + figures[middle]) / 2.0,
                _ => figures[middle],
            },
            minimum: *figures.first()?,
            maximum: *figures.last()?,
        })
    }

    /// Formats the spread with this number of decimals, each figure divided by `unit`.
    #[must_use]
    pub fn text(self, unit: f64, decimals: usize) -> String {
        let [median, minimum, maximum] =
            [self.median, self.minimum, self.maximum].map(|figure| figure / unit);
        format!("{median:.decimals$} ({minimum:.decimals$}-{maximum:.decimals$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (spread.minimum, spread.median, spread.maximum),
            (1.0, 2.0, 3.0)
        );
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }
}
