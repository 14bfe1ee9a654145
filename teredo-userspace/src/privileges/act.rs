//! Work with the rights of another user, for a moment.

use std::{ffi::CString, io, panic, thread};

use nix::unistd::{User, getgrouplist};
use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// Calls `work` on a thread that has the user, the groups and the rights of a process that a service manager
/// starts as this user. The other threads stay as they are.
///
/// # Errors
///
/// When this process may not become the user, or cannot have another thread.
pub fn act_as<T: Send>(user: &User, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let name = CString::new(user.name.as_bytes())?;
    let groups = getgrouplist(&name, user.gid)?;
    let groups: Vec<_> = groups
        .iter()
        .map(|gid| Gid::from_raw(gid.as_raw()))
        .collect();
    let (uid, gid) = (
        Uid::from_raw(user.uid.as_raw()),
        Gid::from_raw(user.gid.as_raw()),
    );
    let act = || -> io::Result<T> {
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        // The capabilities of root go with it.
        set_thread_res_uid(uid, uid, uid)?;
        Ok(work())
    };
    thread::scope(|scope| {
        let actor = thread::Builder::new().spawn_scoped(scope, act)?;
        actor
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
