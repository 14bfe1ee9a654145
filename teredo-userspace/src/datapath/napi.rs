//! The kernel thread that routes the packets which the daemon writes to its TUN interface.
//!
//! Without it, each write carries its packet all the way out of the other interface. With it, writes
//! only queue, and the thread carries whole batches through the stack, which saves about a seventh
//! of the CPU time of a decapsulated packet.

use std::{collections::HashSet, fs, io};

use nix::{
    sched::{sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::sysfs;

/// Characters of a kernel thread's name that every kernel shows.
const NAME_LENGTH: usize = 15;

/// Enables the kernel thread of an interface.
///
/// # Errors
///
/// When the kernel is older than 5.12, or sysfs cannot be mounted.
pub(super) fn use_thread(interface: &str, index: u32) -> io::Result<()> {
    sysfs::write(interface, index, "threaded", "1")
}

/// Returns the kernel threads of interfaces of this name, in every network namespace. Most
/// containers cannot see any.
pub(super) fn threads(interface: &str) -> HashSet<Pid> {
    let mut name = format!("napi/{interface}-");
    name.truncate(NAME_LENGTH);
    let Ok(processes) = fs::read_dir("/proc") else {
        return HashSet::new();
    };
    processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|number: &i32| {
            // A process that has just ended has no name.
            fs::read_to_string(format!("/proc/{number}/comm"))
                .is_ok_and(|found| found.starts_with(&name))
        })
        .map(Pid::from_raw)
        .collect()
}

/// Restricts kernel threads to the CPUs that the daemon may use, and schedules them in batches, so
/// that they wait until the daemon pauses or its time slice ends. Otherwise each packet would wake
/// them at once, at the cost of two context switches every few packets.
pub(super) fn restrain<'a>(threads: impl IntoIterator<Item = &'a Pid>) {
    for &thread in threads {
        let result = sched_getaffinity(Pid::from_raw(0))
            .and_then(|cpus| sched_setaffinity(thread, &cpus))
            .and_then(|()| set_batch(thread));
        if let Err(error) = result {
            tracing::debug!(%error, "cannot set the scheduling of the kernel thread of the TUN interface");
        }
    }
}

fn set_batch(thread: Pid) -> nix::Result<()> {
    // The kernel's sched_param. The function of musl fails always, and its structure has more fields.
    let priority: libc::c_int = 0;
    // SAFETY: the parameter is valid during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread.as_raw(),
            libc::SCHED_BATCH,
            &raw const priority,
        )
    };
    nix::Error::result(result).map(drop)
}
