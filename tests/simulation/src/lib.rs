//! An internet in virtual time: our server, relay and client run on it unmodified, behind every
//! kind of NAT.
//!
//! A [`World`] has machines ([`node`]), networks and NATs between them ([`network`], [`nat`]), and
//! weather: delay, loss, duplication, reordering. Nothing in it depends on anything but its seed and
//! what a test does. After everything that a node does it is judged from what is on the wire
//! whether the rules hold (`observer`); a broken one panics, with the last things that happened.
//!
//! # Replay
//!
//! A test that fails says with which seed. `TEREDO_SEED=7 cargo test -p teredo-simulation NAME`
//! runs it with that seed alone. Random histories that fail are told in full, as small as they can
//! be made, and kept by proptest in `tests/histories`, to come first in the next run;
//! `PROPTEST_CASES=100000` makes for a long night.

pub mod matrix;
pub mod nat;
pub mod network;
pub mod node;
mod observer;
pub mod packet;
mod scenery;
pub mod stack;
pub mod world;

pub use network::Realm;
pub use world::{NodeId, ROUND_TRIP, Weather, World};

/// The variable that holds the only seed to be used.
const SEED: &str = "TEREDO_SEED";

/// Runs a history with so many seeds, or the one that is asked for.
pub fn for_seeds(count: u64, history: impl Fn(u64)) {
    let only = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |only| only..only + 1);
    for seed in seeds {
        let told = Told(seed);
        history(seed);
        drop(told);
    }
}

/// Tells the seed if a test fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: {SEED}={}", self.0);
        }
    }
}
