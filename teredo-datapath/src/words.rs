//! The words of a [`Slot`] and of a [`RouteSet`].

use core::mem::offset_of;

use teredo_common::maps::{NextHop, Route, RouteSet, Slot};

/// Words of a slot.
pub const SLOT: usize = size_of::<Slot>() / 8;
/// Words of a set of routes.
pub const ROUTE_SET: usize = size_of::<RouteSet>() / 8;
/// Words of a route.
pub const ROUTE: usize = size_of::<Route>() / 8;
/// Index of the first of two words with the address of a peer, or with the key of a route.
pub const ADDRESS: usize = offset_of!(Slot, address) / 8;
/// Index of the word with a peer's mapped endpoint and flags, and with the reach of the slot.
pub const MAPPED: usize = offset_of!(Slot, mapped) / 8;
/// Index of [`Slot::last_received`].
pub const LAST_RECEIVED: usize = offset_of!(Slot, last_received) / 8;
/// Index of [`Slot::last_sent`].
pub const LAST_SENT: usize = offset_of!(Slot, last_sent) / 8;
/// Index of the first word of [`Slot::next_hop`].
pub const NEXT_HOP: usize = offset_of!(Slot, next_hop) / 8;
/// Index of the first word of [`Route::next_hop`].
pub const ROUTE_NEXT_HOP: usize = offset_of!(Route, next_hop) / 8;

const _: () = {
    assert!(ADDRESS == 0 && offset_of!(Route, key) == 0);
    assert!(offset_of!(RouteSet, routes) == 0);
    assert!(offset_of!(Slot, mapped) % 8 == 0);
    assert!(offset_of!(Slot, flags) == offset_of!(Slot, mapped) + 6);
    assert!(offset_of!(Slot, reach) == offset_of!(Slot, mapped) + 7);
    assert!(offset_of!(Slot, last_received) % 8 == 0);
    assert!(offset_of!(Slot, last_sent) % 8 == 0);
    assert!(offset_of!(Slot, next_hop) % 8 == 0);
    assert!(offset_of!(Route, next_hop) % 8 == 0);
    assert!(size_of::<NextHop>() == 24);
};

/// Joins two words as they lie in memory.
#[inline(always)]
pub const fn join(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// Splits a word in two as they lie in memory.
#[inline(always)]
pub const fn split(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}
