//! Faults of the daemon's process.

use anyhow::Result;
use teredo_faults::fault::{Killed, LogFull, NeverReads, NoDescriptors, Starved};

use super::survives;

#[test]
fn a_killed_relay_costs_no_packet_of_trusted_peers() -> Result<()> {
    survives([&mut Killed, &mut Killed])
}

#[test]
fn a_relay_without_descriptors_or_with_a_full_disk_serves_on() -> Result<()> {
    survives([&mut NoDescriptors::default(), &mut LogFull])
}

#[test]
fn a_relay_that_starves_or_whose_api_is_besieged_costs_no_packet_of_trusted_peers() -> Result<()> {
    survives([&mut Starved, &mut NeverReads::default()])
}
