//! The next hops that the program knows, and the stations that it sends to.

use teredo_common::time::Instant;

use super::FastPath;
use crate::datapath::watch::{Changes, Depths, Hops};

/// Sweeps after which a station that the program sent to is forgotten, at the earliest. The kernel takes
/// neighbours for stale after about 30 seconds.
const STATION_PERIOD: u32 = 60;

impl FastPath {
    /// Makes the program ask the kernel again for next hops that may have changed.
    pub fn handle_changes(&mut self, changes: &Changes) {
        let result = self.attached(|xdp| {
            if changes.addresses {
                xdp.refresh_interfaces()?;
            }
            Ok(())
        });
        self.note(result);
        if let Some(xdp) = &self.xdp {
            xdp.program.invalidate(&changes.hops);
        }
    }

    /// Makes the program ask the kernel again for all next hops.
    pub fn forget_next_hops(&self) {
        if let Some(xdp) = &self.xdp {
            xdp.program.invalidate(&Hops::All);
        }
    }

    /// Tells the program how many bits of a native destination determine its route.
    pub fn set_depths(&self, depths: &Depths) {
        if let Some(xdp) = &self.xdp {
            xdp.program.share_next_hops(depths);
        }
    }

    /// Notes the stations that the program sends to, and shows the program that the daemon lives. Call it
    /// once a second; returns whether that was done.
    pub fn collect_stations(&mut self, now: Instant) -> bool {
        let Some(xdp) = &mut self.xdp else {
            return true;
        };
        let is_in_time = xdp.program.keep_next_hops(now);
        self.sweeps = self.sweeps.wrapping_add(1);
        let is_over = self.sweeps.is_multiple_of(STATION_PERIOD);
        xdp.program.collect_stations(is_over);
        is_in_time
    }

    /// Returns whether the program may have sent to a station lately.
    pub fn sends_to(&self, interface: u32, station: [u8; 6]) -> bool {
        let xdp = self.xdp.as_ref();
        self.uses(interface) && xdp.is_some_and(|xdp| xdp.program.sends_to(station))
    }

    /// Returns whether the program sends through this interface.
    pub fn uses(&self, interface: u32) -> bool {
        self.xdp.as_ref().is_some_and(|xdp| {
            let mut attached = xdp.interfaces().iter();
            attached.any(|attached| attached.index == interface && attached.mode.is_some())
                || xdp.vlans().any(|index| index == interface)
        })
    }
}
