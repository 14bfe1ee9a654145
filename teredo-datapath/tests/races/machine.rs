//! Memory that Loom watches, and a machine around it: a table of peers, one interface, and a way
//! to every IPv4 address.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytemuck::Zeroable as _;
use loom::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    budget::{Allowance, Budget, ROOM},
    checksum,
    generations::{self, Family},
    maps::{Interface, Settings, Tables},
    peers::{FIRST_SET, Hash, LINE, Peer, Sets},
    prefixes::TeredoPrefixes,
    respond::ServerConstants,
    time::Instant,
    traffic::Tallies,
    verdict::Verdict,
    vlan::Trunk,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP},
};
use teredo_datapath::{
    Addresses, Environment, Fate, Publish, Way, Words,
    host::{Buffer, HEADROOM},
    table::{self, Table},
    words::{ROUTE, ROUTE_SET},
};

/// The resolution of stamps.
pub const SECOND: u64 = 1 << 30;
/// The time of every run.
pub const NOW: u64 = 1_000 * SECOND;
/// The generation of cached next hops.
pub const GENERATION: u32 = 70;
/// The last octets of the mapped addresses of two peers.
pub const X: u8 = 1;
pub const Y: u8 = 2;
/// The last octet of a mapped address that is in no peer's address.
pub const ELSEWHERE: u8 = 3;
/// The native host of most packets.
pub const NATIVE: u8 = 0x0b;

const INTERFACE: u32 = 2;
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];
const RELAY: Endpoint = endpoint([5, 6, 7, 8]);
/// With this seed, all peers have the same home.
const SEED: u64 = 197;
const TABLES: Tables = Tables {
    seed: SEED,
    route_sets: 1,
    reserved: 0,
    tallies: Tallies::NONE,
};

/// The address of a client of this server.
const fn of(server: u8, client: u8) -> [u8; 16] {
    [
        0x20, 1, 0, 0, 1, 2, 3, server, 0, 0, 0xef, 0xff, !9, !0, !0, !client,
    ]
}

/// Returns whether all peers have the same home.
pub fn share_home() -> bool {
    let sets = Sets::new(table::sets_max(PEERS));
    let [x, y, mixture] = [address(X), address(Y), mixture()].map(|address| {
        let hash = Hash::of(&address, SEED);
        (sets.set(hash), hash.place())
    });
    x == y && x == mixture
}

const fn endpoint(address: [u8; 4]) -> Endpoint {
    Endpoint {
        address,
        port: [0x10, 0],
    }
}

fn mapped(number: u8) -> Endpoint {
    endpoint([9, 0, 0, number])
}

fn now() -> Instant {
    Instant::from_nanos(NOW)
}

/// The Teredo address of a peer.
pub fn address(number: u8) -> [u8; 16] {
    of(number, number)
}

/// The Teredo address of nobody: half of it is from that of X, and half of it from that of Y.
pub fn mixture() -> [u8; 16] {
    of(X, Y)
}

/// The station of the way to a mapping.
pub fn way(number: u8) -> [u8; 6] {
    [2, 0, 0, number, number, number]
}

/// A peer at the mapping of this number; its stamps are two seconds old.
pub fn peer(at: u8) -> Peer {
    Peer {
        mapped: mapped(at),
        last_received: Instant::from_nanos(NOW - 2 * SECOND),
        last_sent: Instant::from_nanos(NOW - 2 * SECOND),
    }
}

/// The words of one slot or route.
#[derive(Clone, Copy)]
pub struct LoomWords<'a>(&'a [AtomicU64]);

impl Words for LoomWords<'_> {
    fn load(self, index: usize) -> u64 {
        self.0[index].load(Relaxed)
    }

    fn after(self, _value: u64) -> Self {
        fence(Acquire);
        self
    }

    fn store(self, index: usize, value: u64) {
        self.0[index].store(value, Relaxed);
    }

    fn compare_exchange(self, index: usize, old: u64, new: u64) -> bool {
        let exchanged = self.0[index].compare_exchange(old, new, AcqRel, Relaxed);
        if exchanged.is_ok() {
            fence(AcqRel);
        }
        exchanged.is_ok()
    }

    fn add(self, index: usize, value: u64) {
        self.0[index].fetch_add(value, Relaxed);
    }

    fn from(self, index: usize) -> Self {
        Self(&self.0[index..])
    }
}

impl Publish for LoomWords<'_> {
    fn publish(self, index: usize, value: u64) {
        self.0[index].store(value, Release);
    }
}

/// Nothing is limited.
static NO_BUDGET: Budget = Budget {
    seed: 0,
    allowances: [Allowance::new(0); ROOM],
};

/// Peers in the table, at most.
const PEERS: u32 = 2;

/// The lines that are reached: the header, the set in which all peers have the same home, and that of the
/// first slots.
#[derive(Debug)]
pub struct Lines {
    header: [AtomicU64; LINE],
    set: [AtomicU64; LINE],
    slots: [AtomicU64; LINE],
    /// The number of the last slot that was linked, and one: an element of a hash map may belong to another peer by the
    /// time that it is read.
    linked: AtomicU64,
    routes: [AtomicU64; ROUTE_SET],
    front: [AtomicU64; ROUTE],
}

