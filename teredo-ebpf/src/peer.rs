//! The fields of a peer's entry that both directions use.

use core::mem::offset_of;

use teredo_common::{
    address::Endpoint,
    maps::{Peer, STAMP_RESOLUTION, Slot},
    time::Instant,
};

use crate::settings;

const RESOLUTION: u64 = STAMP_RESOLUTION.as_nanos() as u64;

const _: () = {
    assert!(offset_of!(Slot, mapped) % 8 == 0);
    assert!(offset_of!(Endpoint, port) == 4);
    assert!(offset_of!(Slot, flags) == offset_of!(Slot, mapped) + 6);
};

/// A trusted and fresh peer, in registers.
#[derive(Clone, Copy)]
pub struct Usable {
    /// IPv4 address, network byte order.
    pub address: u32,
    /// UDP port, network byte order.
    pub port: u16,
    /// [`Peer::SYMMETRIC`] and others.
    pub flags: u16,
    /// [`Peer::last_received`].
    last_received: Instant,
}

impl Usable {
    /// Returns the peer's endpoint.
    #[inline(always)]
    pub fn mapped(self) -> Endpoint {
        Endpoint {
            address: self.address.to_ne_bytes(),
            port: self.port.to_ne_bytes(),
        }
    }
}

/// Returns the peer if userspace trusts it and it was heard within the lifetime.
#[inline(always)]
pub fn usable(slot: *mut Slot, now: Instant) -> Option<Usable> {
    // SAFETY: a value of the map, aligned to eight octets. Volatile, because other CPUs and
    // userspace write it.
    let peer = unsafe {
        let mapped = &raw const (*slot).mapped;
        Usable {
            address: mapped.cast::<u32>().read_volatile(),
            port: mapped.cast::<u16>().add(2).read_volatile(),
            flags: u16::from((&raw const (*slot).flags).read_volatile()),
            last_received: (&raw const (*slot).last_received).read_volatile(),
        }
    };
    let fresh = is_within(peer.last_received, now, settings::peer_lifetime());
    (peer.flags & Peer::TRUSTED != 0 && fresh).then_some(peer)
}

/// Notes that a packet of the peer arrived.
#[inline(always)]
pub fn received(slot: *mut Slot, peer: Usable, now: Instant) {
    if !is_within(peer.last_received, now, RESOLUTION) {
        // SAFETY: as in `usable`.
        unsafe { (&raw mut (*slot).last_received).write_volatile(now) };
    }
}

/// Notes that a packet was sent to the peer.
#[inline(always)]
pub fn sent(slot: *mut Slot, now: Instant) {
    // SAFETY: as in `usable`.
    unsafe {
        let field = &raw mut (*slot).last_sent;
        if !is_within(field.read_volatile(), now, RESOLUTION) {
            field.write_volatile(now);
        }
    }
}

/// Whether `stamp` is less than `lifetime` nanoseconds old. The daemon's clock is finer than the
/// program's, so that a stamp may lie in the future.
#[inline(always)]
fn is_within(stamp: Instant, now: Instant, lifetime: u64) -> bool {
    now.as_nanos() < stamp.as_nanos().saturating_add(lifetime)
}
