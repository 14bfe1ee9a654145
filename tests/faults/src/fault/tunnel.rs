//! The TUN interface.

use anyhow::Result;

use super::{Fault, Takes};
use crate::site::Site;

/// The TUN interface is deleted.
#[derive(Debug)]
pub struct TunnelGone;

impl Fault for TunnelGone {
    fn name(&self) -> &'static str {
        "TUN deleted"
    }

    /// The program finds its routes as packets from this interface do.
    fn takes(&self) -> Takes {
        Takes::Anything
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        site.scene.relay.ip("link del teredo").map(drop)
    }

    fn heal(&mut self, _: &mut Site) -> Result<()> {
        // It is for the daemon to make another.
        Ok(())
    }
}
