//! The maps of the interfaces by which frames may arrive and leave.

use std::collections::{BTreeMap, HashSet};

use aya::maps::{Array, MapData};
use teredo_common::maps::{self, INTERFACES, INTERFACES_MAX};

use super::{
    error::Error,
    interface::Interface,
    vlan::{self, Vlan, VlanMaps},
};

/// The map of interfaces, and those of VLAN interfaces.
pub struct InterfaceMaps {
    map: Array<MapData, maps::Interface>,
    /// The slots of the map that are or were in use.
    entries: BTreeMap<u32, maps::Interface>,
    mask: u32,
    vlans: VlanMaps,
}

impl InterfaceMaps {
    /// Takes the maps, which are empty. `mask` is that of [`mask`].
    pub fn new(map: Array<MapData, maps::Interface>, mask: u32, vlans: VlanMaps) -> Self {
        Self {
            map,
            entries: BTreeMap::new(),
            mask,
            vlans,
        }
    }

    /// Adds these interfaces, or replaces what is known about them, and replaces all VLAN interfaces. Without
    /// `is_open` the program knows none of them, and passes every frame.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set(
        &mut self,
        interfaces: &[Interface],
        vlans: &[Vlan],
        is_open: bool,
    ) -> Result<(), Error> {
        self.vlans.replace(vlans, interfaces)?;
        self.entries.extend(entries(interfaces, vlans, self.mask));
        self.write(is_open)
    }

    /// Removes these interfaces; with VLAN interfaces, all of them.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn clear(
        &mut self,
        interfaces: &[Interface],
        vlans: &[Vlan],
        is_open: bool,
    ) -> Result<(), Error> {
        for slot in entries(interfaces, vlans, self.mask).into_keys() {
            self.entries.insert(slot, maps::Interface::default());
        }
        if !vlans.is_empty() {
            self.vlans.replace(&[], &[])?;
        }
        self.write(is_open)
    }

    /// Writes the map of interfaces; empty slots unless it `is_open`.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn write(&mut self, is_open: bool) -> Result<(), Error> {
        for (&slot, entry) in &self.entries {
            let entry = match is_open {
                true => *entry,
                false => maps::Interface::default(),
            };
            self.map
                .set(slot, entry, 0)
                .map_err(|error| Error::map(INTERFACES, error))?;
        }
        Ok(())
    }

    /// Returns index and Ethernet address of every interface in the map.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn stations(&self) -> Result<Vec<(u32, [u8; 6])>, Error> {
        let entries = self.map.iter().collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|error| Error::map(INTERFACES, error))?;
        Ok(entries
            .into_iter()
            .filter(|entry| entry.index != 0)
            .map(|entry| (entry.index, entry.address()))
            .collect())
    }
}

/// Returns the smallest mask, but not below the default, that gives each interface, and each port of a
/// bond, a slot of its own.
pub fn mask(interfaces: &[Interface], vlans: &[Vlan]) -> u32 {
    let indices: HashSet<u32> = interfaces
        .iter()
        .filter(|interface| interface.is_served)
        .flat_map(|interface| interface.ports.iter().chain([&interface.index]))
        .chain(vlans.iter().map(|vlan| &vlan.index))
        .copied()
        .collect();
    let mut mask = INTERFACES_MAX - 1;
    // Terminates because different indices differ in some bit.
    while entries(interfaces, vlans, mask).len() < indices.len() {
        mask = mask << 1 | 1;
    }
    mask
}

/// Returns what the map of interfaces holds, by slot. Interfaces come before ports where they would
/// share a slot.
fn entries(interfaces: &[Interface], vlans: &[Vlan], mask: u32) -> BTreeMap<u32, maps::Interface> {
    let served = || interfaces.iter().filter(|interface| interface.is_served);
    let own = served().map(|interface| (interface.index, interface));
    let ports = served().flat_map(|bond| bond.ports.iter().map(move |&port| (port, bond)));
    let entry =
        |(index, interface): (u32, &Interface)| maps::Interface::new(index, interface.station);
    let all = own.map(entry).chain(vlan::entries(vlans));
    let mut entries = BTreeMap::new();
    for entry in all.chain(ports.map(entry)) {
        entries
            .entry(maps::Interface::slot(entry.index, mask))
            .or_insert(entry);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32) -> Interface {
        Interface {
            name: format!("eth{index}"),
            index,
            station: [0; 6],
            program: None,
            ports: Vec::new(),
            is_served: true,
        }
    }

    #[test]
    fn every_interface_has_a_slot_of_its_own() {
        assert_eq!(mask(&[], &[]), 63);
        assert_eq!(mask(&[interface(2), interface(3)], &[]), 63);
        assert_eq!(mask(&[interface(2), interface(66)], &[]), 127);
        assert_eq!(
            mask(&[interface(5), interface(5 + 128), interface(5 + 64)], &[]),
            255
        );
    }

    #[test]
    fn ports_of_a_bond_have_slots_with_its_address() {
        let mut bond = interface(7);
        bond.station = [2, 0, 0, 0, 0, 7];
        bond.ports = vec![5, 6];
        assert_eq!(mask(&[bond.clone(), interface(9)], &[]), 63);
        // The port shares a slot with an interface: the table grows.
        assert_eq!(mask(&[bond.clone(), interface(5 + 64)], &[]), 127);
        // A port that is named, too, has one entry.
        let both = [bond.clone(), interface(5)];
        assert_eq!(mask(&both, &[]), 63);
        let entries = entries(&[bond], &[], 63);
        let indices: Vec<_> = entries.values().map(|entry| entry.index).collect();
        assert_eq!(indices, [5, 6, 7]);
        assert!(
            entries
                .values()
                .all(|entry| entry.address() == [2, 0, 0, 0, 0, 7])
        );
    }

    #[test]
    fn an_interface_comes_before_a_port_in_the_same_slot() {
        let mut bond = interface(7);
        bond.ports = vec![64 + 9];
        let entries = entries(&[bond, interface(9)], &[], 63);
        assert_eq!(entries[&9].index, 9);
    }
}
