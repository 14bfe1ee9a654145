//! The maps that all CPUs and the daemon share.

use core::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use std::{boxed::Box, collections::HashSet, vec::Vec};

use bytemuck::Zeroable as _;
use ipnet::{Ipv4Net, Ipv6Net};
use teredo_common::{
    budget::{self, Budget},
    cookie::CookieKey,
    generations::{self, GENERATIONS, HEARTBEAT, NUMBERS},
    limiter::BUCKETS,
    maps::{
        INTERFACES_MAX, Interface, MAX_REACH, NextHop, OWN_FILTER_WORDS, Peer, PeerTable,
        STATION_MARKS, Settings, Slot, own_filter_bit,
    },
    respond::ServerConstants,
    time::Instant,
};

use crate::{
    table::{self, Neighbourhood, Table},
    words::{ROUTE_SET, SLOT},
};

/// Sets of routes: fewer than in the kernel, as many of these maps are made.
const ROUTE_SETS: u32 = 256;

/// The constants and the maps that the daemon fills.
#[derive(Debug)]
pub struct Maps {
    pub(super) settings: Settings,
    pub(super) peer_table: PeerTable,
    pub(super) server: ServerConstants,
    slots: Box<[[AtomicU64; SLOT]]>,
    routes: Box<[[AtomicU64; ROUTE_SET]]>,
    table: Table,
    buckets: Box<[AtomicU64]>,
    pub(super) budget: Budget,
    budgets: Box<[AtomicU64]>,
    interfaces: Vec<Interface>,
    generations: Box<[AtomicU32]>,
    stations: Box<[AtomicBool]>,
    draining: AtomicU64,
    served: Vec<Ipv6Net>,
    own_ipv4: HashSet<[u8; 4]>,
    own_filter: [u32; OWN_FILTER_WORDS as usize],
    allowed: Vec<Ipv4Net>,
}

impl Maps {
    /// Returns maps for the constants, with room for `peers` peers in a table of this seed. Nothing is
    /// served, own or an interface yet.
    #[must_use]
    pub fn new(settings: Settings, peers: u32, seed: u64) -> Self {
        let peer_table = PeerTable {
            seed,
            homes: peers.saturating_mul(2).max(1),
            route_sets: ROUTE_SETS,
        };
        let slots = peer_table.homes as usize + usize::from(MAX_REACH);
        Self {
            settings: Settings {
                interface_mask: INTERFACES_MAX - 1,
                ..settings
            },
            peer_table,
            server: ServerConstants::zeroed(),
            slots: (0..slots).map(|_| Default::default()).collect(),
            routes: (0..ROUTE_SETS).map(|_| Default::default()).collect(),
            table: Table::new(peer_table, peers as usize),
            buckets: Box::default(),
            budget: Budget::default(),
            budgets: Box::default(),
            interfaces: [Interface::default(); INTERFACES_MAX as usize].to_vec(),
            generations: (0..NUMBERS).map(|_| AtomicU32::new(0)).collect(),
            stations: (0..STATION_MARKS).map(|_| AtomicBool::default()).collect(),
            draining: AtomicU64::new(0),
            served: Vec::new(),
            own_ipv4: HashSet::new(),
            own_filter: Default::default(),
            allowed: Vec::new(),
        }
    }

    /// Adds a server that serves these networks, or all of them if there are none.
    pub fn set_server(&mut self, server: ServerConstants, allowed: Vec<Ipv4Net>) {
        self.server = server;
        self.allowed = allowed;
        self.buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
    }

