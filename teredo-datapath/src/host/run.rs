//! One run of the data path.

use core::{cell::Cell, sync::atomic::AtomicU64};
use std::vec::Vec;

use teredo_common::{
    address::Endpoint,
    budget::Budget,
    checksum::Sum,
    generations::{FIRST_BUCKET, Family, HEARTBEAT},
    maps::{Interface, Settings, Tables},
    peers::Sets,
    respond::ServerConstants,
    time::Instant,
    verdict::Verdict,
    vlan::Trunk,
};

use super::{Buffer, Cpu, HEADROOM, Maps, Network};
use crate::{Environment, Fate, Way};
#[cfg(test)]
use teredo_common::traffic::Towards;

#[cfg(test)]
use crate::{
    headers::TeredoAddress,
    moment::Moment,
    peer::{self, Entry},
};

/// The arrival of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The frame, from its Ethernet header on.
    pub frame: &'a [u8],
    /// Index of the interface.
    pub ingress: u32,
    /// The time on the clock of stamps.
    pub now: Instant,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict, which was counted.
    pub verdict: Verdict,
    /// The fate of the frame.
    pub fate: Fate,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Maps {
    /// Runs the data path on a frame that arrives.
    #[must_use]
    pub fn run(&self, cpu: &Cpu, network: &impl Network, arrival: Arrival<'_>) -> Outcome {
        let run = Run::<_, false> {
            maps: self,
            cpu,
            network,
            buffer: &Buffer::new(arrival.frame, HEADROOM),
            arrival,
            verdict: &Cell::new(Verdict::NotIp),
        };
        let fate = crate::run(&run);
        Outcome {
            verdict: run.verdict.get(),
            fate,
            frame: run.buffer.frame(),
        }
    }
}

#[cfg(test)]
impl Maps {
    /// Returns the mapping of a peer that the data path would forward to at this time.
    pub(crate) fn find(&self, address: &[u8; 16], now: Instant) -> Option<Endpoint> {
        self.meet(address, now, &Cpu::default(), |_, entry| entry.mapped())
    }

    /// Counts a packet to a peer as the data path on this CPU does, and returns whether it is there.
    pub(crate) fn count(&self, address: &[u8; 16], now: Instant, cpu: &Cpu, octets: usize) -> bool {
        let sent = self.meet(address, now, cpu, |run, entry| {
            entry.sent(run, now, octets);
        });
        sent.is_some()
    }

    /// Does something with the entry of a peer that the data path would forward to at this time.
    fn meet<T>(
        &self,
        address: &[u8; 16],
        now: Instant,
        cpu: &Cpu,
        work: impl for<'r> FnOnce(&Run<'r, Nowhere, false>, Entry<&'r [AtomicU64]>) -> T,
    ) -> Option<T> {
        let buffer = &Buffer::new(&[], HEADROOM);
        let run = Run::<_, false> {
            maps: self,
            cpu,
            network: &Nowhere,
            buffer,
            arrival: Arrival {
                frame: &[],
                ingress: 1,
                now,
            },
            verdict: &Cell::new(Verdict::NotIp),
        };
        let entry = peer::find(
            &run,
            TeredoAddress::new(bytemuck::cast(*address)),
            Some(Towards::Peer),
        )?;
        let is_fresh = entry.is_fresh(&run, Moment::of(&run));
        is_fresh.then(|| work(&run, entry))
    }
}

/// There is no way to anywhere.
#[cfg(test)]
struct Nowhere;

#[cfg(test)]
impl Network for Nowhere {
    fn look_up_ipv4(&self, _: u32, _: Endpoint, _: Endpoint) -> Option<Way> {
        None
    }

    fn look_up_ipv6(&self, _: u32, _: core::net::Ipv6Addr, _: core::net::Ipv6Addr) -> Option<Way> {
        None
    }
}

/// A run, of which `IS_THOROUGH` is the [`Environment::IS_THOROUGH`].
struct Run<'a, N, const IS_THOROUGH: bool> {
    maps: &'a Maps,
    cpu: &'a Cpu,
    network: &'a N,
    buffer: &'a Buffer,
    arrival: Arrival<'a>,
    verdict: &'a Cell<Verdict>,
}

// SAFETY: the range lies within the buffer, which only this run reaches.
unsafe impl<'a, N: Network, const IS_THOROUGH: bool> Environment for Run<'a, N, IS_THOROUGH> {
    type Words = &'a [AtomicU64];
    type Thorough<'b>
        = Run<'b, N, true>
    where
        Self: 'b;

    const IS_THOROUGH: bool = IS_THOROUGH;

    fn look_thoroughly(&self) -> Option<Fate> {
        Some(crate::run_thoroughly(self))
    }

