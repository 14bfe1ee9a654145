//! The settings that the daemon loads the program with; constants to the verifier.

use core::{mem::offset_of, ptr};

use teredo_common::{
    address::Endpoint,
    maps::{Settings, Tables},
    prefixes::TeredoPrefixes,
    traffic::Tallies,
};

use crate::environment::Environment;

const _: () = {
    assert!(offset_of!(Settings, relay) % 4 == 0);
    assert!(offset_of!(Settings, prefix) % 4 == 0);
    assert!(offset_of!(Settings, teredo) % 4 == 0);
    assert!(offset_of!(Endpoint, address) == 0);
    assert!(offset_of!(Endpoint, port) == 4);
};

/// Reads a field in one instruction. `$field` has the size and alignment of `$type`.
macro_rules! field {
    ($environment:ident, $field:ident $(.$inner:ident)? as $type:ty) => {{
        let settings: &Settings = $environment.settings();
        // SAFETY: inside the settings; the assertions above prove the alignment. Volatile, because
        // the compiler of the XDP program must not use the initial values.
        unsafe { ptr::read_volatile((&raw const settings.$field $(.$inner)?).cast::<$type>()) }
    }};
}

/// Returns the nanoseconds of silence after which a peer is left to the daemon.
#[inline(always)]
pub fn peer_lifetime(environment: &impl Environment) -> u64 {
    field!(environment, peer_lifetime as u64)
}

/// Whether there is a relay.
#[inline(always)]
pub fn has_relay(environment: &impl Environment) -> bool {
    relay_port(environment) != 0
}

/// Returns the relay's IPv4 address, network byte order.
#[inline(always)]
pub fn relay_address(environment: &impl Environment) -> u32 {
    field!(environment, relay.address as u32)
}

/// Returns the relay's UDP port, network byte order.
#[inline(always)]
pub fn relay_port(environment: &impl Environment) -> u16 {
    field!(environment, relay.port as u16)
}

/// Returns the relay's endpoint.
#[inline(always)]
pub fn relay(environment: &impl Environment) -> Endpoint {
    Endpoint {
        address: relay_address(environment).to_ne_bytes(),
        port: relay_port(environment).to_ne_bytes(),
    }
}

/// Returns the size of the largest IPv6 packet in the tunnel, in octets.
#[inline(always)]
pub fn mtu(environment: &impl Environment) -> usize {
    field!(environment, mtu as u16).into()
}

/// Returns the Teredo service prefix, network byte order.
#[inline(always)]
pub fn prefix(environment: &impl Environment) -> u32 {
    field!(environment, prefix as u32)
}

/// Whether an address that begins with this word, network byte order, is a Teredo address. Places that are not used
/// repeat the first prefix, so that a verifier removes the loop if there are no more than two.
#[inline(always)]
pub fn is_teredo(environment: &impl Environment, word: u32) -> bool {
    let first = teredo(environment, 0);
    if word == first || word == teredo(environment, 1) {
        return true;
    }
    if teredo(environment, 2) != first {
        for place in 2..size_of::<TeredoPrefixes>() / 4 {
            if word == teredo(environment, place) {
                return true;
            }
        }
    }
    false
}

/// Returns the prefix of a Teredo service, network byte order.
#[inline(always)]
fn teredo(environment: &impl Environment, place: usize) -> u32 {
    let settings: &Settings = environment.settings();
    // SAFETY: as in `field`; callers count the prefixes.
    unsafe { ptr::read_volatile((&raw const settings.teredo).cast::<u32>().add(place)) }
}

/// Returns the index of the interface where route look-ups start.
#[inline(always)]
pub fn tunnel(environment: &impl Environment) -> u32 {
    field!(environment, tunnel as u32)
}

/// Whether a flag of [`Settings`] is set.
#[inline(always)]
pub fn has(environment: &impl Environment, flag: u32) -> bool {
    field!(environment, flags as u32) & flag != 0
}

/// See [`teredo_common::maps::Interface::slot`].
#[inline(always)]
pub fn interface_mask(environment: &impl Environment) -> u32 {
    field!(environment, interface_mask as u32)
}

/// Returns the seed of the hash tables.
#[inline(always)]
pub fn seed(environment: &impl Environment) -> u64 {
    // SAFETY: as for the other settings.
    unsafe { ptr::read_volatile(&raw const environment.tables().seed) }
}

/// Returns the parameters of the hash tables.
#[inline(always)]
pub fn tables(environment: &impl Environment) -> Tables {
    Tables {
        seed: seed(environment),
        // SAFETY: as for the other settings.
        route_sets: unsafe { ptr::read_volatile(&raw const environment.tables().route_sets) },
        reserved: 0,
        tallies: Tallies::NONE,
    }
}

/// Returns the part of the table of peers that counts their traffic, without the number of
/// [`first_slot`].
#[inline(always)]
pub fn tallies(environment: &impl Environment) -> Tallies {
    let tallies = &raw const environment.tables().tallies;
    // SAFETY: as for the other settings.
    unsafe {
        Tallies {
            first: ptr::read_volatile(&raw const (*tallies).first),
            lines: ptr::read_volatile(&raw const (*tallies).lines),
            cpus: ptr::read_volatile(&raw const (*tallies).cpus),
            others: ptr::read_volatile(&raw const (*tallies).others),
            ..Tallies::NONE
        }
    }
}

/// Returns [`Tallies::slots`].
#[inline(always)]
pub fn first_slot(environment: &impl Environment) -> u32 {
    // SAFETY: as for the other settings.
    unsafe { ptr::read_volatile(&raw const environment.tables().tallies.slots) }
}
