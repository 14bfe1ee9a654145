//! A frame with room around it.

use core::{cell::Cell, slice};
use std::{vec, vec::Vec};

use teredo_common::wire::ETHERNET_HEADER;

/// Octets of room in front of a frame that most drivers leave (the kernel's `XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// A frame in memory of its own, with room in front of it.
#[derive(Debug)]
pub struct Buffer {
    memory: *mut u8,
    size: usize,
    /// The offsets of the frame's first octet, and behind its last.
    frame: Cell<(usize, usize)>,
}

impl Buffer {
    /// Returns a buffer with the frame and `headroom` octets in front of it.
    #[must_use]
    pub fn new(frame: &[u8], headroom: usize) -> Self {
        let size = headroom + frame.len();
        let mut memory = vec![0; size];
        memory[headroom..].copy_from_slice(frame);
        // Until it is dropped the memory is reached through the pointer alone.
        let memory = Vec::leak(memory).as_mut_ptr();
        Self {
            memory,
            size,
            frame: Cell::new((headroom, size)),
        }
    }

    /// Returns the frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let (start, end) = self.frame.get();
        // SAFETY: within the memory, which nobody writes now.
        unsafe { slice::from_raw_parts(self.memory.add(start), end - start).to_vec() }
    }

    /// Returns the addresses of the frame's first octet, and behind its last.
    #[must_use]
    pub fn range(&self) -> (usize, usize) {
        let memory = self.memory.expose_provenance();
        let (start, end) = self.frame.get();
        (memory + start, memory + end)
    }

    /// Moves the start of the frame as the kernel does, which keeps an Ethernet header at least. Returns
    /// whether it did.
    pub fn move_start(&self, delta: i32) -> bool {
        let (start, end) = self.frame.get();
        match start.checked_add_signed(delta as isize) {
            Some(start) if start + ETHERNET_HEADER <= end => {
                self.frame.set((start, end));
                true
            }
            _ => false,
        }
    }

    /// Cuts octets off the end of the frame as the kernel does, which keeps an Ethernet header at least.
    /// Returns whether it did.
    pub fn cut_end(&self, octets: usize) -> bool {
        let (start, end) = self.frame.get();
        match end.checked_sub(octets) {
            Some(end) if start + ETHERNET_HEADER <= end => {
                self.frame.set((start, end));
                true
            }
            _ => false,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: leaked by `new` with this size and capacity, and not reached by anybody else.
        drop(unsafe { Vec::from_raw_parts(self.memory, self.size, self.size) });
    }
}
