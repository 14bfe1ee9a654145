//! Letting a kernel thread route what the daemon writes to its TUN interface.
//!
//! Without it, each write takes its packet all the way out of the other interface. With it, writes
//! only queue, and a kernel thread takes whole batches through the stack: about a seventh less CPU
//! time for a decapsulated packet.

use std::{fs, io, path::Path, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

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
