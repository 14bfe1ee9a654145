//! The daemon's side of the cached next hops: their generations, and the stations that they lead to.

use std::{
    io, mem,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU32,
            Ordering::{Relaxed, Release},
        },
    },
};

use teredo_common::{
    generations::{
        BUCKETS, FIRST_BUCKET, FIRST_GENERATION, Family, HEARTBEAT, LIFETIME, NUMBERS, SILENCE,
        generation, gone, is_on_link, next, number, raised, seconds, shared_bits, silence,
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
    generations: Arc<Shared<AtomicU32>>,
    /// The generation whose next hops become invalid next, by their age.
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
    pub fn new(generations: impl AsFd, stations: impl AsFd, now: Instant) -> io::Result<Self> {
        let maps = Self {
            generations: Arc::new(Shared::new(generations, NUMBERS)?),
            due: 0,
            kept: Instant::ZERO,
            stations: Shared::new(stations, STATION_MARKS)?,
            used: [(); 2].map(|()| vec![false; STATION_MARKS].into()),
        };
        let first = number(next(rand::random()), 0, false);
        for generation in maps.generations() {
            generation.store(first, Release);
        }
        maps.all()[HEARTBEAT].store(gone(now), Release);
        Ok(maps)
    }

    /// Returns the map of generations.
    pub fn numbers(&self) -> &Arc<Shared<AtomicU32>> {
        &self.generations
    }

    /// Returns all generations: those that buckets share, and those of the buckets.
    fn generations(&self) -> &[AtomicU32] {
        &self.all()[FIRST_GENERATION..]
    }

    /// Returns the generations of all buckets.
    fn buckets(&self) -> &[AtomicU32] {
        &self.all()[FIRST_BUCKET..]
    }

    /// Returns the generation that the buckets of a family share.
    fn common(&self, family: Family) -> &AtomicU32 {
        &self.all()[family.common()]
    }

    fn all(&self) -> &[AtomicU32] {
        (*self.generations).as_ref()
    }

    /// Invalidates cached next hops.
    pub fn invalidate(&self, hops: &Hops) {
        let Hops::Buckets(families) = hops else {
            return self.generations().iter().for_each(raise);
        };
        for (&family, buckets) in families {
            let mut shares = false;
            for &bucket in buckets {
                let generation = &self.buckets()[bucket as usize];
                let bits = shared_bits(generation.load(Relaxed));
                shares |= bits != 0 && bits < family.bucket_bits();
                raise(generation);
            }
            if shares {
                raise(self.common(family));
            }
        }
    }

    /// Shows that the daemon lives, and invalidates the next hops that have reached [`LIFETIME`], or all of them
    /// if the daemon was silent. Returns whether it was not.
    pub fn keep(&mut self, now: Instant) -> bool {
        let heartbeat = &self.all()[HEARTBEAT];
        let is_in_time = silence(heartbeat.load(Relaxed), now) <= SILENCE;
        let elapsed = now.saturating_since(self.kept).min(LIFETIME);
        let total = self.generations().len();
        let count = match is_in_time {
            true => (total as u128 * elapsed.as_nanos() / LIFETIME.as_nanos()) as usize,
            false => total,
        };
        let generations = self.generations().iter().cycle().skip(self.due);
        generations.take(count).for_each(raise);
        self.due = (self.due + count) % total;
        self.kept = now;
        self.all()[HEARTBEAT].store(seconds(now), Release);
        is_in_time
    }

    /// Sets the bits that determine the routes of destinations. Next hops that were cached for other bits become
    /// invalid.
    pub fn share(&self, depths: &Depths) {
        let mut all = vec![(0, false); 2 * BUCKETS];
        for family in Family::ALL {
            let (least, more) = depths.shared_bits(family);
            let first = family as usize * BUCKETS;
            all[first..first + BUCKETS].fill((least, false));
            for (bucket, bits) in more {
                all[bucket as usize].0 = bits;
            }
        }
        for bucket in depths.on_link() {
            all[bucket as usize].1 = true;
        }
        let mut has_changed = false;
        for (bucket, (bits, is_link)) in self.buckets().iter().zip(all) {
            let old = bucket.load(Relaxed);
            if (shared_bits(old), is_on_link(old)) != (bits, is_link) {
                bucket.store(number(next(generation(old)), bits, is_link), Release);
                has_changed = true;
            }
        }
        // A destination that a new route distinguishes may have been looked up meanwhile, and cached for all buckets
        // that it was alike until then.
        if has_changed {
            for family in Family::ALL {
                raise(self.common(family));
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

/// Replaces a generation by the next.
fn raise(bucket: &AtomicU32) {
    let old = bucket.load(Relaxed);
    bucket.store(raised(old), Release);
}
