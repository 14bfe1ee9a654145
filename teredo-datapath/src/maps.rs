//! Access to the small maps. Layouts: [`teredo_common::maps`].

use teredo_common::{
    maps::{Interface, own_filter_bit},
    time::Instant,
    vlan::Trunk,
};

use crate::{environment::Environment, headers::Ethernet, settings};

/// Whether this host has the IPv4 address.
#[inline(always)]
pub fn is_own_ipv4(environment: &impl Environment, address: [u8; 4]) -> bool {
    let (index, bit) = own_filter_bit(address);
    environment.own_filter(index) & bit != 0 && environment.is_own_ipv4(address)
}

/// Returns the end of forwarding, if the server is draining.
#[inline(always)]
pub fn draining(environment: &impl Environment) -> Option<Instant> {
    match environment.draining() {
        0 => None,
        end => Some(Instant::from_nanos(end)),
    }
}

#[inline(always)]
fn interface(environment: &impl Environment, index: u32) -> Option<Interface> {
    let slot = Interface::slot(index, settings::interface_mask(environment));
    let interface = environment.interface(slot)?;
    (interface.index == index).then_some(interface)
}

/// Whether packets may leave through the interface; if so, whether with VLAN tags.
#[inline(always)]
pub fn way_out(environment: &impl Environment, index: u32) -> Option<bool> {
    interface(environment, index).map(|interface| interface.trunk != 0)
}

/// Returns the trunk of a VLAN interface.
#[inline(always)]
pub fn trunk(environment: &impl Environment, index: u32) -> Option<Trunk> {
    match interface(environment, index)?.trunk {
        0 => None,
        number => environment.trunk(number),
    }
}

/// Whether a frame's destination is the address of its ingress interface.
#[inline(always)]
pub fn is_own_station(environment: &impl Environment, ethernet: Ethernet) -> bool {
    let Some(interface) = interface(environment, environment.ingress()) else {
        return false;
    };
    ethernet.is_to(interface.station, interface.rest)
}
