//! The XDP program.

use std::{
    fs,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use teredo_lab::{programs::Attached, scene::IPV4_INTERFACE, wait_for};

use super::{Fault, Takes};
use crate::site::Site;

/// Longest time until the other program gets its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Another program takes the place of the relay's on the IPv4 interface.
#[derive(Debug, Default)]
pub struct ProgramReplaced {
    other: Option<Attached>,
}

impl Fault for ProgramReplaced {
    fn name(&self) -> &'static str {
        "program replaced"
    }

    fn condition(&self) -> Option<&'static str> {
        Some("fast-path-off")
    }

    fn takes(&self) -> Takes {
        Takes::Anything
    }

    /// The next attempt after a refusal.
    fn bound(&self) -> Duration {
        Duration::from_secs(15)
    }

    fn inject(&mut self, site: &mut Site) -> Result<()> {
        let other = wait_for("another program is attached", PATIENCE, || {
            // The daemon may be faster.
            detach(site.relay.daemon.pid())?;
            Ok(Attached::nothing(&site.scene.relay, &[IPV4_INTERFACE]).ok())
        })?;
        self.other = Some(other);
        Ok(())
    }

    fn heal(&mut self, _: &mut Site) -> Result<()> {
        drop(self.other.take().context("there is no other program")?);
        Ok(())
    }
}

/// Detaches the XDP programs of a process, as `bpftool link detach` does, and returns how many links
/// there were.
///
/// # Errors
///
/// Fails when the kernel refuses.
pub fn detach(pid: Pid) -> Result<usize> {
    /// Commands of the system call bpf.
    const GET_LINK: libc::c_int = 30;
    const DETACH_LINK: libc::c_int = 34;

    let bpf = |command: libc::c_int, argument: u32| -> Result<i64> {
        // The beginning of `union bpf_attr`, which holds numbers of 32 bits here.
        let attributes = [argument, 0, 0, 0];
        // SAFETY: the kernel reads the attributes, which have the given size, during the call alone.
        let result = unsafe {
            let size = size_of_val(&attributes);
            libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size)
        };
        ensure!(result >= 0, "{}", std::io::Error::last_os_error());
        Ok(result)
    };
    let mut detached = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // The file may have been closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned())
        };
        if field("link_type:").as_deref() != Some("xdp") {
            continue;
        }
        let id = field("link_id:").context("a link has a number")?.parse()?;
        // It may have gone meanwhile.
        let Ok(link) = bpf(GET_LINK, id) else {
            continue;
        };
        // SAFETY: the descriptor is new and nobody else closes it.
        let link = unsafe { OwnedFd::from_raw_fd(i32::try_from(link)?) };
        bpf(DETACH_LINK, u32::try_from(link.as_raw_fd())?)?;
        detached += 1;
    }
    Ok(detached)
}
