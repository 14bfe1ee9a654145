//! Memory with many clients.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;
use serde::Serialize;

use super::{cases::Variant, relay::Relay, throughput::Subject as _};
use crate::lab::process::resident;

/// Number of clients that the relay knows.
pub const CLIENTS: u32 = 100_000;

/// What a relay occupies.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Which relay.
    pub variant: Variant,
    /// Resident memory of its processes, in octets.
    pub resident: u64,
    /// Kernel memory of the BPF maps that its processes hold, in octets.
    pub maps: u64,
}

/// Starts a relay, makes it know [`CLIENTS`] clients and looks what it occupies.
///
/// # Errors
///
/// When the relay does not work.
pub fn measure(variant: Variant) -> Result<Memory> {
    let mut relay = Relay::start(variant)?;
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

/// What the kernel charges for the maps that a process has open, each once, in octets.
///
/// # Errors
///
/// When the process has ended.
pub fn maps(pid: Pid) -> Result<u64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // It may have been closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        // A program has a memlock too, but no map_id.
        if let (Some(id), Some(octets)) = (field(&info, "map_id:"), field(&info, "memlock:")) {
            maps.insert(id, octets);
        }
    }
    Ok(maps.values().sum())
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_kernels_files() {
        let text = "map_type:\t1\nmax_entries:\t4\nmemlock:\t4096\nmap_id:\t17\n";
        assert_eq!(field(text, "memlock:"), Some(4096));
        assert_eq!(field(text, "map_id:"), Some(17));
        assert_eq!(field(text, "absent:"), None);
    }
}
