//! Letting a kernel thread route what the daemon writes to its TUN interface.
//!
//! Without it, each write takes its packet all the way out of the other interface. With it, writes
//! only queue, and a kernel thread takes whole batches through the stack: about a seventh less CPU
//! time for a decapsulated packet.

use std::{collections::HashSet, fs, io, path::Path, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, sched_getaffinity, sched_setaffinity, unshare},
    unistd::Pid,
};

/// Characters of a kernel thread's name that every kernel shows.
const NAME_LENGTH: usize = 15;

/// Turns the kernel thread of an interface on.
///
/// # Errors
///
/// When the kernel is older than 5.12, or sysfs is not to be had.
pub(super) fn use_thread(interface: &str, index: u32) -> io::Result<()> {
    if is_ours(interface, index) {
        return write_threaded(interface);
    }
    // This sysfs shows another network namespace. A thread of its own mounts ours, which ends
    // with it.
    thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS)?;
                let none: Option<&str> = None;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
                mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
                if is_ours(interface, index) {
                    write_threaded(interface)
                } else {
                    Err(io::ErrorKind::NotFound.into())
                }
            })
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// Whether sysfs means the same interface by this name.
fn is_ours(interface: &str, index: u32) -> bool {
    let file = Path::new("/sys/class/net").join(interface).join("ifindex");
    fs::read_to_string(file).is_ok_and(|text| text.trim() == index.to_string())
}

fn write_threaded(interface: &str) -> io::Result<()> {
    let file = Path::new("/sys/class/net").join(interface).join("threaded");
    fs::write(file, "1")
}

/// The kernel threads of interfaces of this name, in every network namespace. None are seen from
/// within most containers.
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
            // Who has just ended has no name.
            fs::read_to_string(format!("/proc/{number}/comm"))
                .is_ok_and(|found| found.starts_with(&name))
        })
        .map(Pid::from_raw)
        .collect()
}

/// Keeps kernel threads on the CPUs that the daemon may use, like its own threads, and has them
/// wait until the daemon pauses or its time slice ends. Otherwise each packet would wake them at
/// once, and every few packets cost two changes of context.
pub(super) fn tame<'a>(threads: impl IntoIterator<Item = &'a Pid>) {
    for &thread in threads {
        let result = sched_getaffinity(Pid::from_raw(0))
            .and_then(|cpus| sched_setaffinity(thread, &cpus))
            .and_then(|()| set_batch(thread));
        if let Err(error) = result {
            tracing::debug!(%error, "the kernel thread of the TUN interface runs as it likes");
        }
    }
}

fn set_batch(thread: Pid) -> nix::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is valid during the call.
    let result =
        unsafe { libc::sched_setscheduler(thread.as_raw(), libc::SCHED_BATCH, &parameter) };
    nix::Error::result(result).map(drop)
}
