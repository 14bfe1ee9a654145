//! Faults of the daemon's process.

use std::time::Duration;

use anyhow::Result;
use teredo_faults::{
    fault::{Killed, LogFull, NeverReads, NoDescriptors, Starved},
    load::Rates,
    runner::play,
    site::Site,
};

use super::{PATIENCE, survives};

/// The time without a daemon after which the program does not rely on what it said any more.
const SILENCE: Duration = Duration::from_secs(4);

#[test]
fn a_killed_relay_costs_no_packet_of_trusted_peers() -> Result<()> {
    survives([&mut Killed, &mut Killed])
}

/// The program asks the kernel for next hops by then, as nobody tells it of changes.
#[test]
fn a_relay_that_is_dead_for_long_costs_no_packet_of_trusted_peers() -> Result<()> {
    let mut site = Site::new(Rates::default())?;
    site.recovers(PATIENCE)?;
    play(&mut site, &mut Killed, SILENCE * 3)?;
    Ok(())
}

#[test]
fn a_relay_without_descriptors_or_with_a_full_disk_serves_on() -> Result<()> {
    survives([&mut NoDescriptors::default(), &mut LogFull])
}

#[test]
fn a_relay_that_starves_or_whose_api_is_besieged_costs_no_packet_of_trusted_peers() -> Result<()> {
    survives([&mut Starved, &mut NeverReads::default()])
}
