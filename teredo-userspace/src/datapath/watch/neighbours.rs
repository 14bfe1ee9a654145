//! The neighbours that a cached next hop may lead to.

use std::{collections::HashMap, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::StaleNeighbour;

/// A neighbour: the index of its interface and its address.
pub type Neighbour = (u32, IpAddr);

/// The link-layer addresses of all neighbours that the kernel sends to. Only these can be next hops,
/// since the kernel gives the XDP program no other; a scan that finds nobody changes nothing here.
#[derive(Debug, Default)]
pub struct Neighbours(HashMap<Neighbour, Entry>);

/// The state of a neighbour that the kernel sends to.
#[derive(Debug)]
struct Entry {
    /// The link-layer address.
    address: Vec<u8>,
    /// Whether the kernel has not confirmed it lately.
    is_stale: bool,
}

impl Neighbours {
    /// Records the state of a neighbour after `RTM_NEWNEIGH`. Returns whether a next hop to it may have
    /// changed: another link-layer address, or none any more.
    pub fn set(&mut self, message: &NeighbourMessage) -> bool {
        let Some(neighbour) = neighbour(message) else {
            return false;
        };
        match link_layer_address(message) {
            Some(address) => {
                let entry = Entry {
                    address: address.to_vec(),
                    is_stale: message.header.state == NeighbourState::Stale,
                };
                let before = self.0.insert(neighbour, entry);
                before.is_some_and(|before| before.address != address)
            }
            None => self.0.remove(&neighbour).is_some(),
        }
    }

    /// Forgets a neighbour after `RTM_DELNEIGH`. Returns whether it can have been a next hop.
    pub fn remove(&mut self, message: &NeighbourMessage) -> bool {
        neighbour(message).is_some_and(|neighbour| self.0.remove(&neighbour).is_some())
    }

    /// Iterates over those that the kernel has not confirmed lately and that have Ethernet addresses.
    pub fn stale(&self) -> impl Iterator<Item = (StaleNeighbour, [u8; 6])> {
        let stale = self.0.iter().filter(|(_, entry)| entry.is_stale);
        stale.filter_map(|(&(interface, address), entry)| {
            let station = entry.address.as_slice().try_into().ok()?;
            Some((StaleNeighbour { interface, address }, station))
        })
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Returns the neighbour that a message is about, unless it is an entry of a bridge or a VXLAN.
pub fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.family == AddressFamily::Bridge {
        return None;
    }
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        })?;
    Some((message.header.ifindex, address))
}

/// Returns the address that the kernel sends frames for the neighbour to, if it does.
fn link_layer_address(message: &NeighbourMessage) -> Option<&[u8]> {
    let is_valid = matches!(
        message.header.state,
        NeighbourState::Permanent
            | NeighbourState::Noarp
            | NeighbourState::Reachable
            | NeighbourState::Probe
            | NeighbourState::Stale
            | NeighbourState::Delay
    );
    let mut attributes = message.attributes.iter().filter(|_| is_valid);
    attributes.find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(address) => Some(&**address),
        _ => None,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Returns a message about the neighbour 2001:db8::`number` of interface 7.
    pub fn message(number: u16, state: NeighbourState, station: Option<u8>) -> NeighbourMessage {
        let address = [0x2001, 0xdb8, 0, 0, 0, 0, 0, number].into();
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet6(
            address,
        ))];
        if let Some(last) = station {
            let station = vec![2, 0, 0, 0, 0, last];
            message
                .attributes
                .push(NeighbourAttribute::LinkLayerAddress(station));
        }
        message
    }

    #[test]
    fn a_neighbour_is_a_changed_hop_only_after_it_was_valid() {
        use NeighbourState::{Delay, Failed, Incomplete, Probe, Reachable, Stale};
        let mut neighbours = Neighbours::default();
        assert!(!neighbours.set(&message(1, Incomplete, None)));
        assert!(!neighbours.set(&message(1, Reachable, Some(1))), "new");
        for state in [Stale, Delay, Probe, Reachable, Stale] {
            assert!(!neighbours.set(&message(1, state, Some(1))), "{state:?}");
        }
        assert!(neighbours.set(&message(1, Stale, Some(2))), "another");
        assert!(neighbours.set(&message(1, Failed, Some(2))), "unreachable");
        assert!(!neighbours.set(&message(1, Failed, None)), "still");
        assert!(!neighbours.remove(&message(1, Failed, None)), "still");
        assert!(!neighbours.set(&message(1, Reachable, Some(2))));
        assert!(neighbours.remove(&message(1, Reachable, Some(2))));
    }

    #[test]
    fn entries_of_a_vxlan_are_no_neighbours() {
        let mut neighbours = Neighbours::default();
        for station in 0..3 {
            let mut entry = message(1, NeighbourState::Permanent, Some(station));
            entry.header.family = AddressFamily::Bridge;
            assert!(!neighbours.set(&entry));
        }
        assert!(neighbours.0.is_empty());
    }

    #[test]
    fn a_scan_changes_no_hop_and_takes_no_memory() {
        let mut neighbours = Neighbours::default();
        for number in 0..10_000 {
            assert!(!neighbours.set(&message(number, NeighbourState::Failed, None)));
            assert!(!neighbours.remove(&message(number, NeighbourState::Failed, None)));
        }
        assert!(neighbours.0.is_empty());
    }
}
