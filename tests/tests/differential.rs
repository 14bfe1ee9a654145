//! The relay's fast path in the kernel against its slow path.

use anyhow::Result;
use teredo_differential::{
    relay::Paths,
    tags::{self, Tagged},
};
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

#[test]
fn vlans() -> Result<()> {
    for (seed, setup) in (3..).zip(tags::setups(&Setup::default())) {
        let fast = Tagged::new(Fixture::new(&setup)?, &setup);
        Paths::new(fast, &setup)?.compare(seed, cases(FRAMES) / 4)?;
    }
    Ok(())
}
