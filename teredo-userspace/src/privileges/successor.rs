//! The privileges of a process that takes over from this one.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use caps::CapSet;
use nix::libc;

use super::sandbox;

/// `_LINUX_CAPABILITY_VERSION_3`, in which sets have 64 bits.
const VERSION: u32 = 0x2008_0522;

/// The kernel's `__user_cap_header_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: u32,
    /// 0 for the calling thread.
    thread: i32,
}

/// The kernel's `__user_cap_data_struct`: half of each set.
#[repr(C)]
#[derive(Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes the process that `command` starts keep the capabilities of this one, which a process
/// otherwise loses when it runs a program as another user than root. It stays in the sandbox of this
/// process, as every child does, and is told so.
///
/// # Errors
///
/// When the kernel does not name the capabilities of this process.
pub fn inherit(command: &mut Command) -> io::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    let set = permitted.iter().fold(0, |set, one| set | one.bitmask());
    if sandbox::is_active() {
        command.env(sandbox::INHERITED, "1");
    } else {
        command.env_remove(sandbox::INHERITED);
    }
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(move || pass_on(set)) };
    Ok(())
}

/// Makes a set of capabilities survive the next `exec`.
fn pass_on(set: u64) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        thread: 0,
    };
    let half = |bits: u64| {
        let bits = bits as u32;
        Half {
            effective: bits,
            permitted: bits,
            inheritable: bits,
        }
    };
    let halves = [half(set), half(set >> 32)];
    // SAFETY: the kernel reads one header and, in this version, two halves.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    for capability in (0..u64::BITS).filter(|bit| set >> bit & 1 == 1) {
        // SAFETY: the call has numbers as arguments only.
        let result = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                libc::c_ulong::from(capability),
                0 as libc::c_ulong,
                0 as libc::c_ulong,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