impl Lines {
    fn line(&self, index: u32) -> LoomWords<'_> {
        let hash = Hash::of(&address(X), SEED);
        let set = FIRST_SET + Sets::new(table::sets_max(PEERS)).set(hash);
        let first_slot = FIRST_SET + table::sets_max(PEERS);
        LoomWords(match index {
            0 => &self.header,
            index if index == set => &self.set,
            index if index == first_slot => &self.slots,
            index => unreachable!("line {index}"),
        })
    }
}

impl Default for Lines {
    fn default() -> Self {
        let line = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            header: line(),
            set: line(),
            slots: line(),
            linked: AtomicU64::new(0),
            routes: std::array::from_fn(|_| AtomicU64::new(0)),
            front: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// The lines, of the daemon's table and of the program.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Lines>);

impl table::Memory for Shared {
    type Words<'a> = LoomWords<'a>;
    type Error = Infallible;

    fn line(&self, index: u32) -> LoomWords<'_> {
        self.0.line(index)
    }

    fn use_sets(&self, _sets: Sets) {}

    fn make_room(&mut self, _index: u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn link(&mut self, _address: &[u8; 16], slot: u32) -> Result<(), Infallible> {
        self.0.linked.store(u64::from(slot) + 1, Release);
        Ok(())
    }

    fn unlink(&mut self, _address: &[u8; 16]) -> Result<(), Infallible> {
        self.0.linked.store(0, Release);
        Ok(())
    }
}

/// The table of peers, of which two have the same home, and one set of routes.
#[derive(Debug)]
pub struct Memory {
    lines: Shared,
    table: Mutex<Table<Shared>>,
}

impl Default for Memory {
    fn default() -> Self {
        let lines = Shared::default();
        let Ok(table) = Table::new(
            lines.clone(),
            SEED,
            ServicePrefix::STANDARD,
            PEERS,
            Tallies::NONE,
        );
        Self {
            lines,
            table: Mutex::new(table),
        }
    }
}

impl Memory {
    pub fn insert(&self, number: u8, peer: &Peer) {
        let is_there = self.table().insert(&address(number), peer, now());
        assert_eq!(is_there, Ok(true));
    }

    pub fn remove(&self, number: u8) {
        assert_eq!(self.table().remove(&address(number), now()), Ok(()));
    }

    pub fn get(&self, number: u8) -> Option<Peer> {
        self.table().get(&address(number), now())
    }

    fn table(&self) -> MutexGuard<'_, Table<Shared>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the program on a packet from a native host to a peer. Returns the last octet of the IPv4
    /// destination and the station, if the packet is sent.
    pub fn encapsulate(&self, to: u8) -> Option<(u8, [u8; 6])> {
        let packet = packet(native(NATIVE), address(to));
        let buffer = Buffer::new(&frame(ETHERTYPE_IPV6, &packet), HEADROOM);
        let fate = teredo_datapath::run(&Run::new(self, &buffer));
        (fate == Fate::Return).then(|| {
            let frame = buffer.frame();
            let station = frame[..6].try_into().expect("a frame");
            (frame[14 + 19], station)
        })
    }

    /// Runs the program on a packet from a peer, which comes from the mapping of this or another number, to
    /// a native host.
    pub fn decapsulate(&self, from: u8, at: u8) -> Fate {
        self.decapsulate_from(address(from), at, NATIVE).0
    }

    /// Runs the program on a packet from a peer to the native host of this number. Returns the fate of the
    /// frame, and its station afterwards.
    pub fn decapsulate_to(&self, from: u8, at: u8, to: u8) -> (Fate, [u8; 6]) {
        self.decapsulate_from(address(from), at, to)
    }

    /// Runs the program on a packet from this source, likewise.
    pub fn decapsulate_from(&self, from: [u8; 16], at: u8, to: u8) -> (Fate, [u8; 6]) {
        let packet = packet(from, native(to));
        let length = 8 + packet.len() as u16;
        let mut datagram = vec![0x45, 0];
        datagram.extend((20 + length).to_be_bytes());
        datagram.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
        datagram.extend(mapped(at).address);
        datagram.extend(RELAY.address);
        let sum = checksum::Sum::ZERO.add_octets(&datagram).checksum();
        datagram[10..12].copy_from_slice(&sum);
        datagram.extend(mapped(at).port);
        datagram.extend(RELAY.port);
        datagram.extend(length.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(packet);
        let buffer = Buffer::new(&frame(ETHERTYPE_IPV4, &datagram), HEADROOM);
        let fate = teredo_datapath::run(&Run::new(self, &buffer));
        let station = buffer.frame()[..6].try_into().expect("a frame");
        (fate, station)
    }
}

/// Returns the address of a native host on the link.
fn native(number: u8) -> [u8; 16] {
    [0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number]
}

fn packet(source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8, UDP, 64];
    packet.extend(source);
    packet.extend(destination);
    // The transport's checksum is not looked at; it is not that of the pseudo-header.
    packet.extend([0, 1, 0, 2, 0, 8, 0xab, 0xcd]);
    packet
}

fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = [STATION, [2, 0, 0, 0, 0, 8]].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// A run of the program.
struct Run<'a> {
    memory: &'a Memory,
    buffer: &'a Buffer,
    settings: Settings,
    server: ServerConstants,
}

impl<'a> Run<'a> {
    fn new(memory: &'a Memory, buffer: &'a Buffer) -> Self {
        Self {
            memory,
            buffer,
            settings: Settings {
                peer_lifetime: 30 * SECOND,
                relay: RELAY,
                mtu: 1280,
                prefix: ServicePrefix::STANDARD,
                tunnel: 1,
                flags: 0,
                interface_mask: 0,
                teredo: TeredoPrefixes::STANDARD,
            },
            server: ServerConstants::zeroed(),
        }
    }
}

// SAFETY: the range lies within the buffer, which only this run reaches.
unsafe impl<'a> Environment for Run<'a> {
    type Words = LoomWords<'a>;
    type Thorough<'b>
        = Run<'b>
    where
        Self: 'b;

