//! The fast path on this host, in virtual time.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Result, ensure};
use ipnet::Ipv6Net;
use teredo_common::{
    budget::Budget,
    maps::Counter,
    peers::Peer,
    time::Instant,
    verdict::Action,
    vlan::{Tags, Trunk},
};
use teredo_datapath::{
    Fate,
    host::{Arrival, Cpu, Maps, RouteTable},
};

use crate::{
    FastPath, Outcome,
    site::{self, LAN, OWN_IPV4, Port, Setup, WAN},
};

/// Indices of the interfaces WAN, LAN and the other one.
const INTERFACES: [u32; 3] = [2, 3, 4];
/// Index of the tunnel interface.
const TUNNEL: u32 = 5;
/// Time that passes with each frame.
const STEP: Duration = Duration::from_micros(40);

/// The data path on the [`site`], without a kernel.
#[derive(Debug)]
pub struct HostPath {
    /// The maps.
    pub maps: Maps,
    /// The only CPU.
    pub cpu: Cpu,
    routes: RouteTable,
    interfaces: [u32; 3],
    now: Instant,
}

impl HostPath {
    /// Returns a data path without peers.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        Self::on(setup, INTERFACES, TUNNEL)
    }

    /// Returns a data path without peers whose interfaces WAN, LAN and the other one have these indices.
    #[must_use]
    pub fn on(setup: &Setup, interfaces: [u32; 3], tunnel: u32) -> Self {
        let mut maps = Maps::new(setup.settings(tunnel), setup.max_peers, 0x5eed);
        if !setup.served.contains(&Ipv6Net::default()) {
            maps.serve(setup.served.clone());
        }
        if let Some(config) = &setup.server {
            maps.set_server(config.fast_path(setup.one_interface), config.allow.clone());
        }
        if setup.budget != Budget::default() {
            maps.set_budget(setup.budget);
        }
        maps.set_own_ipv4(OWN_IPV4);
        let [wan, lan, other] = interfaces;
        for (index, station, tags) in [(wan, WAN, setup.tags[0]), (lan, LAN, setup.tags[1])] {
            let trunk = Trunk {
                interface: other,
                tags,
            };
            match tags {
                Tags::NONE => maps.add_interface(index, station),
                _ => maps.add_vlan(index, station, trunk),
            }
        }
        Self {
            maps,
            cpu: Cpu::default(),
            routes: site::routes(interfaces),
            interfaces,
            now: Instant::from_nanos(1_000_000_000_000),
        }
    }

    /// Sets the clock of stamps.
    pub fn set_clock(&mut self, now: Instant) {
        self.now = now;
    }
}

impl FastPath for HostPath {
    fn now(&self) -> Instant {
        self.now
    }

    fn insert(&mut self, address: Ipv6Addr, peer: Peer) -> Result<()> {
        ensure!(
            self.maps.insert(&address.octets(), &peer, self.now),
            "no room"
        );
        Ok(())
    }

    fn remove(&mut self, address: Ipv6Addr) -> Result<()> {
        self.maps.remove(&address.octets(), self.now);
        Ok(())
    }

    fn set_draining(&mut self, end: Option<Instant>) -> Result<()> {
        self.maps.set_draining(end);
        Ok(())
    }

    fn run(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        self.now += STEP;
        let arrival = Arrival {
            frame,
            ingress: self.interfaces[port as usize],
            now: self.now,
        };
        let outcome = self.maps.run(&self.cpu, &self.routes, arrival);
        let verdict = outcome.verdict;
        let fits = match verdict.action() {
            Action::Drop => outcome.fate == Fate::Drop,
            Action::Pass => outcome.fate == Fate::Pass,
            Action::Forward => matches!(outcome.fate, Fate::Return | Fate::Redirect(_)),
        };
        ensure!(fits, "{verdict:?} gives {:?}", outcome.fate);
        ensure!(self.cpu.counter(verdict) != Counter::default());
        Ok(Outcome {
            verdict,
            same_interface: outcome.fate == Fate::Return,
            frame: outcome.frame,
        })
    }
}
