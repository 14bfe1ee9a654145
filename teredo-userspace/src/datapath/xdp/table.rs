//! The daemon's table of peers, in memory that it shares with the program. [`teredo_datapath::table`]
//! writes the entries.
//!
//! Only the part in use is mapped: the kernel counts mapped pages as memory of the process, and the
//! whole table would be most of it.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Release},
    },
};

use aya::{
    maps::{HashMap, MapData, MapError},
    util::{nr_cpus, online_cpus},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use teredo_common::{
    address::ServicePrefix,
    generations::SETS,
    maps::{Line, OTHER_PEERS, PEERS, ROUTE_SETS_MAX, RouteSet, Tables},
    peers::{LINE, Peer, Sets},
    time::Instant,
    traffic::{OWN_CPUS_MAX, Tallies, Traffic},
};
use teredo_datapath::table::{self, Memory, Table};

use super::{buckets::Shared, error::Error};

/// Lines that are mapped at a time; they take 64 KiB, which is a multiple of every page size.
const WINDOW: u32 = 1024;

/// The table of peers.
pub type PeerMap = Table<PeerMaps>;

/// Returns the parameters of the hash tables for `peers` peers, with a new seed. `accounting` tells whether the
/// program counts their traffic.
pub fn parameters(peers: u32, accounting: bool) -> Tables {
    Tables {
        seed: rand::random(),
        route_sets: route_sets(peers),
        reserved: 0,
        tallies: match accounting {
            true => tallies(peers),
            false => Tallies::NONE,
        },
    }
}

/// Returns the part that counts the traffic of peers in a table for `peers` of them on this machine.
fn tallies(peers: u32) -> Tallies {
    let online = online_cpus().ok();
    let online = online.and_then(|online| online.into_iter().max());
    let cpus = online.map_or(0, |last| last.saturating_add(1));
    let cpus = u16::try_from(cpus).unwrap_or(u16::MAX).min(OWN_CPUS_MAX);
    // Others may go online later.
    let has_others = nr_cpus().map_or(true, |possible| possible > cpus.into());
    table::tallies(peers, cpus, has_others)
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

/// Returns the lines of the map for a table of `peers` peers with this part for their traffic.
pub const fn lines(peers: u32, tallies: Tallies) -> u32 {
    table::lines(peers).saturating_add(tallies.count())
}

/// Returns the octets of the maps behind a table for `peers` peers, except for [`tallies_size`]: the lines, and the buckets of the hash map of
/// slots, whose elements take memory when they are used.
#[must_use]
pub const fn size(peers: u32) -> u64 {
    /// Octets of a bucket of the kernel's hash map.
    const BUCKET: u64 = 16;
    let buckets = (peers as u64).next_power_of_two() * BUCKET;
    table::lines(peers) as u64 * size_of::<Line>() as u64 + buckets
}

/// Returns the octets of the part of the map of peers that counts the traffic of `peers` peers: more on a machine with
/// more CPUs.
#[must_use]
pub fn tallies_size(peers: u32) -> u64 {
    u64::from(tallies(peers).count()) * size_of::<Line>() as u64
}

/// Makes a table for `limit` peers with these parameters in new, empty maps, and `numbers`, the map of generations.
///
/// # Errors
///
/// [`Error::Map`].
pub fn new(
    map: impl AsFd,
    slots: HashMap<MapData, [u8; 16], u32>,
    numbers: Arc<Shared<AtomicU32>>,
    tables: Tables,
    prefix: ServicePrefix,
    limit: u32,
) -> Result<PeerMap, Error> {
    let maps = PeerMaps {
        windows: Windows::new(map, lines(limit, tables.tallies))?,
        slots,
        numbers,
    };
    Table::new(maps, tables.seed, prefix, limit, tables.tallies)
}

/// The maps behind a table of peers.
#[derive(Debug)]
pub struct PeerMaps {
    windows: Windows,
    slots: HashMap<MapData, [u8; 16], u32>,
    /// The map of generations.
    numbers: Arc<Shared<AtomicU32>>,
}

impl Memory for PeerMaps {
    type Words<'a> = &'a [AtomicU64];
    type Error = Error;

    fn line(&self, index: u32) -> &[AtomicU64] {
        self.windows.line(index)
    }

    fn use_sets(&self, sets: Sets) {
        // The program finds the set of a peer with either half of the old word and of the new one.
        let halves: [u32; 2] = bytemuck::cast(sets);
        for (number, half) in (*self.numbers).as_ref()[SETS..].iter().zip(halves) {
            number.store(half, Release);
        }
    }

    fn make_room(&mut self, index: u32) -> Result<(), Error> {
        self.windows.make_room(index)
    }

    fn link(&mut self, address: &[u8; 16], slot: u32) -> Result<(), Error> {
        let linked = self.slots.insert(address, slot, 0);
        linked.map_err(|error| Error::map(OTHER_PEERS, error))
    }

    fn unlink(&mut self, address: &[u8; 16]) -> Result<(), Error> {
        match self.slots.remove(address) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(Error::map(OTHER_PEERS, error)),
        }
    }
}

/// Calls `visit` with every peer in the map that an earlier daemon has left; a peer may come twice.
///
/// # Errors
///
/// [`Error::Map`].
pub fn for_each_in(
    map: impl AsFd,
    lines: u32,
    now: Instant,
    visit: impl FnMut(&[u8; 16], &Peer),
) -> Result<(), Error> {
    let mut windows = Windows::new(map, lines)?;
    for index in (0..lines).step_by(WINDOW as usize) {
        windows.make_room(index)?;
    }
    table::for_each_in(lines, |index| windows.line(index), now, visit);
    Ok(())
}

/// Calls `visit` with the traffic in the map that an earlier program used, as far as nobody has collected it; a peer may
/// come twice.
///
/// # Errors
///
/// [`Error::Map`].
pub fn collect_in(
    map: impl AsFd,
    lines: u32,
    visit: impl FnMut(&[u8; 16], Traffic),
) -> Result<(), Error> {
    let mut windows = Windows::new(map, lines)?;
    for index in (0..lines).step_by(WINDOW as usize) {
        windows.make_room(index)?;
    }
    table::collect_in(lines, |index| windows.line(index), visit);
    Ok(())
}

/// The parts of the map of lines that are in use.
#[derive(Debug)]
struct Windows {
    map: OwnedFd,
    lines: u32,
    windows: Box<[Option<Window>]>,
}

impl Windows {
    fn new(map: impl AsFd, lines: u32) -> Result<Self, Error> {
        let map = map.as_fd().try_clone_to_owned().map_err(peers_error)?;
        let mut windows = Self {
            map,
            lines,
            windows: (0..lines.div_ceil(WINDOW)).map(|_| None).collect(),
        };
        windows.make_room(0)?;
        Ok(windows)
    }

    fn make_room(&mut self, index: u32) -> Result<(), Error> {
        let number = index / WINDOW;
        let window = &mut self.windows[number as usize];
        if window.is_none() {
            let first = number * WINDOW;
            let count = WINDOW.min(self.lines - first);
            *window = Some(Window::map(&self.map, first, count).map_err(peers_error)?);
        }
        Ok(())
    }

    /// Returns a line in a window that is mapped.
    fn line(&self, index: u32) -> &[AtomicU64] {
        let window = self.windows[(index / WINDOW) as usize].as_ref();
        let window = window.expect("room was made for the line");
        &window.lines()[(index % WINDOW) as usize]
    }
}

fn peers_error(source: io::Error) -> Error {
    Error::map(PEERS, source)
}

/// Lines of the map in memory.
#[derive(Debug)]
struct Window {
    start: NonNull<[AtomicU64; LINE]>,
    size: NonZeroUsize,
}

// SAFETY: the memory is shared with the program anyway, and accessed by atomic operations alone.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Maps lines, the first of which begins a page.
    fn map(map: &OwnedFd, first: u32, count: u32) -> io::Result<Self> {
        let octets = count as usize * size_of::<Line>();
        let size = NonZeroUsize::new(octets.next_multiple_of(page_size()));
        let size = size.ok_or(io::ErrorKind::InvalidInput)?;
        let start = first as usize * size_of::<Line>();
        // SAFETY: the kernel chooses the address, so no other mapping is replaced.
        let start = unsafe {
            mmap(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map,
                start as libc::off_t,
            )?
        };
        Ok(Self {
            start: start.cast(),
            size,
        })
    }

    fn lines(&self) -> &[[AtomicU64; LINE]] {
        let count = self.size.get() / size_of::<Line>();
        // SAFETY: the lines are aligned and within the mapping, which lives as long as `self`; the
        // program, too, writes whole words.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), count) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: `map` made the mapping with this size, and no borrow outlives `self`.
        let result = unsafe { munmap(self.start.cast(), self.size.get()) };
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
    use super::*;

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
}
