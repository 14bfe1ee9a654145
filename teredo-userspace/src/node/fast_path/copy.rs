//! A copy of the data path, for explanations.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use teredo_common::time::Instant;
use teredo_datapath::host::Maps;

use super::{FastPath, ProgramPlan, Roles};
use crate::{explain::FastPathFacts, host::Snapshot};

/// The peers that a copy has room for.
const ROOM: u32 = 64;
/// The seed of a copy's table, which nobody attacks.
const SEED: u64 = 1;

impl FastPath {
    /// Returns the data path with the constants of the program that is attached, if there is one, and the
    /// entries of these peers.
    pub fn copy(
        &self,
        host: &Snapshot,
        roles: &Roles<'_>,
        addresses: &[Ipv6Addr],
        now: Instant,
    ) -> Option<FastPathFacts> {
        let (xdp, item) = (self.xdp.as_ref()?, self.item.as_ref()?);
        let plan = ProgramPlan::of(item, host, roles);
        let mut maps = Maps::new(plan.settings, ROOM, SEED);
        if !plan.served.contains(&Ipv6Net::default()) {
            maps.serve(plan.served);
        }
        if let Some(server) = plan.server {
            maps.set_server(server.constants, server.allowed);
        }
        let own = host.own_addresses().ipv4;
        maps.set_own_ipv4(own.iter().map(Ipv4Addr::octets));
        let interfaces = xdp.program.stations().ok()?;
        for &(index, station) in &interfaces {
            maps.add_interface(index, station);
        }
        maps.set_draining(self.draining);
        let entries: Vec<_> = addresses
            .iter()
            .filter_map(|address| Some((*address, xdp.program.peer(&address.octets(), now)?)))
            .collect();
        for (address, entry) in &entries {
            maps.insert(&address.octets(), entry, now);
        }
        Some(FastPathFacts {
            maps,
            interfaces,
            entries,
        })
    }
}
