//! The daemon's side of the cached next hops: their generations, and the stations that they lead to.

use std::{
    io, mem,
    os::fd::AsFd,
    sync::atomic::{
        AtomicU8, AtomicU16,
        Ordering::{Relaxed, Release},
    },
};

use teredo_common::{
    generations::GENERATIONS,
    maps::{NextHop, STATION_MARKS, station_mark},
};

use super::buckets::Shared;
use crate::datapath::watch::Hops;

/// The maps of cached next hops.
#[derive(Debug)]
pub struct HopMaps {
    generations: Shared<AtomicU16>,
    stations: Shared<AtomicU8>,
    /// The stations of this period and of the one before.
    used: [Box<[bool]>; 2],
}

impl HopMaps {
    /// Maps the new maps into memory.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn new(generations: impl AsFd, stations: impl AsFd) -> io::Result<Self> {
        let maps = Self {
            generations: Shared::new(generations, GENERATIONS)?,
            stations: Shared::new(stations, STATION_MARKS)?,
            used: [(); 2].map(|()| vec![false; STATION_MARKS].into()),
        };
        let first: u16 = rand::random();
        for generation in maps.generations.as_ref() {
            generation.store(valid(first), Release);
        }
        Ok(maps)
    }

    /// Invalidates cached next hops.
    pub fn invalidate(&self, hops: &Hops) {
        let generations = self.generations.as_ref();
        let raise = |generation: &AtomicU16| {
            // The daemon alone writes it.
            generation.store(valid(generation.load(Relaxed).wrapping_add(1)), Release);
        };
        match hops {
            Hops::All => generations.iter().for_each(raise),
            Hops::Buckets(buckets) => {
                let generations = buckets
                    .iter()
                    .map(|&bucket| &generations[usize::from(bucket)]);
                generations.for_each(raise);
            }
        }
    }

    /// Collects the stations that the program has sent to since the last call.
    pub fn collect_stations(&mut self) {
        let marks = self.stations.as_ref().iter();
        for (used, mark) in self.used[0].iter_mut().zip(marks) {
            // A plain look first: most are not marked, and a swap takes the memory from the program.
            *used |= mark.load(Relaxed) != 0 && mark.swap(0, Relaxed) != 0;
        }
    }

    /// Begins a new period, and forgets the one before the last.
    pub fn begin_period(&mut self) {
        let [current, before] = &mut self.used;
        mem::swap(current, before);
        current.fill(false);
    }

    /// Returns whether the program may have sent to this station in this period or the last.
    pub fn has_used(&self, station: [u8; 6]) -> bool {
        let mark = station_mark(station);
        self.used.iter().any(|used| used[mark])
    }
}

/// Returns a generation that a bucket may have.
const fn valid(generation: u16) -> u16 {
    if NextHop::is_reserved(generation) {
        1
    } else {
        generation
    }
}
