//! Faults of a host and its surroundings.

mod address;
mod api;
mod descriptors;
mod gateway;
mod interface;
mod kill;
mod log;
mod netlink;
pub mod program;
mod starve;
mod tunnel;

use std::{fmt::Debug, time::Duration};

use anyhow::Result;

pub use address::AddressGone;
pub use api::NeverReads;
pub use descriptors::NoDescriptors;
pub use gateway::GatewayMoves;
pub use interface::{InterfaceDown, InterfaceReplaced};
pub use kill::Killed;
pub use log::LogFull;
pub use netlink::NetlinkOverflow;
pub use program::ProgramReplaced;
pub use starve::Starved;
pub use tunnel::TunnelGone;

use crate::site::Site;

/// What a fault may take, at most, of packets that were sent while it lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No packet of anybody.
    Nothing,
    /// Packets that the daemon handles, but none of trusted peers in the fast path.
    Daemon,
    /// Any packet.
    Anything,
}

/// A fault of a relay's host.
pub trait Fault: Debug {
    /// The name in reports.
    fn name(&self) -> &'static str;

    /// The kind of the condition that the daemon reports while the fault lasts, if it can report one.
    fn condition(&self) -> Option<&'static str> {
        None
    }

    /// What the fault may take.
    fn takes(&self) -> Takes;

    /// Longest time from the end of the fault until all traffic flows again.
    fn bound(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// Whether the daemon starts to count anew.
    fn restarts(&self) -> bool {
        false
    }

    /// Makes the fault.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses.
    fn inject(&mut self, site: &mut Site) -> Result<()>;

    /// Ends the fault.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses.
    fn heal(&mut self, site: &mut Site) -> Result<()>;
}

/// Returns every fault.
#[must_use]
pub fn all() -> Vec<Box<dyn Fault>> {
    vec![
        Box::new(Killed),
        Box::new(NoDescriptors::default()),
        Box::new(LogFull),
        Box::new(NetlinkOverflow),
        Box::new(InterfaceDown),
        Box::new(InterfaceReplaced::default()),
        Box::new(AddressGone),
        Box::new(GatewayMoves::announced()),
        Box::new(GatewayMoves::silent()),
        Box::new(TunnelGone),
        Box::new(ProgramReplaced::default()),
        Box::new(NeverReads::default()),
        Box::new(Starved),
    ]
}
