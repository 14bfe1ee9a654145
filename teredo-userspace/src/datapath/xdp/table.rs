//! The daemon's side of the table of peers; [`teredo_common::maps`] describes it.
//!
//! The table lies in memory that the program reads and writes at the same time, so everything here
//! is atomic words. The order of the writes is such that the program finds a peer with all of its
//! fields or not at all.
//!
//! Only the part in use is mapped. The kernel counts what is mapped as memory of the process, and
//! the table would be most of it.

use std::{
    io,
    mem::offset_of,
    num::NonZeroUsize,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    slice,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use teredo_common::maps::{MAX_REACH, NextHop, Peer, PeerTable, Slot};

const WORDS: usize = size_of::<Slot>() / 8;
/// Word of the mapping, the flags and the reach.
const MAPPED: usize = offset_of!(Slot, mapped) / 8;
const LAST_RECEIVED: usize = offset_of!(Slot, last_received) / 8;
const LAST_SENT: usize = offset_of!(Slot, last_sent) / 8;
const NEXT_HOP: usize = offset_of!(Slot, next_hop) / 8;

/// Slots that are mapped at a time when all are visited: 1 MiB.
const WINDOW: usize = 16_384;

/// The words of one slot.
type Words = [AtomicU64; WORDS];

/// The table.
#[derive(Debug)]
pub struct Table {
    map: OwnedFd,
    parameters: PeerTable,
    count: usize,
    limit: usize,
}

/// Parameters of a table for so many peers, with a new seed: half of it stays empty.
pub fn parameters(peers: u32) -> PeerTable {
    PeerTable {
        seed: rand::random(),
        homes: homes(peers),
        reserved: 0,
    }
}

const fn homes(peers: u32) -> u32 {
    match peers.saturating_mul(2) {
        0 => 1,
        homes => homes,
    }
}

/// Entries of the map behind a table.
pub const fn slots(parameters: PeerTable) -> u32 {
    slots_of(parameters.homes)
}

const fn slots_of(homes: u32) -> u32 {
    homes.saturating_add(MAX_REACH as u32)
}

/// Octets that the map behind a table for so many peers holds, whatever is in it.
#[must_use]
pub const fn size(peers: u32) -> u64 {
    slots_of(homes(peers)) as u64 * size_of::<Slot>() as u64
}

impl Table {
    /// Takes a new, empty map of [`slots`] entries, for `limit` peers.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be duplicated.
    pub fn new(map: impl AsFd, parameters: PeerTable, limit: u32) -> io::Result<Self> {
        Ok(Self {
            map: map.as_fd().try_clone_to_owned()?,
            parameters,
            count: 0,
            limit: limit as usize,
        })
    }

    /// Adds or replaces a peer; whether there was room. Stamps that the program has moved further
    /// stay.
    ///
    /// # Errors
    ///
    /// When the kernel does not map the memory; so for all that follow.
    pub fn insert(&mut self, address: &[u8; 16], peer: &Peer) -> io::Result<bool> {
        let near = self.neighbourhood(address)?;
        if let Some(words) = near.find(address) {
            replace(words, peer);
            return Ok(true);
        }
        if self.count >= self.limit {
            return Ok(false);
        }
        let added = near.add(address, peer);
        self.count += usize::from(added);
        Ok(added)
    }

    /// Removes a peer; no matter if it is not there.
    pub fn remove(&mut self, address: &[u8; 16]) -> io::Result<()> {
        let near = self.neighbourhood(address)?;
        if let Some(words) = near.find(address) {
            words[0].store(0, Release);
            words[1].store(0, Release);
            set_mapped(words, &Peer::default());
            near.set_reach(near.measure_reach(self.parameters));
            self.count = self.count.saturating_sub(1);
        }
        Ok(())
    }

    /// One peer.
    pub fn get(&self, address: &[u8; 16]) -> io::Result<Option<Slot>> {
        Ok(self.neighbourhood(address)?.find(address).map(read))
    }

    /// Sets a peer's next hop, as the program does; whether the peer is there.
    pub fn set_next_hop(&mut self, address: &[u8; 16], next_hop: NextHop) -> io::Result<bool> {
        let near = self.neighbourhood(address)?;
        let Some(words) = near.find(address) else {
            return Ok(false);
        };
        let new: [u64; WORDS - NEXT_HOP] = bytemuck::cast(next_hop);
        for (word, new) in words[NEXT_HOP..].iter().zip(new) {
            word.store(new, Relaxed);
        }
        Ok(true)
    }

    /// Shows every peer to `visit`.
    pub fn for_each(&mut self, mut visit: impl FnMut(&[u8; 16], &Peer)) -> io::Result<()> {
        let mut count = 0;
        for_each_in(&self.map, slots(self.parameters), |address, peer| {
            count += 1;
            visit(address, peer);
        })?;
        // Whatever somebody else has done to the map.
        self.count = count;
        Ok(())
    }

    fn neighbourhood(&self, address: &[u8; 16]) -> io::Result<Neighbourhood> {
        let home = self.parameters.home(bytemuck::cast(*address)) as usize;
        let memory = Memory::map(&self.map, home..home + usize::from(MAX_REACH) + 1)?;
        Ok(Neighbourhood { memory, home })
    }
}

/// Shows every peer in a table, whatever its parameters, to `visit`.
pub fn for_each_in(
    map: impl AsFd,
    slots: u32,
    mut visit: impl FnMut(&[u8; 16], &Peer),
) -> io::Result<()> {
    let slots = slots as usize;
    for start in (0..slots).step_by(WINDOW) {
        let memory = Memory::map(&map, start..slots.min(start + WINDOW))?;
        for words in memory.slots() {
            if words[0].load(Relaxed) != 0 {
                let slot = read(words);
                visit(&slot.address, &slot.peer());
            }
        }
    }
    Ok(())
}

/// The slots where a peer may be.
struct Neighbourhood {
    memory: Memory,
    home: usize,
}

impl Neighbourhood {
    fn find(&self, address: &[u8; 16]) -> Option<&Words> {
        let reach = usize::from(self.reach());
        let mut near = self.memory.slots().iter().take(reach + 1);
        near.find(|words| address_in(words) == *address)
    }

    /// Puts a new peer into the nearest empty slot; whether there is one.
    fn add(&self, address: &[u8; 16], peer: &Peer) -> bool {
        let mut near = self.memory.slots().iter().enumerate();
        let Some((distance, words)) = near.find(|(_, words)| address_in(words) == [0; 16]) else {
            return false;
        };
        // The last owner's, which the program may have written after it was removed.
        words[NEXT_HOP].store(0, Relaxed);
        words[LAST_RECEIVED].store(peer.last_received.as_nanos(), Relaxed);
        words[LAST_SENT].store(peer.last_sent.as_nanos(), Relaxed);
        set_mapped(words, peer);
        // The second half makes no address alone, as the first is never zero.
        let [first, second] = bytemuck::cast::<_, [u64; 2]>(*address);
        words[1].store(second, Release);
        words[0].store(first, Release);
        self.set_reach(self.reach().max(distance as u8));
        true
    }

    fn reach(&self) -> u8 {
        read(&self.memory.slots()[0]).reach
    }

    fn set_reach(&self, reach: u8) {
        change(&self.memory.slots()[0], |slot| slot.reach = reach);
    }

    /// The largest distance of a peer whose home this is.
    fn measure_reach(&self, parameters: PeerTable) -> u8 {
        let lives_here = |words: &Words| {
            let address = address_in(words);
            address != [0; 16] && parameters.home(bytemuck::cast(address)) as usize == self.home
        };
        let last = self.memory.slots().iter().rposition(lives_here);
        last.unwrap_or(0) as u8
    }
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
        // SAFETY: at an address of the kernel's choice, so over nothing else.
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
        // SAFETY: within the mapping, which lives as long as `self`; pages and slots are aligned.
        // The kernel writes by single instructions too.
        unsafe {
            let first = self.start.byte_add(self.offset).cast::<Words>();
            slice::from_raw_parts(first.as_ptr(), self.count)
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped with this size, and no borrow outlives `self`.
        let result = unsafe { munmap(self.start, self.size.get()) };
        debug_assert_eq!(result, Ok(()));
    }
}

fn page_size() -> usize {
    // SAFETY: numbers only.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

fn replace(words: &Words, peer: &Peer) {
    let old = read(words);
    if (old.mapped, u16::from(old.flags)) != (peer.mapped, peer.flags) {
        set_mapped(words, peer);
        // A way to the old endpoint.
        words[NEXT_HOP].store(0, Release);
    }
    // The program may be ahead.
    words[LAST_RECEIVED].fetch_max(peer.last_received.as_nanos(), Relaxed);
    words[LAST_SENT].fetch_max(peer.last_sent.as_nanos(), Relaxed);
}

fn set_mapped(words: &Words, peer: &Peer) {
    change(words, |slot| {
        slot.mapped = peer.mapped;
        slot.flags = peer.flags as u8;
    });
}

/// Changes mapping, flags and reach, which nobody else writes, at once.
fn change(words: &Words, change: impl FnOnce(&mut Slot)) {
    let mut slot = read(words);
    change(&mut slot);
    let new: [u64; WORDS] = bytemuck::cast(slot);
    words[MAPPED].store(new[MAPPED], Release);
}

fn address_in(words: &Words) -> [u8; 16] {
    bytemuck::cast([words[0].load(Acquire), words[1].load(Acquire)])
}

fn read(words: &Words) -> Slot {
    let words: [u64; WORDS] = std::array::from_fn(|index| words[index].load(Acquire));
    bytemuck::cast(words)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, ffi::CString, os::fd::OwnedFd};

    use nix::{
        sys::memfd::{MFdFlags, memfd_create},
        unistd::ftruncate,
    };
    use proptest::prelude::*;
    use teredo_common::{address::Endpoint, time::Instant};

    use super::*;

    /// A table in memory of no map.
    fn table(homes: u32, limit: u32) -> Table {
        let parameters = PeerTable {
            seed: 1,
            homes,
            reserved: 0,
        };
        let name = CString::new("table").unwrap();
        let memory: OwnedFd = memfd_create(name.as_c_str(), MFdFlags::empty()).unwrap();
        let size = size_of::<Slot>() * slots(parameters) as usize;
        ftruncate(&memory, size as i64).unwrap();
        Table::new(&memory, parameters, limit).unwrap()
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

    /// What the program does: look no further than the reach of the home.
    fn found(table: &Table, number: u16) -> bool {
        table
            .get(&address(number))
            .unwrap()
            .is_some_and(|slot| slot.address == address(number))
    }

    #[test]
    fn a_table_for_half_as_many_peers_as_slots_takes_nearly_all() {
        let mut table = table(2 * 10_000, 10_000);
        let taken = (0..10_000)
            .filter(|&number| table.insert(&address(number), &peer(number)).unwrap())
            .count();
        assert!(taken > 9_950, "{taken}");
        assert_eq!(table.count, taken);
    }

    #[test]
    fn the_limit_is_kept_and_room_is_made() {
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
    fn stamps_only_move_forward_and_a_new_mapping_has_no_way() {
        let mut table = table(64, 2);
        table.insert(&address(1), &peer(100)).unwrap();
        let next_hop = NextHop {
            generation: 7,
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
        assert_eq!(slot.next_hop, NextHop::default());
        assert_eq!(slot.mapped, peer(101).mapped);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
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
                prop_assert_eq!(table.count, model.len());
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
