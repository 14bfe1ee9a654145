//! The queue of rtnetlink overflows.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Fault, Takes};
use crate::site::Site;

/// Routes that come and go while the daemon does not read: many times its queue.
const ROUTES: u32 = 4000;

/// Thousands of routes change while the daemon is stopped, and its own route is lost among them.
#[derive(Debug)]
pub struct NetlinkOverflow;

impl Fault for NetlinkOverflow {
    fn name(&self) -> &'static str {
        "netlink overflow"
    }

    fn takes(&self) -> Takes {
        Takes::Daemon
    }

    fn bound(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        site.relay.daemon.signal(Signal::SIGSTOP)?;
        for act in ["add", "del"] {
            let mut batch = String::new();
            for number in 0..ROUTES {
                let [_, _, high, low] = number.to_be_bytes();
                let _ = writeln!(batch, "route {act} blackhole 60.{high}.{low}.0/24");
            }
            site.scene.relay.ip_batch(&batch)?;
        }
        site.scene.relay.ip("-6 route del 2001::/32 dev teredo")?;
        Ok(())
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        site.relay.daemon.signal(Signal::SIGCONT)
    }
}
