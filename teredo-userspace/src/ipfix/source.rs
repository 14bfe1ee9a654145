//! The machines that have peers.

use std::ops::Range;

use teredo_proto::{
    Client,
    relay::{PeerTraffic, Relay},
};

/// A machine that reports the traffic of its peers.
pub trait Source {
    /// Makes the traffic be reported from now on, unless it is already.
    fn begin_reports(&mut self);

    /// Returns the number of slots of the list of peers.
    fn slots(&self) -> usize;

    /// Calls `report` with the peers in these slots that have traffic since the last time.
    fn report(&mut self, slots: Range<usize>, report: impl FnMut(PeerTraffic));

    /// Returns the traffic of peers that were removed since the last call.
    fn take_removed(&mut self) -> Vec<PeerTraffic>;
}

macro_rules! source {
    ($($machine:ty),+) => {
        $(impl Source for $machine {
            fn begin_reports(&mut self) {
                self.begin_reports();
            }

            fn slots(&self) -> usize {
                self.slots()
            }

            fn report(&mut self, slots: Range<usize>, report: impl FnMut(PeerTraffic)) {
                self.report(slots, report);
            }

            fn take_removed(&mut self) -> Vec<PeerTraffic> {
                self.take_removed()
            }
        })+
    };
}

source!(Relay, Client);
