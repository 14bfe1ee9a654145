//! The daemon's side of the cached next hops: their generations, and the stations that they lead to.

use std::{
    io, mem,
    os::fd::AsFd,
    sync::atomic::{
        AtomicU8, AtomicU32,
        Ordering::{Relaxed, Release},
    },
};

use teredo_common::{
    generations::{
        GENERATIONS, HEARTBEAT, LIFETIME, NUMBERS, generation, is_alive, next, number, seconds,
        shared_bits,
    },
    maps::{STATION_MARKS, station_mark},
    time::Instant,
};

use super::buckets::Shared;
use crate::datapath::watch::{Depths, Hops};

/// The maps of cached next hops.
#[derive(Debug)]
pub struct HopMaps {
    /// Written by the daemon alone.
    generations: Shared<AtomicU32>,
    /// The bucket of which the next hops become invalid next, by their age.
    due: usize,
    /// The time of the last call of [`Self::keep`].
    kept: Instant,
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
            generations: Shared::new(generations, NUMBERS)?,
            due: 0,
            kept: Instant::ZERO,
            stations: Shared::new(stations, STATION_MARKS)?,
            used: [(); 2].map(|()| vec![false; STATION_MARKS].into()),
        };
        let first = number(next(rand::random()), 0);
        for bucket in maps.buckets() {
            bucket.store(first, Release);
        }
        Ok(maps)
    }

    fn buckets(&self) -> &[AtomicU32] {
        &self.generations.as_ref()[..GENERATIONS]
    }

    /// Invalidates cached next hops.
    pub fn invalidate(&self, hops: &Hops) {
        let buckets = self.buckets();
        match hops {
            Hops::All => buckets.iter().for_each(raise),
            Hops::Buckets(numbers) => {
                let concerned = numbers.iter().map(|&number| &buckets[usize::from(number)]);
                concerned.for_each(raise);
            }
        }
    }

    /// Shows that the daemon lives, and invalidates the next hops that have reached [`LIFETIME`], or all of them
    /// if the daemon was silent. Returns whether it was not.
    pub fn keep(&mut self, now: Instant) -> bool {
        let heartbeat = &self.generations.as_ref()[HEARTBEAT];
        let is_in_time = is_alive(heartbeat.load(Relaxed), now);
        let elapsed = now.saturating_since(self.kept).min(LIFETIME);
        let count = match is_in_time {
            true => (GENERATIONS as u128 * elapsed.as_nanos() / LIFETIME.as_nanos()) as usize,
            false => GENERATIONS,
        };
        let buckets = self.buckets().iter().cycle().skip(self.due);
        buckets.take(count).for_each(raise);
        self.due = (self.due + count) % GENERATIONS;
        self.kept = now;
        self.generations.as_ref()[HEARTBEAT].store(seconds(now), Release);
        is_in_time
    }

    /// Sets the bits that determine the routes of IPv6 destinations. Next hops that were cached for other bits become
    /// invalid.
    pub fn share(&self, depths: &Depths) {
        let (least, more) = depths.shared_bits();
        let mut all = vec![least; GENERATIONS];
        for (bucket, bits) in more {
            all[usize::from(bucket)] = bits;
        }
        for (bucket, bits) in self.buckets().iter().zip(all) {
            let old = bucket.load(Relaxed);
            if shared_bits(old) != bits {
                bucket.store(number(next(generation(old)), bits), Release);
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

/// Gives a bucket its next generation.
fn raise(bucket: &AtomicU32) {
    let old = bucket.load(Relaxed);
    bucket.store(number(next(generation(old)), shared_bits(old)), Release);
}
