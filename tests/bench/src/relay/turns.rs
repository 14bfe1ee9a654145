//! Turns of clients at random.

/// Returns a list of turns: at random, with Zipf's distribution, the same in every run.
pub fn zipf(clients: u32) -> Vec<u32> {
    const TURNS: usize = 1 << 17;
    let mut sums = Vec::with_capacity(clients as usize);
    let mut sum = 0.0;
    for rank in 1..=clients {
        sum += 1.0 / f64::from(rank);
        sums.push(sum);
    }
    // The generator of Marsaglia, "Xorshift RNGs", 2003.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let turn = |_| {
        let place = random() * sum;
        let rank = sums.partition_point(|sum| *sum < place);
        // Ranks have nothing to do with the places of clients in a table.
        (rank as u32).min(clients - 1)
    };
    (0..TURNS).map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_has_twice_as_many_turns_as_the_second() {
        let turns = zipf(1000);
        assert!(turns.len().is_power_of_two());
        let count = |rank| turns.iter().filter(|turn| **turn == rank).count() as f64;
        let ratio = count(0) / count(1);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
        assert!(turns.iter().all(|turn| *turn < 1000));
    }
}
