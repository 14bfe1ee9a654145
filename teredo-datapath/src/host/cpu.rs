//! The maps of one CPU.

use core::cell::Cell;
use std::boxed::Box;

use teredo_common::{maps::Counter, verdict::Verdict};

/// The maps that a CPU has for itself.
#[derive(Debug)]
pub struct Cpu {
    number: u32,
    counters: Box<[Cell<Counter>]>,
    identification: Cell<u32>,
    reserve: Cell<u32>,
    vlan_frames: Cell<u64>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            number: 0,
            counters: Verdict::ALL.iter().map(|_| Cell::default()).collect(),
            identification: Cell::new(0),
            reserve: Cell::new(0),
            vlan_frames: Cell::new(0),
        }
    }
}

impl Cpu {
    /// Returns the maps of the CPU with this number; the default is the first one.
    #[must_use]
    pub fn numbered(number: u32) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the number of frames that met a verdict, and their octets.
    #[must_use]
    pub fn counter(&self, verdict: Verdict) -> Counter {
        self.counters[verdict as usize].get()
    }

    /// Sets the next IPv4 identification.
    pub fn set_identification(&self, next: u32) {
        self.identification.set(next);
    }

    pub(super) fn next_identification(&self) -> u16 {
        let next = self.identification.get();
        self.identification.set(next.wrapping_add(1));
        next as u16
    }

    /// Returns the tokens of the server's bucket for everything that the CPU has taken and not used.
    #[must_use]
    pub fn reserve(&self) -> u32 {
        self.reserve.get()
    }

    /// Replaces the tokens of the server's bucket for everything.
    pub fn set_reserve(&self, tokens: u32) {
        self.reserve.set(tokens);
    }

    /// Returns the number of frames that came with the tags of a VLAN interface.
    #[must_use]
    pub fn vlan_frames(&self) -> u64 {
        self.vlan_frames.get()
    }

    pub(super) fn count_vlan_frame(&self) {
        self.vlan_frames.set(self.vlan_frames.get() + 1);
    }

    pub(super) fn count(&self, verdict: Verdict, octets: u64) {
        let counter = &self.counters[verdict as usize];
        let Counter { packets, bytes } = counter.get();
        counter.set(Counter {
            packets: packets + 1,
            bytes: bytes + octets,
        });
    }
}
