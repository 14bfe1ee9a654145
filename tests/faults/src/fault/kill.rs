//! SIGKILL.

use anyhow::Result;

use super::{Fault, Takes};
use crate::site::Site;

/// The daemon is killed, as by the kernel for want of memory. Its program goes on.
#[derive(Debug)]
pub struct Killed;

impl Fault for Killed {
    fn name(&self) -> &'static str {
        "killed"
    }

    fn takes(&self) -> Takes {
        Takes::Daemon
    }

    fn restarts(&self) -> bool {
        true
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        site.relay.daemon.kill().map(drop)
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        site.relay.start_again(&site.scene.relay)
    }
}
