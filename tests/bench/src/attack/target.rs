//! The daemon that is attacked.

use std::{collections::BTreeMap, net::Ipv4Addr, str::FromStr, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::Pid;
use teredo::metrics::Mode;
use teredo_lab::{
    Teredo, cpu,
    process::{maps, resident},
    programs::Attached,
    teredo::Config,
};

use super::report::Count;
use crate::{
    cases::Terms,
    frames::{HOST, RELAY},
    relay::INTERFACE_THREAD,
    site::{FAR, NEAR, Site},
};

/// The server's addresses.
pub const SERVER: [Ipv4Addr; 2] = [Ipv4Addr::new(20, 0, 0, 3), Ipv4Addr::new(20, 0, 0, 4)];

/// Whether the fast path limits what it passes to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defence {
    /// As much as the daemon's defaults.
    On,
    /// Not at all.
    Off,
}

impl Defence {
    /// The name in results.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::On => "defence on",
            Self::Off => "defence off",
        }
    }

    /// The configuration's keys.
    #[must_use]
    pub const fn keys(self) -> &'static [(&'static str, i64)] {
        match self {
            Self::On => &[],
            Self::Off => &[
                ("relay.xdp.new-peer-rate", 0),
                ("relay.xdp.answer-rate", 0),
                ("relay.xdp.peer-rate", 0),
                ("relay.xdp.claim-rate", 0),
                ("relay.xdp.fragment-rate", 0),
                ("relay.xdp.other-rate", 0),
                ("server.xdp.daemon-rate", 0),
            ],
        }
    }
}

impl FromStr for Defence {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => bail!("the defence is on or off, not \"{text}\""),
        }
    }
}

/// A daemon with a relay and a server on a site of its own.
#[derive(Debug)]
pub struct Target {
    /// The program in front of the honest machines.
    pub sift: Attached,
    daemon: Teredo,
    /// The site.
    pub site: Site,
}

/// The counters at one time.
#[derive(Debug)]
pub struct State {
    /// When they were read.
    pub at: Instant,
    /// Frames of the attack.
    pub attack: u64,
    /// Packets of trusted clients.
    pub trusted: Count,
    /// Frames that the daemon's host sent to machines that are not honest.
    pub side_effects: u64,
    /// CPU time of the daemon.
    pub cpu: cpu::Threads,
    /// Memory of the daemon and its maps, in octets.
    pub memory: u64,
    /// Frames and packets that were dropped or passed to the daemon, by reason.
    pub frames: BTreeMap<String, u64>,
}

impl Target {
    /// Starts the daemon with these keys besides the necessary ones.
    ///
    /// # Errors
    ///
    /// Fails without root, or when the daemon does not start with XDP in native mode.
    pub fn start(keys: &[(&str, i64)]) -> Result<Self> {
        let site = Site::new("attacked", Terms::Usual)?;
        for address in SERVER {
            site.near
                .ip(&format!("addr add {address}/24 dev {}", NEAR[0]))?;
        }
        site.near
            .ip(&format!("-6 route add default via {HOST} dev {}", NEAR[1]))?;
        let sift = Attached::sift(&site.far, &FAR)?;
        let mut config = Config::new()
            .set("relay.ipv4", RELAY.ip().to_string())
            .set("relay.port", i64::from(RELAY.port()))
            .set("relay.xdp.mode", "native")
            .set("relay.xdp.interfaces", NEAR.map(str::to_owned).to_vec())
            .set(
                "server.ipv4",
                SERVER.map(|address| address.to_string()).to_vec(),
            )
            .set("server.xdp.mode", "native")
            .set("server.xdp.interfaces", vec![NEAR[0].to_owned()]);
        for &(key, value) in keys {
            config = config.set(key, value);
        }
        let daemon = cpu::on_core(cpu::RELAY, || Teredo::start(&site.near, &config))
            .context("start the daemon")?;
        let attached = daemon.status()?.xdp;
        ensure!(
            attached
                .iter()
                .all(|interface| interface.mode == Mode::Native),
            "its XDP program is not attached in native mode: {attached:?}"
        );
        Ok(Self { sift, daemon, site })
    }

    /// The daemon's process, and the kernel's threads that work for it alone.
    ///
    /// # Errors
    ///
    /// Fails when the kernel reports an error.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let mut processes = self.site.near.processes()?;
        processes.extend(cpu::threads_named(|name| {
            name.starts_with(INTERFACE_THREAD)
        })?);
        Ok(processes)
    }

    /// Memory of the daemon and its maps, in octets.
    ///
    /// # Errors
    ///
    /// Fails when the daemon has ended.
    pub fn memory(&self) -> Result<u64> {
        let pid = self.daemon.daemon.pid();
        Ok(resident(pid)? + maps(pid)?)
    }

    /// The packets that were dropped or passed, by reason.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer.
    pub fn frames(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.daemon.status()?;
        let named = |kind: &str, counts: BTreeMap<String, u64>| {
            let kind = kind.to_owned();
            counts
                .into_iter()
                .map(move |(reason, packets)| (format!("{kind} {reason}"), packets))
        };
        let mut frames: BTreeMap<_, _> = named("dropped", status.dropped).collect();
        frames.extend(named("passed", status.passed));
        if let Some(server) = status.server {
            for (kind, results) in server.requests {
                for (result, paths) in results {
                    frames.insert(format!("server {kind} {result} in XDP"), paths.xdp);
                    frames.insert(format!("server {kind} {result}"), paths.userspace);
                }
            }
        }
        Ok(frames)
    }
}
