//! The relay's fast path in the kernel against its slow path.

use anyhow::Result;
use teredo_differential::relay::Paths;
use teredo_lab::fixture::{Fixture, Setup, cases};

/// Frames in each direction and set-up.
const FRAMES: usize = 6_000;

fn check(setup: &Setup, seed: u64) -> Result<()> {
    Paths::new(Fixture::new(setup)?, setup)?.compare(seed, cases(FRAMES))
}

#[test]
fn default_settings() -> Result<()> {
    check(&Setup::default(), 1)
}

#[test]
fn restricted_destinations_and_no_zero_checksums() -> Result<()> {
    check(&Setup::restricted(), 2)
}
