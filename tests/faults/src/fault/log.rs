//! The disk of the log is full.

use anyhow::Result;

use super::{Fault, Takes};
use crate::site::Site;

/// The daemon is started anew with a log that cannot be written, and has much to tell.
#[derive(Debug)]
pub struct LogFull;

impl Fault for LogFull {
    fn name(&self) -> &'static str {
        "disk of the log full"
    }

    fn takes(&self) -> Takes {
        Takes::Anything
    }

    fn restarts(&self) -> bool {
        true
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        site.relay.daemon.terminate()?;
        let relay = &site.scene.relay;
        let full = ["sh", "-c", "exec \"$@\" >/dev/full 2>&1", "sh"];
        site.relay.start_again_under(relay, &full)?;
        relay.ip_batch(
            "link set teredo down
             link set teredo up",
        )
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        site.restart_relay()
    }
}
