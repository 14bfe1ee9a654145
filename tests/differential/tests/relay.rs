//! The relay's fast path on this host against its slow path. `PROPTEST_CASES=1000000` compares as many
//! frames in each direction and set-up.

use anyhow::Result;
use teredo_differential::{
    host::HostPath,
    relay::Paths,
    site::{Setup, cases},
    tags::{self, Tagged},
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

/// Frames with VLAN tags on one side or on both are translated as others are, and keep their tags if they are passed.
#[test]
fn vlans() -> Result<()> {
    for (seed, setup) in (3..).zip(tags::setups(&Setup::default())) {
        let fast = Tagged::new(HostPath::new(&setup), &setup);
        Paths::new(fast, &setup)?.compare(seed, cases(FRAMES) / 4)?;
    }
    Ok(())
}
