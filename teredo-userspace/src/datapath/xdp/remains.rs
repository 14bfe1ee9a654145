//! The parts of a program that outlive it, so that the next one takes its place.

use std::os::fd::OwnedFd;

use aya::maps::MapData;
use teredo_common::maps::{ABI_VERSION, PEERS};

use super::{
    interface::Interface,
    link::{Link, LinkInfo},
    pins::{self, Pins},
};
use crate::handover::descriptors::is;

/// The name of descriptors of links, before the index of the interface.
const LINK: &str = "link";
/// The name of descriptors of maps, before that of the map.
const MAP: &str = "map";

/// The name of the descriptor of the lock on the pins.
pub(super) const LOCK: &str = "pins";

/// The parts of an earlier program that a new one takes over.
#[derive(Debug, Default)]
pub struct Remains {
    /// The attachments.
    pub links: Vec<Link>,
    /// The map of peers, if it has the layout of this program.
    pub peers: Option<MapData>,
    /// The lock on the pins of the daemon.
    pub lock: Option<OwnedFd>,
    /// Descriptors that have to be open for as long as the program is attached.
    pub others: Vec<OwnedFd>,
}

impl Remains {
    /// Sorts descriptors that another process has left, by the names that
    /// [`AttachedProgram::descriptors`](super::AttachedProgram::descriptors) gave them.
    #[must_use]
    pub fn of(descriptors: Vec<(String, OwnedFd)>) -> Self {
        let mut remains = Self::default();
        for (name, descriptor) in descriptors {
            if is(&name, LINK) {
                remains.links.push(Link::inherited(descriptor));
            } else if is(&name, &format!("{MAP}.{ABI_VERSION}.{PEERS}")) {
                let usable = MapData::from_fd(descriptor).ok();
                remains.peers = usable.filter(pins::is_peer_map);
            } else if is(&name, LOCK) {
                remains.lock = Some(descriptor);
            } else {
                remains.others.push(descriptor);
            }
        }
        remains
    }

    /// Returns whether a descriptor of this name belongs to a program.
    #[must_use]
    pub fn includes(name: &str) -> bool {
        [LINK, MAP, LOCK].iter().any(|kind| is(name, kind))
    }

    /// Returns the number of the program.
    #[must_use]
    pub fn program(&self) -> Option<u32> {
        let mut infos = self.links.iter().filter_map(|link| link.info().ok());
        infos.next().map(|info| info.program)
    }

    /// Adds what is pinned, unless it is there already.
    pub(super) fn add_pinned(&mut self, pins: &Pins, interfaces: &[Interface]) {
        for interface in interfaces {
            if let Ok(link) = Link::open(&pins.link(interface.index)) {
                // The same one, without its pin.
                drop(self.take_link(interface.index));
                self.links.push(link);
            }
        }
        self.peers = self.peers.take().or_else(|| pins.peers());
    }

    /// Removes and returns the link to the interface with this index.
    pub(super) fn take_link(&mut self, interface: u32) -> Option<Link> {
        let is_here = |link: &Link| link.info().is_ok_and(|info| info.interface == interface);
        let place = self.links.iter().position(is_here)?;
        Some(self.links.swap_remove(place))
    }

    /// Detaches what was not taken over.
    pub fn detach(self) {
        for link in &self.links {
            if let Err(error) = link.detach() {
                tracing::debug!("cannot detach a link: {error}");
            }
        }
    }
}

/// Returns the name of a link's descriptor.
pub(super) fn link_name(info: LinkInfo) -> String {
    format!("{LINK}.{}.{}", info.interface, info.number)
}

/// Returns the name of the descriptor of a map with this number.
pub(super) fn map_name(map: &str, number: u32) -> String {
    format!("{MAP}.{ABI_VERSION}.{map}.{number}")
}
