//! The places of clients in a table.

/// Returns the place of a client up to the last one, which is one less than a power of two and not less than any index:
/// another place for each client. Clients take turns in steps of the same length. If their entries lay in that order, the
/// processor would fetch them before it is asked to, which it cannot with clients as they come.
#[inline(always)]
pub const fn scattered(index: u32, last: u32) -> u32 {
    // Each step can be undone, and takes numbers up to the last to such numbers.
    let place = index ^ (index >> 7);
    let place = place.wrapping_mul(0x9e37_79b1) & last;
    let place = place ^ (place >> 9);
    place.wrapping_mul(0x85eb_ca6b) & last
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{following, stride};
    use std::{collections::BTreeSet, vec::Vec};

    #[test]
    fn every_client_has_a_place_of_its_own() {
        for last in [0, 1, 255, 0x3fff, 0xf_ffff] {
            let places: BTreeSet<u32> = (0..=last).map(|index| scattered(index, last)).collect();
            assert_eq!(places.len(), last as usize + 1);
            assert_eq!(places.last(), Some(&last));
        }
    }

    #[test]
    fn clients_of_successive_turns_are_not_neighbours() {
        const CLIENTS: u32 = 0x1_0000;
        let stride = stride(CLIENTS);
        let turns = (0..CLIENTS).scan(0, |index, _| {
            *index = following(*index, stride, CLIENTS);
            Some(*index)
        });
        let turns: Vec<u32> = turns.collect();
        let near = |places: &[u32]| {
            let pairs = places.windows(6);
            let near = pairs.filter(|pair| pair[1..].iter().any(|one| one.abs_diff(pair[0]) < 16));
            near.count()
        };
        // The fifth turn is beside the first.
        assert!(near(&turns) > turns.len() * 9 / 10);
        let places = turns.iter().map(|index| scattered(*index, CLIENTS - 1));
        let places: Vec<u32> = places.collect();
        assert!(near(&places) < places.len() / 100);
    }
}
