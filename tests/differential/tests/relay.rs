//! The relay's fast path on this host against its slow path. `PROPTEST_CASES=1000000` compares as many
//! frames in each direction and set-up.

use anyhow::Result;
use teredo_differential::{
    host::HostPath,
    relay::Paths,
    site::{Setup, cases},
};

/// Frames in each direction and set-up.
const FRAMES: usize = 100_000;

fn check(setup: &Setup, seed: u64) -> Result<()> {
    Paths::new(HostPath::new(setup), setup)?.compare(seed, cases(FRAMES))
}

#[test]
fn default_settings() -> Result<()> {
    check(&Setup::default(), 1)
}

#[test]
fn restricted_destinations_and_no_zero_checksums() -> Result<()> {
    check(&Setup::restricted(), 2)
}
