//! An internet in virtual time, on which our server, relay and client run unmodified behind every
//! kind of NAT.
//!
//! A [`World`] has machines ([`node`]), networks and NATs between them ([`network`], [`nat`]), and
//! weather: delay, loss, duplication, reordering. It depends on nothing but its seed and the calls
//! of its test. After every action of a node, the rules of `observer` are checked against the
//! packets on the wire; a broken rule panics, with the last events.
//!
//! # Replay
//!
//! A failing test reports its seed. `TEREDO_SEED=7 cargo test -p teredo-simulation NAME` runs it
//! with that seed alone. A failing random history is shrunk, printed in full, and kept by proptest
//! in `tests/histories`, where the next run starts; `PROPTEST_CASES=100000` makes for a long night.

pub mod matrix;
pub mod nat;
pub mod network;
pub mod node;
mod observer;
pub mod packet;
mod router;
mod scenery;
pub mod stack;
pub mod world;

pub use network::Realm;
pub use router::Hashing;
pub use world::{NodeId, ROUND_TRIP, Weather, World};

/// The variable with the only seed to use.
const SEED: &str = "TEREDO_SEED";

/// Runs a history with this number of seeds, or with the one from the environment.
pub fn for_seeds(count: u64, history: impl Fn(u64)) {
    let only = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |only| only..only + 1);
    for seed in seeds {
        let told = Told(seed);
        history(seed);
        drop(told);
    }
}

/// Reports the seed if a test fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: {SEED}={}", self.0);
        }
    }
}
