//! The peers that the program knows.

use std::os::fd::AsFd as _;

use aya::maps::MapData;
use teredo_common::{maps::PEERS, peers::Peer, time::Instant, traffic::Traffic};
use teredo_datapath::table::Cursor;

use super::Program;
use crate::datapath::xdp::{error::Error, table};

impl Program {
    /// Adds or replaces a peer, at the time `now`. Timestamps that the program has advanced further stay.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], or [`Error::Map`].
    pub fn insert(&mut self, address: &[u8; 16], peer: &Peer, now: Instant) -> Result<(), Error> {
        match self.peers.insert(address, peer, now)? {
            true => Ok(()),
            false => Err(Error::Full),
        }
    }

    /// Removes a peer, at the time `now`. An absent peer is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove(&mut self, address: &[u8; 16], now: Instant) -> Result<(), Error> {
        self.peers.remove(address, now)
    }

    /// Whether the map has a peer.
    #[must_use]
    pub fn has_peer(&self, address: &[u8; 16]) -> bool {
        self.peers.contains(address)
    }

    /// Returns a peer, as of the time `now`.
    #[must_use]
    pub fn peer(&self, address: &[u8; 16], now: Instant) -> Option<Peer> {
        self.peers.get(address, now)
    }

    /// Calls `visit` with every peer, as of the time `now`.
    pub fn for_each_peer(&self, now: Instant, visit: impl FnMut(&[u8; 16], &Peer)) {
        self.peers.for_each(now, visit);
    }

    /// Calls `visit` with the peers in the next part of the map, as of the time `now`, each with its traffic since the
    /// last visit, and returns whether that was the last part; see
    /// [`Table::visit`](teredo_datapath::table::Table::visit).
    pub fn visit_peers(
        &self,
        cursor: &mut Cursor,
        most: usize,
        now: Instant,
        visit: impl FnMut(&[u8; 16], &Peer, Traffic),
    ) -> bool {
        self.peers.visit(cursor, most, now, visit)
    }

    /// Returns the traffic of peers at places that they have left, and in the map of the program before, since the last
    /// call.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn take_left(&mut self) -> Result<Vec<([u8; 16], Traffic)>, Error> {
        let mut left = self.peers.take_left();
        if let Some(map) = self.before.take() {
            left.extend(uncollected_traffic(&map)?);
        }
        Ok(left)
    }

    /// Makes [`Self::take_left`] collect what was counted in the map of the program before.
    pub(in super::super) fn succeed(&mut self, before: MapData) {
        self.before = Some(before);
    }

    /// Replaces the number of peers in the map, of which another process may have removed some.
    pub fn set_peers(&mut self, count: usize) {
        self.peers.set_len(count);
    }

    /// Returns the number of peers in the map.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Returns the number of peers that take the slower of the two tables.
    #[must_use]
    pub fn peers_in_slots(&self) -> usize {
        self.peers.count_in_slots()
    }

    /// Copies the peers from the map of an earlier daemon, as far as there is room.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn adopt(&mut self, map: &MapData, now: Instant) -> Result<(), Error> {
        let info = map.info().map_err(|error| Error::map(PEERS, error))?;
        let mut adopted = Ok(());
        table::for_each_in(map.fd(), info.max_entries(), now, |address, peer| {
            match self.peers.insert(address, peer, now) {
                // A peer without room becomes known again through userspace.
                Ok(_) => {}
                Err(error) => adopted = Err(error),
            }
        })?;
        adopted
    }

    /// Opens the map behind the table of peers once more.
    #[must_use]
    pub fn copy_of_peer_map(&self) -> Option<MapData> {
        let descriptor = self.peer_map.fd().as_fd().try_clone_to_owned().ok()?;
        MapData::from_fd(descriptor).ok()
    }

    /// Returns the map behind the table of peers.
    pub(in super::super) fn peer_map(&self) -> &MapData {
        &self.peer_map
    }
}

/// Returns the traffic in a map of peers that nobody has collected yet.
///
/// # Errors
///
/// [`Error::Map`].
pub fn uncollected_traffic(map: &MapData) -> Result<Vec<([u8; 16], Traffic)>, Error> {
    let info = map.info().map_err(|error| Error::map(PEERS, error))?;
    let mut all = Vec::new();
    table::collect_in(map.fd(), info.max_entries(), |address, traffic| {
        all.push((*address, traffic));
    })?;
    Ok(all)
}
