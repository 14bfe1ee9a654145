//! The interfaces and addresses of the host, as the program knows them.

use std::net::Ipv4Addr;

use teredo_common::maps::VLAN_FRAMES;

use super::Program;
use crate::datapath::xdp::{error::Error, interface::Interface, vlan::Vlan};

impl Program {
    /// Replaces the set of this host's IPv4 addresses. While the map has no room for all of them, the
    /// program passes every frame to the kernel, as it could not tell which are this host's; see
    /// [`Self::knows_own_ipv4`].
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set_own_ipv4(&mut self, addresses: &[Ipv4Addr]) -> Result<(), Error> {
        let knew = self.knows_own_ipv4;
        self.knows_own_ipv4 = self.own_ipv4.replace(addresses)?;
        if self.knows_own_ipv4 != knew {
            self.interfaces.write(self.knows_own_ipv4)?;
        }
        Ok(())
    }

    /// Returns whether the program knows all of this host's IPv4 addresses, without which it forwards
    /// nothing.
    #[must_use]
    pub fn knows_own_ipv4(&self) -> bool {
        self.knows_own_ipv4
    }

    /// Writes the interfaces' Ethernet addresses and the ports of bonds, which may have changed. An
    /// interface has the slot that it was loaded with. A port that joined a bond later and would share
    /// a slot is left to the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn set_interfaces(
        &mut self,
        interfaces: &[Interface],
        vlans: &[Vlan],
    ) -> Result<(), Error> {
        self.interfaces.set(interfaces, vlans, self.knows_own_ipv4)
    }

    /// Returns the frames that came with the tags of VLAN interfaces, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn vlan_frames(&self) -> Result<u64, Error> {
        let values = self.vlan_frames.get(&0, 0);
        let values = values.map_err(|error| Error::map(VLAN_FRAMES, error))?;
        Ok(values.iter().sum())
    }

    /// Returns index and Ethernet address of every interface that the program knows.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn stations(&self) -> Result<Vec<(u32, [u8; 6])>, Error> {
        self.interfaces.stations()
    }

    /// Makes the program ignore an interface that it was loaded with.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn clear_interface(&mut self, interface: &Interface) -> Result<(), Error> {
        let interfaces = std::slice::from_ref(interface);
        self.interfaces.clear(interfaces, &[], self.knows_own_ipv4)
    }

    /// Makes the program ignore VLAN interfaces that it was loaded with.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn clear_vlans(&mut self, vlans: &[Vlan]) -> Result<(), Error> {
        self.interfaces.clear(&[], vlans, self.knows_own_ipv4)
    }
}
