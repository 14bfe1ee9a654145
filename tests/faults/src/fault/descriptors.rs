//! Descriptors used up.

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use super::{Fault, Takes};
use crate::site::Site;

/// The daemon gets no more descriptors, while its host changes and clients of its API come.
#[derive(Debug, Default)]
pub struct NoDescriptors {
    before: Option<libc::rlimit>,
}

impl Fault for NoDescriptors {
    fn name(&self) -> &'static str {
        "descriptors used up"
    }

    fn takes(&self) -> Takes {
        Takes::Nothing
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        let pid = site.relay.daemon.pid();
        let before = limit(pid, None)?;
        self.before = Some(before);
        let none = libc::rlimit {
            rlim_cur: 0,
            ..before
        };
        limit(pid, Some(none))?;
        // The daemon looks at its host, and cannot answer.
        site.scene.relay.ip_batch(
            "link add spare type veth peer name other
             link del spare",
        )
    }

    fn heal(&mut self, site: &mut Site) -> Result<()> {
        let before = self.before.take().context("the limit was not lowered")?;
        limit(site.relay.daemon.pid(), Some(before)).map(drop)
    }
}

/// Sets the limit of open files of a process, or leaves it, and returns the one before.
fn limit(pid: Pid, new: Option<libc::rlimit>) -> Result<libc::rlimit> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both point to limits, or the first to nothing, which the call permits.
    let result = unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_NOFILE, new, &mut old) };
    nix::Error::result(result)?;
    Ok(old)
}
