//! The words of a [`Slot`] and of a [`RouteSet`].

use core::mem::offset_of;

use teredo_common::{
    maps::{NextHop, Route, RouteSet},
    peers::Slot,
};

/// Index of the first of two words with [`Slot::address`].
pub const SLOT_ADDRESS: usize = offset_of!(Slot, address) / 8;
/// Index of the word with [`Slot::mapped`] and [`Slot::count`].
pub const SLOT_MAPPED: usize = offset_of!(Slot, mapped) / 8;
/// Index of the word whose second half is [`Slot::stamps`].
pub const SLOT_STAMPS: usize = offset_of!(Slot, stamps) / 8;
/// Words of a set of routes.
pub const ROUTE_SET: usize = size_of::<RouteSet>() / 8;
/// Words of a route.
pub const ROUTE: usize = size_of::<Route>() / 8;
/// Index of the first of two words with the key of a route.
pub const ROUTE_KEY: usize = offset_of!(Route, key) / 8;
/// Index of the first word of [`Route::next_hop`].
pub const ROUTE_NEXT_HOP: usize = offset_of!(Route, next_hop) / 8;

const _: () = {
    assert!(offset_of!(Slot, address) % 8 == 0);
    assert!(offset_of!(Slot, mapped) % 8 == 0);
    assert!(offset_of!(Slot, count) == offset_of!(Slot, mapped) + 6);
    assert!(offset_of!(Slot, stamps) % 8 == 4);
    assert!(offset_of!(RouteSet, routes) == 0);
    assert!(offset_of!(Route, key) % 8 == 0);
    assert!(offset_of!(Route, next_hop) % 8 == 0);
    assert!(size_of::<NextHop>() == 24);
};

/// Joins two words as they lie in memory. The compiler makes something longer of an array of octets.
#[inline(always)]
pub const fn join(first: u32, second: u32) -> u64 {
    match cfg!(target_endian = "little") {
        true => first as u64 | (second as u64) << 32,
        false => second as u64 | (first as u64) << 32,
    }
}

/// Returns the last two octets of a word as they lie in memory.
#[inline(always)]
pub const fn last(word: u64) -> u16 {
    match cfg!(target_endian = "little") {
        true => (word >> 48) as u16,
        false => word as u16,
    }
}

/// Splits a word in two as they lie in memory.
#[inline(always)]
pub const fn split(word: u64) -> (u32, u32) {
    match cfg!(target_endian = "little") {
        true => (word as u32, (word >> 32) as u32),
        false => ((word >> 32) as u32, word as u32),
    }
}
