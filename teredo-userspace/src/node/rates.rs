//! The traffic per second.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use teredo_common::time::Instant;

use crate::metrics::{DIRECTIONS, Rate, Snapshot, Traffic, direction_name};

/// The measurements over which rates are averaged.
const MEASUREMENTS: usize = 4;
/// A shorter interval gives no meaningful rate.
const SHORTEST: Duration = Duration::from_millis(100);

/// The last measurements.
#[derive(Debug, Default)]
pub struct Rates(VecDeque<(Instant, [Traffic; 2])>);

impl Rates {
    /// Adds a measurement of the totals.
    pub fn measure(&mut self, now: Instant, snapshot: &Snapshot) {
        if self.0.len() == MEASUREMENTS {
            self.0.pop_front();
        }
        let totals = DIRECTIONS.map(|direction| snapshot.total(direction));
        self.0.push_back((now, totals));
    }

    /// Returns the rates between the oldest and the newest measurement.
    pub fn rates(&self) -> BTreeMap<&'static str, Rate> {
        let (Some((first, before)), Some((last, after))) = (self.0.front(), self.0.back()) else {
            return BTreeMap::new();
        };
        let time = last.saturating_since(*first);
        if time < SHORTEST {
            return BTreeMap::new();
        }
        let rate =
            |before: u64, after: u64| after.saturating_sub(before) as f64 / time.as_secs_f64();
        let directions = DIRECTIONS.iter().zip(before.iter().zip(after));
        directions
            .map(|(&direction, (before, after))| {
                let rate = Rate {
                    packets: rate(before.packets, after.packets),
                    bytes: rate(before.bytes, after.bytes),
                };
                (direction_name(direction), rate)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use teredo_common::verdict::Direction;

    use super::*;
    use crate::metrics::Path;

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut rates = Rates::default();
        assert!(rates.rates().is_empty());
        let mut snapshot = Snapshot::default();
        for second in 1..=10 {
            // 100 packets a second at first, 1,000 later.
            let packets = if second <= 5 { 100 } else { 1_000 };
            snapshot.add_traffic(Direction::Decap, Path::Xdp, packets, packets * 50);
            rates.measure(Instant::ZERO + Duration::from_secs(second), &snapshot);
            assert_eq!(rates.rates().is_empty(), second == 1);
        }
        let found = rates.rates();
        assert_eq!(found["encap"], Rate::default());
        let expected = Rate {
            packets: 1_000.0,
            bytes: 50_000.0,
        };
        assert_eq!(found["decap"], expected);
    }
}
