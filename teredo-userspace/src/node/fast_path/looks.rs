//! Looks whether frames arrive as the program takes them to: natively, and with their VLAN tags.

use std::collections::BTreeSet;

use teredo_common::verdict::Verdict;

use super::{FastPath, attachment};
use crate::datapath::xdp::AttachedProgram;

impl FastPath {
    /// Begins to look whether frames are lost in native mode. Call it once a second.
    pub fn begin_look(&mut self) {
        if let Err(error) = self.attached(AttachedProgram::begin_look) {
            tracing::debug!("cannot tell whether frames arrive: {error}");
        }
    }

    /// Attaches the program in generic mode if frames are lost in native mode, as a look has found.
    pub(super) fn conclude_look(&mut self) {
        let Some(xdp) = &mut self.xdp else {
            return;
        };
        match xdp.conclude() {
            Ok(None) => {
                for (attachment, status) in self.attachments.iter_mut().zip(xdp.interfaces()) {
                    attachment.dropped = status.dropped;
                }
            }
            Ok(Some(obstacle)) => {
                self.obstacle = Some(obstacle.to_string());
                self.attachments = xdp.interfaces().iter().map(attachment).collect();
            }
            Err(error) => tracing::debug!("cannot tell whether frames arrive: {error}"),
        }
    }

    /// Returns the frames with VLAN tags that the program has seen.
    pub(super) fn tagged(&self) -> u64 {
        let mut counters = self.counters().into_iter();
        let tagged = counters.find(|(verdict, _)| *verdict == Verdict::Tagged);
        let tagged = tagged.map_or(0, |(_, counter)| counter.packets);
        let of_vlans = self.xdp.as_ref().map(|xdp| xdp.program.vlan_frames());
        tagged + of_vlans.and_then(Result::ok).unwrap_or(0)
    }

    /// Looks whether VLAN tags are hidden from the program on one of its interfaces. Returns whether the
    /// plan has changed for that reason. Call it once a second.
    pub fn examine_tags(&mut self) -> bool {
        if self.xdp.is_none() || !self.tags.is_listening() {
            return false;
        }
        self.tags.count();
        let seen = self.tagged();
        let Some((index, name)) = self.tags.hidden(seen) else {
            return false;
        };
        tracing::warn!("frames with VLAN tags arrive by {name}, where XDP does not see the tags");
        self.hidden.insert(index)
    }

    /// Returns the interfaces whose VLAN tags are hidden from the program, which must not run there.
    pub fn hidden_tags(&self) -> &BTreeSet<u32> {
        &self.hidden
    }
}
