//! Faults under load: after each the daemon recovers, and nothing is lost that the fault itself did not
//! take.

mod accounts;
mod clock;
mod disk;
mod host;
mod memory;
mod network;
mod process;
mod watchdog;

use std::time::Duration;

use anyhow::Result;
use teredo_faults::{fault::Fault, load::Rates, runner::play, site::Site};

/// The time for which a fault lasts.
const HOLD: Duration = Duration::from_millis(700);
/// Longest time until everything flows at first.
const PATIENCE: Duration = Duration::from_secs(15);

/// Plays faults one after the other in one scene.
fn survives<const COUNT: usize>(faults: [&mut dyn Fault; COUNT]) -> Result<()> {
    let mut site = Site::new(Rates::default())?;
    site.recovers(PATIENCE)?;
    for fault in faults {
        let outcome = play(&mut site, fault, HOLD)?;
        println!("{}: {outcome:?}", fault.name());
    }
    Ok(())
}
