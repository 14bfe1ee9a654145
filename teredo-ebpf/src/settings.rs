//! The settings that the daemon loads the program with; constants to the verifier.

use core::{mem::offset_of, ptr};

use teredo_common::{
    address::{Endpoint, ServicePrefix},
    maps::{PeerTable, Settings},
    wire::MTU,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    peer_lifetime: 0,
    relay: Endpoint {
        address: [0; 4],
        port: [0; 2],
    },
    mtu: MTU,
    prefix: ServicePrefix::STANDARD,
    tunnel: 0,
    flags: 0,
    interface_mask: 0,
};

/// Overridden by the daemon.
#[unsafe(no_mangle)]
static PEER_TABLE: PeerTable = PeerTable {
    seed: 0,
    homes: 1,
    reserved: 0,
};

const _: () = {
    assert!(offset_of!(Settings, relay) % 4 == 0);
    assert!(offset_of!(Settings, prefix) % 4 == 0);
    assert!(offset_of!(Endpoint, address) == 0);
    assert!(offset_of!(Endpoint, port) == 4);
};

/// Reads a field in one instruction. `$field` has the size and alignment of `$type`.
macro_rules! field {
    ($field:ident $(.$inner:ident)? as $type:ty) => {
        // SAFETY: inside a static that lives as long as the program; the assertions above prove
        // the alignment. Volatile, because the compiler must not use the initial values.
        unsafe { ptr::read_volatile((&raw const SETTINGS.$field $(.$inner)?).cast::<$type>()) }
    };
}

/// Returns the nanoseconds of silence after which a peer is left to the daemon.
#[inline(always)]
pub fn peer_lifetime() -> u64 {
    field!(peer_lifetime as u64)
}

/// Whether there is a relay.
#[inline(always)]
pub fn has_relay() -> bool {
    relay_port() != 0
}

/// Returns the relay's IPv4 address, network byte order.
#[inline(always)]
pub fn relay_address() -> u32 {
    field!(relay.address as u32)
}

/// Returns the relay's UDP port, network byte order.
#[inline(always)]
pub fn relay_port() -> u16 {
    field!(relay.port as u16)
}

/// Returns the relay's endpoint.
#[inline(always)]
pub fn relay() -> Endpoint {
    Endpoint {
        address: relay_address().to_ne_bytes(),
        port: relay_port().to_ne_bytes(),
    }
}

/// Returns the size of the largest IPv6 packet in the tunnel, in octets.
#[inline(always)]
pub fn mtu() -> u32 {
    u32::from(field!(mtu as u16))
}

/// Returns the Teredo service prefix, network byte order.
#[inline(always)]
pub fn prefix() -> u32 {
    field!(prefix as u32)
}

/// Returns the index of the interface where route look-ups start.
#[inline(always)]
pub fn tunnel() -> u32 {
    field!(tunnel as u32)
}

/// Whether a flag of [`Settings`] is set.
#[inline(always)]
pub fn has(flag: u32) -> bool {
    field!(flags as u32) & flag != 0
}

/// See [`teredo_common::maps::Interface::slot`].
#[inline(always)]
pub fn interface_mask() -> u32 {
    field!(interface_mask as u32)
}

/// Returns the parameters of the search for a peer.
#[inline(always)]
pub fn peer_table() -> PeerTable {
    // SAFETY: as for the other settings.
    unsafe {
        PeerTable {
            seed: ptr::read_volatile(&raw const PEER_TABLE.seed),
            homes: ptr::read_volatile(&raw const PEER_TABLE.homes),
            reserved: 0,
        }
    }
}
