//! Memory with many clients.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use teredo_lab::process::{maps, resident};

use super::{
    cases::{Terms, Variant},
    relay::Relay,
    throughput::Subject as _,
};

/// Number of clients that the relay knows.
pub const CLIENTS: u32 = 100_000;

/// The memory that a relay occupies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// The relay's implementation.
    pub variant: Variant,
    /// Resident memory of the relay's processes, in octets.
    pub resident: u64,
    /// Kernel memory of the BPF maps that the relay's processes hold, in octets.
    pub maps: u64,
}

/// Starts a relay, makes [`CLIENTS`] clients known to it and measures its memory.
///
/// # Errors
///
/// Fails when the relay does not work.
pub fn measure(variant: Variant) -> Result<Memory> {
    let mut relay = Relay::start(variant, Terms::Usual)?;
    relay.acquaint(CLIENTS, Duration::MAX)?;
    let processes = relay.processes()?;
    let mut memory = Memory {
        variant,
        resident: 0,
        maps: 0,
    };
    for pid in processes {
        memory.resident += resident(pid)?;
        memory.maps += maps(pid)?;
    }
    Ok(memory)
}