    fn thorough(&self, ingress: u32) -> Run<'_, N, true> {
        Run {
            maps: self.maps,
            cpu: self.cpu,
            network: self.network,
            buffer: self.buffer,
            arrival: Arrival {
                ingress,
                ..self.arrival
            },
            verdict: self.verdict,
        }
    }

    fn start(&self) -> usize {
        self.buffer.range().0
    }

    fn end(&self) -> usize {
        self.buffer.range().1
    }

    fn move_start(&self, delta: i32) -> bool {
        self.buffer.move_start(delta)
    }

    fn cut_end(&self, octets: usize) -> bool {
        self.buffer.cut_end(octets)
    }

    fn sum<const OCTETS: usize>(&self, start: *const u8) -> u32 {
        // SAFETY: the octets lie in the buffer, as callers say, and nobody writes them meanwhile.
        let octets = unsafe { core::slice::from_raw_parts(start, OCTETS) };
        u16::from_ne_bytes(Sum::ZERO.add_octets(octets).fold()).into()
    }

    fn ingress(&self) -> u32 {
        self.arrival.ingress
    }

    fn settings(&self) -> &Settings {
        &self.maps.settings
    }

    fn tables(&self) -> &Tables {
        &self.maps.tables
    }

    fn server(&self) -> &ServerConstants {
        &self.maps.server
    }

    fn sets(&self) -> Sets {
        self.maps.sets()
    }

    fn first_route(&self, family: Family) -> Option<Self::Words> {
        Some(self.maps.first_route(family))
    }

    fn line(&self, index: u32) -> Option<Self::Words> {
        self.maps.line(index)
    }

    fn tallies(&self, index: u32) -> Option<&'a [AtomicU64]> {
        self.maps.line(index)
    }

    fn cpu(&self) -> u32 {
        self.cpu.number()
    }

    fn other_peer(&self, address: [u32; 4]) -> Option<u32> {
        self.maps.other_peer(address)
    }

    fn route_set(&self, index: u32) -> Option<Self::Words> {
        self.maps.route_set(index)
    }

    fn bucket(&self, index: u32) -> Option<Self::Words> {
        self.maps.bucket(index)
    }

    fn budget(&self) -> &Budget {
        &self.maps.budget
    }

    fn budgets(&self, index: u32) -> Option<Self::Words> {
        self.maps.budgets(index)
    }

    fn interface(&self, slot: u32) -> Option<Interface> {
        self.maps.interface(slot)
    }

    fn vlan(&self, trunk: Trunk) -> Option<u32> {
        self.maps.vlan(trunk)
    }

    fn trunk(&self, index: u16) -> Option<Trunk> {
        self.maps.trunk(index)
    }

    fn count_vlan_frame(&self) {
        self.cpu.count_vlan_frame();
    }

    fn generation(&self, bucket: u32, _after: u32) -> u32 {
        self.maps.generations(FIRST_BUCKET + bucket as usize)
    }

    fn common_generation(&self, family: Family) -> u32 {
        self.maps.generations(family.common())
    }

    fn heartbeat(&self) -> u32 {
        self.maps.generations(HEARTBEAT)
    }

    fn mark_station(&self, mark: usize) {
        self.maps.mark_station(mark);
    }

    fn draining(&self) -> u64 {
        self.maps.draining()
    }

    fn is_served(&self, address: [u8; 16]) -> bool {
        self.maps.is_served(address)
    }

    fn own_filter(&self, index: u32) -> u32 {
        self.maps.own_filter(index)
    }

    fn is_own_ipv4(&self, address: [u8; 4]) -> bool {
        self.maps.is_own_ipv4(address)
    }

    fn is_allowed(&self, address: [u8; 4]) -> bool {
        self.maps.is_allowed(address)
    }

    fn identification(&self) -> u16 {
        self.cpu.next_identification()
    }

    fn reserve(&self) -> Option<u32> {
        Some(self.cpu.reserve())
    }

    fn set_reserve(&self, tokens: u32) {
        self.cpu.set_reserve(tokens);
    }

    fn count(&self, verdict: Verdict, octets: u64) {
        self.verdict.set(verdict);
        self.cpu.count(verdict, octets);
    }

    fn now(&self) -> Instant {
        self.arrival.now
    }

    fn look_up_ipv4(&self, from: u32, source: Endpoint, destination: Endpoint) -> Option<Way> {
        self.network.look_up_ipv4(from, source, destination)
    }

    fn look_up_ipv6(&self, from: u32, source: [u32; 4], destination: [u32; 4]) -> Option<Way> {
        let address = |words: [u32; 4]| bytemuck::cast::<_, [u8; 16]>(words).into();
        self.network
            .look_up_ipv6(from, address(source), address(destination))
    }
}