    const IS_THOROUGH: bool = false;

    fn look_thoroughly(&self) -> Option<Fate> {
        None
    }

    fn thorough(&self, _ingress: u32) -> Run<'_> {
        Run::new(self.memory, self.buffer)
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

    fn sum<const N: usize>(&self, _start: *const u8) -> u32 {
        0
    }

    fn ingress(&self) -> u32 {
        INTERFACE
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn tables(&self) -> &Tables {
        &TABLES
    }

    fn server(&self) -> &ServerConstants {
        &self.server
    }

    fn sets(&self) -> Sets {
        Sets::new(table::sets_max(PEERS))
    }

    fn first_route(&self, _family: Family) -> Option<LoomWords<'a>> {
        Some(LoomWords(&self.memory.lines.0.front))
    }

    fn line(&self, index: u32) -> Option<LoomWords<'a>> {
        Some(self.memory.lines.0.line(index))
    }

    fn tallies(&self, _index: u32) -> Option<LoomWords<'a>> {
        None
    }

    fn cpu(&self) -> u32 {
        0
    }

    fn other_peer(&self, _address: [u32; 4]) -> Option<u32> {
        let linked = self.memory.lines.0.linked.load(Acquire);
        linked.checked_sub(1).map(|slot| slot as u32)
    }

    fn route_set(&self, _index: u32) -> Option<LoomWords<'a>> {
        Some(LoomWords(&self.memory.lines.0.routes))
    }

    fn bucket(&self, _index: u32) -> Option<LoomWords<'a>> {
        None
    }

    fn budget(&self) -> &Budget {
        &NO_BUDGET
    }

    fn budgets(&self, _index: u32) -> Option<LoomWords<'a>> {
        None
    }

    fn interface(&self, _slot: u32) -> Option<Interface> {
        Some(Interface::new(INTERFACE, STATION))
    }

    fn vlan(&self, _trunk: Trunk) -> Option<u32> {
        None
    }

    fn trunk(&self, _index: u16) -> Option<Trunk> {
        None
    }

    fn count_vlan_frame(&self) {}

    fn generation(&self, _bucket: u32, _after: u32) -> u32 {
        generations::number(GENERATION, 0, false)
    }

    fn common_generation(&self, _family: Family) -> u32 {
        GENERATION
    }

    fn heartbeat(&self) -> u32 {
        generations::seconds(self.now())
    }

    fn mark_station(&self, _mark: usize) {}

    fn draining(&self) -> u64 {
        0
    }

    fn is_served(&self, _address: [u8; 16]) -> bool {
        true
    }

    fn own_filter(&self, _index: u32) -> u32 {
        0
    }

    fn is_own_ipv4(&self, _address: [u8; 4]) -> bool {
        false
    }

    fn is_allowed(&self, _address: [u8; 4]) -> bool {
        true
    }

    fn identification(&self) -> u16 {
        0
    }

    fn reserve(&self) -> Option<u32> {
        None
    }

    fn set_reserve(&self, _tokens: u32) {}

    fn count(&self, _verdict: Verdict, _octets: u64) {}

    fn now(&self) -> Instant {
        now()
    }

    fn look_up_ipv4(&self, _from: u32, _source: Endpoint, destination: Endpoint) -> Option<Way> {
        let [.., last] = destination.address;
        Some(Way {
            interface: INTERFACE,
            mtu: 1500,
            addresses: Addresses::new(way(last), STATION),
            has_gateway: false,
        })
    }

    fn look_up_ipv6(&self, _from: u32, _: [u32; 4], destination: [u32; 4]) -> Option<Way> {
        let [.., last] = bytemuck::cast::<_, [u8; 16]>(destination);
        Some(Way {
            interface: INTERFACE,
            mtu: 1500,
            addresses: Addresses::new(way(last), STATION),
            has_gateway: false,
        })
    }
}
