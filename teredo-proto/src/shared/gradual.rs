//! A hash table that grows little by little.
//!
//! A table that moves all entries when it is full stops everything else meanwhile: for a tenth of a second
//! and more with a million of them. This one moves a few with each insertion.

use std::hash::BuildHasher as _;

use crate::shared::keyed::Keyed;

/// Places of the smallest table; a power of two.
const SMALLEST: usize = 16;
/// Places of the old table that one insertion empties. With two, it would be empty in time.
const STEP: usize = 8;
/// The value of a place that is not used.
const FREE: u32 = 0;
/// The value of a place of the old table that was used.
const MOVED: u32 = u32::MAX;

/// Maps keys of 16 octets to numbers from 1 to `u32::MAX - 1`.
#[derive(Debug)]
pub struct GradualMap {
    keyed: Keyed,
    current: Places,
    /// The table before the last growth; the entries before place [`GradualMap::next`] have moved.
    old: Places,
    next: usize,
    length: usize,
}

/// A table with linear probing.
#[derive(Debug, Default)]
struct Places {
    keys: Vec<u128>,
    values: Vec<u32>,
}

impl GradualMap {
    /// Creates an empty map.
    pub fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            current: Places::default(),
            old: Places::default(),
            next: 0,
            length: 0,
        }
    }

    /// Returns the number of entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: u128) -> Option<u32> {
        let hash = self.hash(key);
        self.current
            .find(key, hash)
            .map(|place| self.current.values[place])
            .or_else(|| {
                let place = self.old.find(key, hash)?;
                Some(self.old.values[place])
            })
    }

    /// Sets the value of `key`.
    pub fn set(&mut self, key: u128, value: u32) {
        debug_assert!(value != FREE && value != MOVED);
        let hash = self.hash(key);
        if let Some(place) = self.current.find(key, hash) {
            self.current.values[place] = value;
            return;
        }
        match self.old.find(key, hash) {
            Some(place) => self.old.values[place] = MOVED,
            None => self.length += 1,
        }
        self.make_room();
        self.current.put(key, hash, value);
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: u128) -> Option<u32> {
        let hash = self.hash(key);
        let value = if let Some(place) = self.current.find(key, hash) {
            let value = self.current.values[place];
            let keyed = self.keyed;
            self.current.close(place, |key| keyed.hash_one(key));
            value
        } else {
            let place = self.old.find(key, hash)?;
            std::mem::replace(&mut self.old.values[place], MOVED)
        };
        self.length -= 1;
        Some(value)
    }

    /// Moves some entries of the old table, and makes a new one when three of four places are used.
    fn make_room(&mut self) {
        for _ in 0..STEP {
            let Some(&value) = self.old.values.get(self.next) else {
                self.old = Places::default();
                break;
            };
            if value != FREE && value != MOVED {
                let key = self.old.keys[self.next];
                self.old.values[self.next] = MOVED;
                self.current.put(key, self.hash(key), value);
            }
            self.next += 1;
        }
        let places = self.current.values.len();
        if 4 * self.length > 3 * places {
            debug_assert!(self.old.values.is_empty());
            let larger = Places::new((2 * places).max(SMALLEST));
            self.old = std::mem::replace(&mut self.current, larger);
            self.next = 0;
        }
    }

    fn hash(&self, key: u128) -> u64 {
        self.keyed.hash_one(key)
    }
}

impl Places {
    /// Creates free places, a power of two of them. The memory is used only as entries come.
    fn new(count: usize) -> Self {
        Self {
            keys: vec![0; count],
            values: vec![FREE; count],
        }
    }

    /// Returns the mask that makes a place of a hash or of the place before.
    fn mask(&self) -> usize {
        self.values.len().wrapping_sub(1)
    }

    fn find(&self, key: u128, hash: u64) -> Option<usize> {
        let mut place = hash as usize & self.mask();
        loop {
            match *self.values.get(place)? {
                FREE => return None,
                value if value != MOVED && self.keys[place] == key => return Some(place),
                _ => place = (place + 1) & self.mask(),
            }
        }
    }

    /// Adds a key that is not in the table, which has room.
    fn put(&mut self, key: u128, hash: u64, value: u32) {
        let mut place = hash as usize & self.mask();
        while self.values[place] != FREE {
            place = (place + 1) & self.mask();
        }
        self.keys[place] = key;
        self.values[place] = value;
    }

    /// Frees a place, and moves those behind it that could be nearer to their home.
    fn close(&mut self, mut free: usize, hash: impl Fn(u128) -> u64) {
        let mask = self.mask();
        let mut place = free;
        loop {
            place = (place + 1) & mask;
            if self.values[place] == FREE {
                break;
            }
            let home = hash(self.keys[place]) as usize & mask;
            let from_home = place.wrapping_sub(home) & mask;
            let from_free = place.wrapping_sub(free) & mask;
            if from_home >= from_free {
                self.keys[free] = self.keys[place];
                self.values[free] = self.values[place];
                free = place;
            }
        }
        self.values[free] = FREE;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn map() -> GradualMap {
        GradualMap::new(Keyed::new(&mut StdRng::from_seed([1; 32])))
    }

    fn moving(map: &GradualMap) -> usize {
        let waiting = map.old.values.iter();
        waiting
            .filter(|value| !matches!(**value, FREE | MOVED))
            .count()
    }

    #[test]
    fn an_insertion_moves_few_entries() {
        let mut map = map();
        for key in 0..100_000 {
            let before = moving(&map);
            map.set(key, 1);
            let after = moving(&map);
            assert!(after > before || before - after <= STEP);
        }
        assert!((0..100_000).all(|key| map.get(key) == Some(1)));
        assert!(map.current.values.len() <= 1 << 18);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
            steps in prop::collection::vec((0_u128..300, 0_u32..4), 1..3000)
        ) {
            let mut map = map();
            let mut model = HashMap::new();
            for (key, value) in steps {
                // More keys than are removed, so that the table grows.
                if value == 0 {
                    prop_assert_eq!(map.remove(key), model.remove(&key));
                } else {
                    map.set(key, value);
                    model.insert(key, value);
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for key in 0..300 {
                prop_assert_eq!(map.get(key), model.get(&key).copied());
            }
        }
    }
}
