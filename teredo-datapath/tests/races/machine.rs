//! Memory that Loom watches, and a machine around it: one neighbourhood of peers, one interface, and a way
//! to every IPv4 address.

use std::sync::{Mutex, PoisonError};

use bytemuck::Zeroable as _;
use loom::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    budget::{Allowance, Budget, CLASSES},
    checksum, generations,
    maps::{Interface, Peer, PeerTable, Settings, Slot},
    prefixes::TeredoPrefixes,
    respond::ServerConstants,
    time::Instant,
    verdict::Verdict,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP},
};
use teredo_datapath::{
    Addresses, Environment, Fate, Publish, Way, Words,
    host::{Buffer, HEADROOM},
    table::{self, Neighbourhood, Table},
    words::{LAST_RECEIVED, LAST_SENT, ROUTE_SET, SLOT},
};

pub const SECOND: u64 = 1_000_000_000;
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
/// All peers have the same home.
const PARAMETERS: PeerTable = PeerTable {
    seed: 0,
    homes: 1,
    route_sets: 1,
};

const fn endpoint(address: [u8; 4]) -> Endpoint {
    Endpoint {
        address,
        port: [0x10, 0],
    }
}

fn mapped(number: u8) -> Endpoint {
    endpoint([9, 0, 0, number])
}

/// The Teredo address of a peer.
pub fn address(number: u8) -> [u8; 16] {
    TeredoAddress::new([1, 2, 3, 4].into(), mapped(number))
        .encode()
        .octets()
}

/// The station of the way to a mapping.
pub fn way(number: u8) -> [u8; 6] {
    [2, 0, 0, number, number, number]
}

/// The entry of a peer at the mapping of this or another number; its stamps are two seconds old.
pub fn peer(number: u8, at: u8) -> Peer {
    let symmetric = if number == at { 0 } else { Peer::SYMMETRIC };
    Peer {
        mapped: mapped(at),
        flags: Peer::TRUSTED | symmetric,
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

    fn from(self, index: usize) -> Self {
        Self(&self.0[index..])
    }
}

impl Publish for LoomWords<'_> {
    fn publish(self, index: usize, value: u64) {
        match index {
            // Loom does not know that a store cannot come between the load and the store of an earlier
            // exchange; the program exchanges these words.
            LAST_RECEIVED | LAST_SENT => _ = self.0[index].swap(value, Release),
            _ => self.0[index].store(value, Release),
        }
    }
}

/// Nothing is limited.
static NO_BUDGET: Budget = Budget {
    seed: 0,
    allowances: [Allowance::new(0); CLASSES],
};

/// One slot, and one set of routes: the others of the neighbourhood are never reached, as no two peers are
/// in the table at once.
#[derive(Debug)]
pub struct Memory {
    slot: [AtomicU64; SLOT],
    routes: [AtomicU64; ROUTE_SET],
    table: Mutex<Table>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            slot: std::array::from_fn(|_| AtomicU64::new(0)),
            routes: std::array::from_fn(|_| AtomicU64::new(0)),
            table: Mutex::new(Table::new(PARAMETERS, 1)),
        }
    }
}

impl<'a> Neighbourhood for &'a Memory {
    type Words = LoomWords<'a>;

    fn slot(self, distance: usize) -> LoomWords<'a> {
        assert_eq!(distance, 0, "one slot is enough");
        LoomWords(&self.slot)
    }
}

impl Memory {
    pub fn insert(&self, number: u8, peer: &Peer) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(table.insert(self, &address(number), peer));
    }

    pub fn remove(&self, number: u8) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(self, &address(number));
    }

    pub fn get(&self, number: u8) -> Option<Slot> {
        table::get(self, &address(number))
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
        self.decapsulate_to(from, at, NATIVE).0
    }

    /// Runs the program on a packet from a peer to the native host of this number. Returns the fate of the
    /// frame, and its station afterwards.
    pub fn decapsulate_to(&self, from: u8, at: u8, to: u8) -> (Fate, [u8; 6]) {
        let packet = packet(address(from), native(to));
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

    fn ingress(&self) -> u32 {
        INTERFACE
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn peer_table(&self) -> &PeerTable {
        &PARAMETERS
    }

    fn server(&self) -> &ServerConstants {
        &self.server
    }

    fn slot(&self, index: u32) -> Option<LoomWords<'a>> {
        (index == 0).then_some(LoomWords(&self.memory.slot))
    }

    fn route_set(&self, _index: u32) -> Option<LoomWords<'a>> {
        Some(LoomWords(&self.memory.routes))
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
        Some(Interface {
            index: INTERFACE,
            station: STATION,
            reserved: [0; 6],
        })
    }

    fn generation(&self, _bucket: u16) -> u32 {
        generations::number(GENERATION, 0)
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
        Instant::from_nanos(NOW)
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

    fn log(&self, _verdict: Verdict, _length: usize) {}
}
