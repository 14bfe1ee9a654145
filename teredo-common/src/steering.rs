//! The division of peers among the threads that carry their packets.
//!
//! Packets from a peer and packets to it get the same share, so that one thread has its entry in the cache of its CPU,
//! and no packet overtakes another.

use crate::address::Endpoint;

/// The name of the program that divides packets to peers.
pub const PROGRAM: &str = "steering";
/// A number without a pattern in its bits, so that neighbouring endpoints get different shares.
pub const FACTOR: u32 = 0x9e37_79b1;
/// How many low bits of the product are dropped.
pub const SHIFT: u32 = 16;

/// Returns the share of the peer with this mapped endpoint, to be taken modulo the number of shares.
#[inline]
#[must_use]
pub const fn share(mapped: Endpoint) -> u32 {
    let address = u32::from_be_bytes(mapped.address);
    let port = u16::from_be_bytes(mapped.port) as u32;
    address.wrapping_add(port).wrapping_mul(FACTOR) >> SHIFT
}
