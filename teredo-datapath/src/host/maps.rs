//! The maps that all CPUs and the daemon share.

use core::{
    convert::Infallible,
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use std::{
    boxed::Box,
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    vec::Vec,
};

use bytemuck::Zeroable as _;
use ipnet::{Ipv4Net, Ipv6Net};
use teredo_common::{
    budget::{self, Budget},
    cookie::CookieKey,
    generations::{self, FIRST_GENERATION, Family, HEARTBEAT, NUMBERS},
    limiter::BUCKETS,
    maps::{
        INTERFACES_MAX, Interface, OWN_FILTER_WORDS, STATION_MARKS, Settings, Tables,
        own_filter_bit,
    },
    peers::{LINE, Peer, Sets},
    respond::ServerConstants,
    time::Instant,
    traffic::Traffic,
    vlan::Trunk,
};

use crate::{
    table::{Cursor, Memory, Table, collect_in, lines, tallies},
    words::{ROUTE, ROUTE_SET},
};

/// Sets of routes: fewer than in the kernel, as many of these maps are made.
const ROUTE_SETS: u32 = 256;
/// CPUs with words of their own to count with: fewer than there may be.
const OWN_CPUS: u16 = 2;

/// The constants and the maps that the daemon fills.
#[derive(Debug)]
pub struct Maps {
    pub(super) settings: Settings,
    pub(super) tables: Tables,
    pub(super) server: ServerConstants,
    routes: Box<[[AtomicU64; ROUTE_SET]]>,
    lines: PeerMaps,
    peers: Mutex<Table<PeerMaps>>,
    buckets: Box<[AtomicU64]>,
    pub(super) budget: Budget,
    budgets: Box<[AtomicU64]>,
    interfaces: Vec<Interface>,
    vlans: HashMap<Trunk, u32>,
    trunks: Vec<Trunk>,
    generations: Box<[AtomicU32]>,
    first_routes: [[AtomicU64; ROUTE]; 2],
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
        let tallies = tallies(peers, OWN_CPUS, true);
        let lines = PeerMaps(Arc::new(Shared {
            lines: (0..lines(peers) + tallies.count())
                .map(|_| Default::default())
                .collect(),
            slots: RwLock::default(),
            sets: AtomicU64::new(0),
        }));
        let Ok(table) = Table::new(lines.clone(), seed, settings.prefix, peers, tallies);
        Self {
            settings: Settings {
                interface_mask: INTERFACES_MAX - 1,
                ..settings
            },
            tables: Tables {
                seed,
                route_sets: ROUTE_SETS,
                reserved: 0,
                tallies,
            },
            server: ServerConstants::zeroed(),
            routes: (0..ROUTE_SETS).map(|_| Default::default()).collect(),
            lines,
            peers: Mutex::new(table),
            buckets: Box::default(),
            budget: Budget::default(),
            budgets: Box::default(),
            interfaces: [Interface::default(); INTERFACES_MAX as usize].to_vec(),
            vlans: HashMap::new(),
            trunks: [Trunk::default()].to_vec(),
            generations: (0..NUMBERS).map(|_| AtomicU32::new(0)).collect(),
            first_routes: Default::default(),
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
        self.interfaces[slot as usize] = Interface::new(index, station);
    }

    /// Adds a VLAN interface, whose frames have tags at another, which need not be one of the interfaces.
    pub fn add_vlan(&mut self, index: u32, station: [u8; 6], trunk: Trunk) {
        let slot = Interface::slot(index, self.settings.interface_mask);
        self.interfaces[slot as usize] = Interface {
            trunk: self.trunks.len() as u16,
            ..Interface::new(index, station)
        };
        self.trunks.push(trunk);
        self.vlans.insert(trunk, index);
    }

    /// Sets the generation of all buckets of destinations, and the bits that decide about the route of a
    /// destination, as a daemon does that lives until then.
    pub fn set_generation(&self, generation: u32, shared_bits: u8, now: Instant) {
        self.generations[HEARTBEAT].store(generations::seconds(now), Release);
        let number = generations::number(generation, shared_bits, false);
        for generation in &self.generations[FIRST_GENERATION..] {
            generation.store(number, Release);
        }
    }

    /// Makes the server answer no more solicitations and, from `end` on, forward no more bubbles.
    pub fn set_draining(&self, end: Option<Instant>) {
        let end = end.map_or(0, |end| end.as_nanos().max(1));
        self.draining.store(end, Release);
    }

    /// Adds or replaces a peer, and returns whether there was room.
    pub fn insert(&self, address: &[u8; 16], peer: &Peer, now: Instant) -> bool {
        let heartbeat = &self.generations[HEARTBEAT];
        heartbeat.fetch_max(generations::gone(now), Relaxed);
        let Ok(is_there) = self.peers().insert(address, peer, now);
        is_there
    }

    /// Removes a peer. An absent peer is no error.
    pub fn remove(&self, address: &[u8; 16], now: Instant) {
        let Ok(()) = self.peers().remove(address, now);
    }

    /// Returns a peer.
    #[must_use]
    pub fn peer(&self, address: &[u8; 16], now: Instant) -> Option<Peer> {
        self.peers().get(address, now)
    }

    /// Calls `visit` with every peer.
    pub fn for_each_peer(&self, now: Instant, visit: impl FnMut(&[u8; 16], &Peer)) {
        self.peers().for_each(now, visit);
    }

    /// Calls `visit` with the peers in the next part of the table, each with its traffic since the last visit, and returns
    /// whether that was the last part.
    pub fn visit_peers(
        &self,
        cursor: &mut Cursor,
        most: usize,
        now: Instant,
        visit: impl FnMut(&[u8; 16], &Peer, Traffic),
    ) -> bool {
        self.peers().visit(cursor, most, now, visit)
    }

    /// Returns the traffic of peers at places that they have left, since the last call.
    #[must_use]
    pub fn take_left(&self) -> Vec<([u8; 16], Traffic)> {
        self.peers().take_left()
    }

    /// Calls `visit` with the traffic that was not visited yet, as the next daemon does.
    pub fn collect(&self, visit: impl FnMut(&[u8; 16], Traffic)) {
        let lines = &self.lines.0.lines;
        collect_in(
            lines.len() as u32,
            |index| &lines[index as usize][..],
            visit,
        );
    }

    /// Returns the number of peers in slots.
    #[must_use]
    pub fn peers_in_slots(&self) -> usize {
        self.peers().count_in_slots()
    }

    fn peers(&self) -> MutexGuard<'_, Table<PeerMaps>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the token buckets of the server; none without one.
    #[must_use]
    pub fn buckets(&self) -> Vec<u64> {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.load(Relaxed)).collect()
    }

    pub(super) fn line(&self, index: u32) -> Option<&[AtomicU64]> {
        let lines = &self.lines.0.lines;
        lines.get(index as usize).map(|line| &line[..])
    }

    pub(super) fn other_peer(&self, address: [u32; 4]) -> Option<u32> {
        let address: [u8; 16] = bytemuck::cast(address);
        let slots = self.lines.0.slots.read();
        let slots = slots.unwrap_or_else(PoisonError::into_inner);
        slots.get(&address).copied()
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

    pub(super) fn vlan(&self, trunk: Trunk) -> Option<u32> {
        self.vlans.get(&trunk).copied()
    }

    pub(super) fn trunk(&self, index: u16) -> Option<Trunk> {
        self.trunks.get(usize::from(index)).copied()
    }

    pub(super) fn route_set(&self, index: u32) -> Option<&[AtomicU64]> {
        self.routes.get(index as usize).map(|set| &set[..])
    }

    pub(crate) fn sets(&self) -> Sets {
        Sets(self.lines.0.sets.load(Acquire))
    }

    pub(super) fn first_route(&self, family: Family) -> &[AtomicU64] {
        &self.first_routes[family as usize]
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

/// The maps of peers.
#[derive(Clone, Debug)]
struct PeerMaps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lines: Box<[[AtomicU64; LINE]]>,
    slots: RwLock<HashMap<[u8; 16], u32>>,
    sets: AtomicU64,
}

impl Shared {
    fn change_slots<T>(&self, change: impl FnOnce(&mut HashMap<[u8; 16], u32>) -> T) -> T {
        let slots = self.slots.write();
        change(&mut slots.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Memory for PeerMaps {
    type Words<'a> = &'a [AtomicU64];
    type Error = Infallible;

    fn line(&self, index: u32) -> &[AtomicU64] {
        &self.0.lines[index as usize]
    }

    fn use_sets(&self, Sets(sets): Sets) {
        self.0.sets.store(sets, Release);
    }

    fn make_room(&mut self, _index: u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn link(&mut self, address: &[u8; 16], slot: u32) -> Result<(), Infallible> {
        self.0.change_slots(|slots| slots.insert(*address, slot));
        Ok(())
    }

    fn unlink(&mut self, address: &[u8; 16]) -> Result<(), Infallible> {
        self.0.change_slots(|slots| slots.remove(address));
        Ok(())
    }
}
