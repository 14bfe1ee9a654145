//! The relay's XDP program by itself, run by the kernel on one forged frame after another.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramFd, loaded_programs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use teredo_lab::programs::Bench;
use teredo_lab_ebpf::SIZES;

use super::{
    cases::{CLIENTS, Direction},
    relay::Relay,
    site::{NEAR, Site},
};

/// Runs in each measurement.
const RUNS: u32 = 1_000_000;
/// Packets are forwarded while the relay has heard of the client within 30 seconds.
const AGE: Duration = Duration::from_secs(8);

/// The cost of the program, measured once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// The direction of the packets.
    pub direction: Direction,
    /// Number of clients that took turns.
    pub clients: u32,
    /// Nanoseconds per packet, without the cost of preparing the frame.
    pub nanoseconds: f64,
}

/// Measures the program of our relay in this direction with this number of clients. The kernel
/// rounds to whole nanoseconds.
///
/// # Errors
///
/// Fails when the relay is not ours, or does not forward every packet.
pub fn measure(relay: &mut Relay, direction: Direction, clients: u32) -> Result<Cost> {
    measure_runs(relay, direction, clients, RUNS)
}

/// Measures how long the program takes for a packet, relative to the reference program in the same run.
///
/// # Errors
///
/// As [`measure`].
pub fn measure_against_reference(
    relay: &mut Relay,
    direction: Direction,
    clients: u32,
) -> Result<f64> {
    let cost = measure(relay, direction, clients)?;
    let interface = relay.site.near_interfaces[Site::entry(direction)].index;
    let frame = relay.frame(direction, SIZES[0])?;
    let mut bench = Bench::load(direction.flow(), clients, frame)?;
    let reference = bench.reference(&relay.site.near, interface, RUNS)?;
    let nothing = bench.nothing(&relay.site.near, interface, RUNS)?;
    Ok(cost.nanoseconds / (reference as f64 - nothing as f64))
}

/// Measures as [`measure`] does, with this number of runs.
///
/// # Errors
///
/// As [`measure`].
pub fn measure_runs(
    relay: &mut Relay,
    direction: Direction,
    clients: u32,
    runs: u32,
) -> Result<Cost> {
    relay.acquaint(clients, AGE)?;
    let entry = Site::entry(direction);
    let program = program(relay, NEAR[entry])?;
    let interface = relay.site.near_interfaces[entry].index;
    let frame = relay.frame(direction, SIZES[0])?;
    let mut bench = Bench::load(direction.flow(), clients, frame)?;
    let mut run = |count| {
        let whole = bench.relay(&relay.site.near, interface, &program, count)?;
        let nothing = bench.nothing(&relay.site.near, interface, count)?;
        anyhow::Ok(whole as f64 - nothing as f64)
    };
    // Warms up the caches.
    run(CLIENTS[1])?;
    Ok(Cost {
        direction,
        clients,
        nanoseconds: run(runs)?,
    })
}

/// The program attached to an interface of the relay.
fn program(relay: &Relay, interface: &str) -> Result<ProgramFd> {
    let text = relay
        .site
        .near
        .ip(&format!("-json link show dev {interface}"))?;
    let links: Value = serde_json::from_str(&text)?;
    let id = links[0]["xdp"]["prog"]["id"]
        .as_u64()
        .with_context(|| format!("no XDP program is attached to {interface}"))?;
    for program in loaded_programs() {
        let program = program?;
        if u64::from(program.id()) == id {
            return Ok(program.fd()?);
        }
    }
    anyhow::bail!("XDP program {id} has gone")
}
