//! VLAN interfaces: the program is not attached to them, but to the interfaces below, whose frames have their tags.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, MapData, MapError};
use teredo_common::{
    maps::{self, TRUNKS, VLANS, VLANS_MAX},
    vlan::Trunk,
};

use super::{error::Error, interface::Interface};

/// A VLAN interface of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its index.
    pub index: u32,
    /// Its Ethernet address.
    pub station: [u8; 6],
    /// The interface below it that the program is attached to, and the tags of its frames there.
    pub trunk: Trunk,
}

impl Vlan {
    /// As it is now; unchanged if the kernel does not tell.
    #[must_use]
    pub fn refreshed(&self) -> Self {
        let found = Interface::numbered(self.index, "");
        Self {
            station: found.map_or(self.station, |interface| interface.station),
            ..self.clone()
        }
    }

    /// Returns the trunks by which its frames arrive: those of the ports, if there is a bond below.
    fn arrivals(&self, interfaces: &[Interface]) -> Vec<Trunk> {
        let lower = interfaces
            .iter()
            .find(|one| one.index == self.trunk.interface);
        let ports = lower.map_or(&[][..], |lower| &lower.ports).iter();
        let others = ports.map(|&interface| Trunk {
            interface,
            tags: self.trunk.tags,
        });
        [self.trunk].into_iter().chain(others).collect()
    }
}

/// The maps of VLAN interfaces.
pub struct VlanMaps {
    vlans: HashMap<MapData, Trunk, u32>,
    trunks: Array<MapData, Trunk>,
    /// What the map of VLAN interfaces holds.
    held: BTreeMap<Trunk, u32>,
}

impl VlanMaps {
    /// Takes both maps, which are empty.
    pub fn new(vlans: HashMap<MapData, Trunk, u32>, trunks: Array<MapData, Trunk>) -> Self {
        Self {
            vlans,
            trunks,
            held: BTreeMap::new(),
        }
    }

    /// Replaces the VLAN interfaces.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn replace(&mut self, vlans: &[Vlan], interfaces: &[Interface]) -> Result<(), Error> {
        let new: BTreeMap<Trunk, u32> = vlans
            .iter()
            .flat_map(|vlan| {
                let trunks = vlan.arrivals(interfaces).into_iter();
                trunks.map(move |trunk| (trunk, vlan.index))
            })
            .collect();
        let failed = |error: MapError| Error::map(VLANS, error);
        let gone: BTreeSet<Trunk> = self.held.keys().copied().collect();
        for trunk in gone.iter().filter(|trunk| !new.contains_key(trunk)) {
            self.vlans.remove(trunk).map_err(failed)?;
            self.held.remove(trunk);
        }
        for (trunk, index) in new {
            self.vlans.insert(trunk, index, 0).map_err(failed)?;
            self.held.insert(trunk, index);
        }
        for (number, vlan) in (1..).zip(vlans) {
            let set = self.trunks.set(number, vlan.trunk, 0);
            set.map_err(|error| Error::map(TRUNKS, error))?;
        }
        Ok(())
    }
}

/// Returns the entries of the map of interfaces for VLAN interfaces.
pub fn entries(vlans: &[Vlan]) -> impl Iterator<Item = maps::Interface> {
    (1..).zip(vlans).map(|(trunk, vlan)| maps::Interface {
        trunk,
        ..maps::Interface::new(vlan.index, vlan.station)
    })
}

/// Returns the number of entries of both maps. Bonds may get more ports.
pub fn room(vlans: &[Vlan], interfaces: &[Interface]) -> u32 {
    let arrivals = vlans.iter().map(|vlan| vlan.arrivals(interfaces).len());
    let arrivals = u32::try_from(arrivals.sum::<usize>()).unwrap_or(u32::MAX);
    arrivals.saturating_mul(2).saturating_add(1).max(VLANS_MAX)
}

#[cfg(test)]
mod tests {
    use teredo_common::vlan::Tags;

    use super::*;

    fn interface(index: u32, ports: &[u32]) -> Interface {
        Interface {
            name: format!("eth{index}"),
            index,
            station: [0; 6],
            program: None,
            ports: ports.to_vec(),
            is_served: true,
        }
    }

    #[test]
    fn frames_arrive_by_the_ports_of_a_bond() {
        let trunk = Trunk {
            interface: 7,
            tags: Tags::NONE.and(false, 10).unwrap(),
        };
        let vlan = Vlan {
            index: 9,
            station: [0; 6],
            trunk,
        };
        let interfaces = [interface(6, &[]), interface(7, &[2, 3])];
        let arrivals = vlan.arrivals(&interfaces);
        assert!(arrivals.iter().all(|one| one.tags == trunk.tags));
        let indices: Vec<_> = arrivals.iter().map(|one| one.interface).collect();
        assert_eq!(indices, [7, 2, 3]);
        assert_eq!(room(std::slice::from_ref(&vlan), &interfaces), VLANS_MAX);
        assert!(room(&vec![vlan; 100], &interfaces) > 300);
    }
}
