//! The daemon's table of peers, in memory that it shares with the program. [`teredo_datapath::table`]
//! writes the entries.
//!
//! Only the part in use is mapped: the kernel counts mapped pages as memory of the process, and the
//! whole table would be most of it.

use std::{
    io,
    num::NonZeroUsize,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    slice,
    sync::atomic::AtomicU64,
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use teredo_common::maps::{MAX_REACH, NextHop, Peer, PeerTable, ROUTE_SETS_MAX, RouteSet, Slot};
use teredo_datapath::{
    table::{self, NEIGHBOURHOOD, Neighbourhood, Table},
    words::SLOT,
};

/// Slots that are mapped at a time when all are visited; they take 1 MiB.
const WINDOW: usize = 16_384;

/// The words of one slot.
type Words = [AtomicU64; SLOT];

/// The table of peers.
#[derive(Debug)]
pub struct PeerMap {
    map: OwnedFd,
    table: Table,
}

/// Returns the parameters of a table for `peers` peers, with a new seed. Half of the table stays
/// empty.
pub fn parameters(peers: u32) -> PeerTable {
    PeerTable {
        seed: rand::random(),
        homes: homes(peers),
        route_sets: route_sets(peers),
    }
}

/// Returns the number of sets of the map of routes for a relay of this size: a power of two.
pub const fn route_sets(peers: u32) -> u32 {
    match peers / 4 {
        0..1024 => 1024,
        ROUTE_SETS_MAX.. => ROUTE_SETS_MAX,
        sets => sets.next_power_of_two(),
    }
}

/// Returns the octets of the map of routes for a relay of this size.
pub const fn routes_size(peers: u32) -> u64 {
    route_sets(peers) as u64 * size_of::<RouteSet>() as u64
}

const fn homes(peers: u32) -> u32 {
    match peers.saturating_mul(2) {
        0 => 1,
        homes => homes,
    }
}

/// Returns the number of entries of the map behind a table.
pub const fn slots(parameters: PeerTable) -> u32 {
    slots_of(parameters.homes)
}

const fn slots_of(homes: u32) -> u32 {
    homes.saturating_add(MAX_REACH as u32)
}

/// Returns the octets of the map behind a table for `peers` peers.
#[must_use]
pub const fn size(peers: u32) -> u64 {
    slots_of(homes(peers)) as u64 * size_of::<Slot>() as u64
}

impl PeerMap {
    /// Wraps a new, empty map of [`slots`] entries as a table for `limit` peers.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be duplicated.
    pub fn new(map: impl AsFd, parameters: PeerTable, limit: u32) -> io::Result<Self> {
        Ok(Self {
            map: map.as_fd().try_clone_to_owned()?,
            table: Table::new(parameters, limit as usize),
        })
    }

    /// Adds or replaces a peer and returns whether there was room. Timestamps that the program has
    /// advanced further stay.
    ///
    /// # Errors
    ///
    /// When the kernel does not map the memory, as in all following methods.
    pub fn insert(&mut self, address: &[u8; 16], peer: &Peer) -> io::Result<bool> {
        let memory = self.neighbourhood(address)?;
        Ok(self.table.insert(&memory, address, peer))
    }

    /// Removes a peer. An absent peer is no error.
    pub fn remove(&mut self, address: &[u8; 16]) -> io::Result<()> {
        let memory = self.neighbourhood(address)?;
        self.table.remove(&memory, address);
        Ok(())
    }

    /// Returns the slot of a peer.
    pub fn get(&self, address: &[u8; 16]) -> io::Result<Option<Slot>> {
        Ok(table::get(&self.neighbourhood(address)?, address))
    }

    /// Sets a peer's next hop, as the program does, and returns whether the peer is present.
    pub fn set_next_hop(&mut self, address: &[u8; 16], next_hop: NextHop) -> io::Result<bool> {
        let memory = self.neighbourhood(address)?;
        Ok(table::set_next_hop(&memory, address, next_hop))
    }

    /// Calls `visit` with every peer.
    pub fn for_each(&mut self, mut visit: impl FnMut(&[u8; 16], &Peer)) -> io::Result<()> {
        let mut count = 0;
        for_each_in(
            &self.map,
            slots(self.table.parameters()),
            |address, peer| {
                count += 1;
                visit(address, peer);
            },
        )?;
        // Another process may have changed the map.
        self.table.set_count(count);
        Ok(())
    }

    fn neighbourhood(&self, address: &[u8; 16]) -> io::Result<Memory> {
        let home = self.table.home(address);
        Memory::map(&self.map, home..home + NEIGHBOURHOOD)
    }
}

/// Calls `visit` with every peer in a table of any parameters.
pub fn for_each_in(
    map: impl AsFd,
    slots: u32,
    mut visit: impl FnMut(&[u8; 16], &Peer),
) -> io::Result<()> {
    let slots = slots as usize;
    for start in (0..slots).step_by(WINDOW) {
        let memory = Memory::map(&map, start..slots.min(start + WINDOW))?;
        for words in memory.slots() {
            let words = &words[..];
            if !table::is_empty(words) {
                let slot = table::read(words);
                visit(&slot.address, &slot.peer());
            }
        }
    }
    Ok(())
}

/// Slots of a table, mapped into memory.
struct Memory {
    start: NonNull<libc::c_void>,
    size: NonZeroUsize,
    /// Octets from `start` to the first slot.
    offset: usize,
    count: usize,
}

impl Memory {
    fn map(map: impl AsFd, slots: Range<usize>) -> io::Result<Self> {
        let page = page_size();
        let octets = slots.start * size_of::<Words>()..slots.end * size_of::<Words>();
        let first = octets.start / page * page;
        let size = NonZeroUsize::new(octets.end.next_multiple_of(page) - first)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so no other mapping is replaced.
        let start = unsafe {
            mmap(
                None,
                size,
                access,
                MapFlags::MAP_SHARED,
                map,
                first as libc::off_t,
            )?
        };
        Ok(Self {
            start,
            size,
            offset: octets.start - first,
            count: slots.len(),
        })
    }

    fn slots(&self) -> &[Words] {
        // SAFETY: the slots are aligned and within the mapping, which lives as long as `self`; the
        // program, too, writes whole words.
        unsafe {
            let first = self.start.byte_add(self.offset).cast::<Words>();
            slice::from_raw_parts(first.as_ptr(), self.count)
        }
    }
}

impl<'a> Neighbourhood for &'a Memory {
    type Words = &'a [AtomicU64];

    fn slot(self, distance: usize) -> Self::Words {
        &self.slots()[distance]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping with this size, and no borrow outlives `self`.
        let result = unsafe { munmap(self.start, self.size.get()) };
        debug_assert_eq!(result, Ok(()));
    }
}

fn page_size() -> usize {
    // SAFETY: the call takes and returns integers only.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, ffi::CString, os::fd::OwnedFd};

    use nix::{
        sys::memfd::{MFdFlags, memfd_create},
        unistd::ftruncate,
    };
    use proptest::prelude::*;
    use teredo_common::{address::Endpoint, generations::FIRST, maps::Version, time::Instant};

    use super::*;

    /// A table in anonymous memory instead of a map.
    fn table(homes: u32, limit: u32) -> PeerMap {
        let parameters = PeerTable {
            seed: 1,
            homes,
            route_sets: 1,
        };
        let name = CString::new("table").unwrap();
        let memory: OwnedFd = memfd_create(name.as_c_str(), MFdFlags::empty()).unwrap();
        let size = size_of::<Slot>() * slots(parameters) as usize;
        ftruncate(&memory, size as i64).unwrap();
        PeerMap::new(&memory, parameters, limit).unwrap()
    }

    fn address(number: u16) -> [u8; 16] {
        let [a, b] = number.to_be_bytes();
        [0x20, 1, 0, 0, 1, 2, 3, 4, 0, 0, 1, 1, 5, 5, a, b]
    }

    fn peer(number: u16) -> Peer {
        Peer {
            mapped: Endpoint::new([9, 9, 9, 9].into(), number),
            flags: Peer::TRUSTED,
            last_received: Instant::from_nanos(number.into()),
            last_sent: Instant::ZERO,
        }
    }

    /// Looks a peer up as the program does, no further than the reach of its home.
    fn found(table: &PeerMap, number: u16) -> bool {
        table
            .get(&address(number))
            .unwrap()
            .is_some_and(|slot| slot.address == address(number))
    }

    #[test]
    fn a_half_full_table_refuses_almost_no_peer() {
        let mut table = table(2 * 10_000, 10_000);
        let taken = (0..10_000)
            .filter(|&number| table.insert(&address(number), &peer(number)).unwrap())
            .count();
        assert!(taken > 9_950, "{taken}");
        assert_eq!(table.table.count(), taken);
    }

    #[test]
    fn removing_a_peer_makes_room_below_the_limit() {
        let mut table = table(64, 2);
        assert!(table.insert(&address(1), &peer(1)).unwrap());
        assert!(table.insert(&address(2), &peer(2)).unwrap());
        assert!(!table.insert(&address(3), &peer(3)).unwrap());
        assert!(
            table.insert(&address(2), &peer(7)).unwrap(),
            "is there already"
        );
        table.remove(&address(1)).unwrap();
        assert!(table.insert(&address(3), &peer(3)).unwrap());
    }

    #[test]
    fn timestamps_only_advance_and_a_new_mapping_clears_the_next_hop() {
        let mut table = table(64, 2);
        table.insert(&address(1), &peer(100)).unwrap();
        let next_hop = NextHop {
            version: Version::default().next(FIRST, 1),
            ..NextHop::default()
        };
        assert!(table.set_next_hop(&address(1), next_hop).unwrap());
        let older = Peer {
            last_received: Instant::from_nanos(50),
            last_sent: Instant::from_nanos(60),
            ..peer(100)
        };
        table.insert(&address(1), &older).unwrap();
        let slot = table.get(&address(1)).unwrap().unwrap();
        assert_eq!(slot.last_received, Instant::from_nanos(100));
        assert_eq!(slot.last_sent, Instant::from_nanos(60));
        assert_eq!(slot.next_hop, next_hop);
        table.insert(&address(1), &peer(101)).unwrap();
        let slot = table.get(&address(1)).unwrap().unwrap();
        assert_eq!(slot.next_hop.version.generation(), NextHop::EMPTY);
        assert_eq!(slot.mapped, peer(101).mapped);
    }

    #[test]
    fn the_map_of_routes_is_as_large_as_the_relay() {
        for (peers, sets) in [
            (0, 1024),
            (5000, 2048),
            (262_144, 65_536),
            (u32::MAX, 65_536),
        ] {
            assert_eq!(route_sets(peers), sets, "{peers}");
        }
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_map(
            homes in 1u32..40,
            steps in prop::collection::vec((any::<bool>(), 0u16..60), 1..400),
        ) {
            let mut table = table(homes, 30);
            let mut model = HashMap::new();
            for (insert, number) in steps {
                if insert {
                    if table.insert(&address(number), &peer(number)).unwrap() {
                        model.insert(address(number), peer(number));
                    }
                } else {
                    table.remove(&address(number)).unwrap();
                    model.remove(&address(number));
                }
                prop_assert!(model.len() <= 30);
                prop_assert_eq!(table.table.count(), model.len());
                for number in 0..60 {
                    prop_assert_eq!(found(&table, number), model.contains_key(&address(number)));
                }
            }
            let mut seen = HashMap::new();
            table.for_each(|address, peer| { seen.insert(*address, *peer); }).unwrap();
            prop_assert_eq!(seen, model);
        }
    }
}
