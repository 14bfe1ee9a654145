//! The time that the program takes for a packet, relative to a reference program in the same run.

use anyhow::Result;

use crate::{
    cases::{CLIENTS, Direction, Terms, Variant},
    relay::Relay,
    report::Spread,
    test_run,
};

/// Rounds, of which the median counts.
pub(super) const ROUNDS: usize = 5;

/// The time of one kind of packets.
#[derive(Clone, Debug)]
pub struct Time {
    /// The name of the kind.
    pub name: String,
    /// Time per packet, relative to the reference program's.
    pub ratio: Spread,
}

/// Measures a relay whose peers became known through real bubbles.
///
/// # Errors
///
/// Fails without root, or when the relay does not work.
pub fn measure() -> Result<Vec<Time>> {
    let mut relay = Relay::start(Variant::Xdp, Terms::Usual)?;
    let mut times = Vec::new();
    for direction in Direction::ALL {
        for clients in CLIENTS {
            let ratios = (0..ROUNDS)
                .map(|_| test_run::measure_against_reference(&mut relay, direction, clients))
                .collect::<Result<Vec<_>>>()?;
            let name = format!("{}-{clients}", direction.word());
            times.extend(Spread::of(ratios).map(|ratio| Time { name, ratio }));
        }
    }
    Ok(times)
}
