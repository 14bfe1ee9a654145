//! What the daemons and the kernel hold, over time.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use serde::Serialize;
use teredo_lab::process;

use crate::site::{Site, Who};

/// What one daemon holds.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// Resident memory, in octets.
    pub resident: u64,
    /// Memory of BPF maps, in octets.
    pub maps: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Trusted and untrusted peers.
    pub peers: [u64; 2],
    /// CPU time since the start of the process, in seconds.
    pub cpu: f64,
}

/// What is held at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Seconds since the beginning.
    pub seconds: f64,
    /// What each daemon holds.
    pub daemons: BTreeMap<&'static str, Held>,
    /// Entries of the relay's routing and neighbour tables.
    pub kernel: BTreeMap<&'static str, usize>,
    /// Packets delivered so far.
    pub delivered: u64,
}

/// Takes a sample.
///
/// # Errors
///
/// Fails when a daemon has ended.
pub fn take(site: &Site, seconds: f64) -> Result<Sample> {
    let mut daemons = BTreeMap::new();
    for who in Who::ALL {
        let daemon = &site.daemon(who).daemon;
        let metrics = site.metrics(who)?;
        let peers = |state: &str| {
            let name = format!("teredo_peers{{role=\"{}\",state=\"{state}\"}}", who.name());
            metrics.get(&name).copied().unwrap_or(0)
        };
        let count = |what: &str| {
            let entries = fs::read_dir(format!("/proc/{}/{what}", daemon.pid()));
            entries.map_or(0, |entries| entries.count() as u64)
        };
        let held = Held {
            resident: daemon.resident()?,
            maps: process::maps(daemon.pid())?,
            descriptors: count("fd"),
            threads: count("task"),
            peers: ["trusted", "untrusted"].map(peers),
            cpu: daemon.cpu_time()?.as_secs_f64(),
        };
        daemons.insert(who.name(), held);
    }
    let relay = &site.scene.relay;
    let lines = |what: &str| Ok::<_, anyhow::Error>(relay.ip(what)?.lines().count());
    let kernel = BTreeMap::from([
        ("neighbours", lines("neigh show")?),
        ("IPv6 routes", lines("-6 route show table all")?),
        ("interfaces", lines("-o link show")?),
    ]);
    let tally = site.load.tally();
    let delivered = crate::load::tally::Class::ALL.iter();
    let delivered = delivered.map(|&class| tally.total(class).delivered).sum();
    Ok(Sample {
        seconds,
        daemons,
        kernel,
        delivered,
    })
}