    /// Limits what is left to the daemon.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
        self.budgets = (0..budget::WORDS).map(|_| AtomicU64::new(0)).collect();
    }

    /// Makes the data path recognise a relay's cookies, which are older than the clock says by `skipped`
    /// nanoseconds, if there is a budget.
    pub fn set_cookies(&self, CookieKey([first, second]): CookieKey, skipped: u64) {
        for (index, word) in (budget::SKIPPED..).zip([skipped, first, second]) {
            if let Some([stored, ..]) = self.budgets(index) {
                stored.store(word, Relaxed);
            }
        }
    }

    /// Restricts native destinations to these prefixes.
    pub fn serve(&mut self, served: Vec<Ipv6Net>) {
        self.settings.flags |= Settings::SERVES_SOME;
        self.served = served;
    }

    /// Replaces the set of this host's IPv4 addresses.
    pub fn set_own_ipv4(&mut self, addresses: impl IntoIterator<Item = [u8; 4]>) {
        self.own_ipv4 = addresses.into_iter().collect();
        self.own_filter = Default::default();
        for &address in &self.own_ipv4 {
            let (index, bit) = own_filter_bit(address);
            self.own_filter[index as usize] |= bit;
        }
    }

    /// Adds an interface by which packets may arrive and leave.
    pub fn add_interface(&mut self, index: u32, station: [u8; 6]) {
        let slot = Interface::slot(index, self.settings.interface_mask);
        self.interfaces[slot as usize] = Interface {
            index,
            station,
            reserved: [0; 6],
        };
    }

    /// Sets the generation of all buckets of destinations, and the bits that decide about the route of an
    /// IPv6 destination, as a daemon does that lives until then.
    pub fn set_generation(&self, generation: u32, shared_bits: u8, now: Instant) {
        self.generations[HEARTBEAT].store(generations::seconds(now), Release);
        let number = generations::number(generation, shared_bits);
        for bucket in &self.generations[..GENERATIONS] {
            bucket.store(number, Release);
        }
    }

    /// Makes the server answer no more solicitations and, from `end` on, forward no more bubbles.
    pub fn set_draining(&self, end: Option<Instant>) {
        let end = end.map_or(0, |end| end.as_nanos().max(1));
        self.draining.store(end, Release);
    }

    /// Adds or replaces a peer, and returns whether there was room.
    pub fn insert(&mut self, address: &[u8; 16], peer: &Peer) -> bool {
        let near = Near(&self.slots[self.table.home(address)..]);
        self.table.insert(near, address, peer)
    }

    /// Removes a peer. An absent peer is no error.
    pub fn remove(&mut self, address: &[u8; 16]) {
        let near = Near(&self.slots[self.table.home(address)..]);
        self.table.remove(near, address);
    }

    /// Returns the slot of a peer.
    #[must_use]
    pub fn peer(&self, address: &[u8; 16]) -> Option<Slot> {
        table::get(self.near(address), address)
    }

    /// Sets a peer's next hop, as the program does, and returns whether the peer is present.
    pub fn set_next_hop(&self, address: &[u8; 16], next_hop: NextHop) -> bool {
        table::set_next_hop(self.near(address), address, next_hop)
    }

    /// Calls `visit` with every peer.
    pub fn for_each_peer(&self, mut visit: impl FnMut(&[u8; 16], &Peer)) {
        for words in &self.slots {
            let words = &words[..];
            if !table::is_empty(words) {
                let slot = table::read(words);
                visit(&slot.address, &slot.peer());
            }
        }
    }

    /// Returns the token buckets of the server; none without one.
    #[must_use]
    pub fn buckets(&self) -> Vec<u64> {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.load(Relaxed)).collect()
    }

    fn near(&self, address: &[u8; 16]) -> Near<'_> {
        Near(&self.slots[self.table.home(address)..])
    }

    pub(super) fn slot(&self, index: u32) -> Option<&[AtomicU64]> {
        self.slots.get(index as usize).map(|slot| &slot[..])
    }

    pub(super) fn bucket(&self, index: u32) -> Option<&[AtomicU64]> {
        self.buckets.get(index as usize).map(core::slice::from_ref)
    }

    pub(super) fn budgets(&self, index: u32) -> Option<&[AtomicU64]> {
        self.budgets.get(index as usize).map(core::slice::from_ref)
    }

    pub(super) fn interface(&self, slot: u32) -> Option<Interface> {
        self.interfaces.get(slot as usize).copied()
    }

    pub(super) fn route_set(&self, index: u32) -> Option<&[AtomicU64]> {
        self.routes.get(index as usize).map(|set| &set[..])
    }

    pub(super) fn generations(&self, index: usize) -> u32 {
        self.generations[index].load(Acquire)
    }

    pub(super) fn mark_station(&self, mark: usize) {
        self.stations[mark].store(true, Relaxed);
    }

    pub(super) fn draining(&self) -> u64 {
        self.draining.load(Relaxed)
    }

    pub(super) fn is_served(&self, address: [u8; 16]) -> bool {
        let address = Ipv6Addr::from(address);
        self.served.iter().any(|prefix| prefix.contains(&address))
    }

    pub(super) fn own_filter(&self, index: u32) -> u32 {
        self.own_filter[index as usize]
    }

    pub(super) fn is_own_ipv4(&self, address: [u8; 4]) -> bool {
        self.own_ipv4.contains(&address)
    }

    pub(super) fn is_allowed(&self, address: [u8; 4]) -> bool {
        let address = Ipv4Addr::from(address);
        self.allowed
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// The slots from a home on.
#[derive(Clone, Copy)]
struct Near<'a>(&'a [[AtomicU64; SLOT]]);

impl<'a> Neighbourhood for Near<'a> {
    type Words = &'a [AtomicU64];

    fn slot(self, distance: usize) -> Self::Words {
        &self.0[distance]
    }
}
