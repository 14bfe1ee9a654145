//! Faults of the daemon's parts on the host.

use anyhow::Result;
use teredo_faults::fault::{ProgramReplaced, TunnelGone};

use super::survives;

#[test]
fn tunnel_and_program_are_taken_away() -> Result<()> {
    survives([&mut TunnelGone, &mut ProgramReplaced::default()])
}
