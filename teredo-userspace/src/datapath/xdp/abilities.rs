//! The kernel's abilities with BPF.

use std::{io, sync::OnceLock};

use super::{refusal, sys};
use crate::datapath::verifier::undisturbed;

/// Finds out what the kernel is able to do, unless that is known. To be called before anything is loaded.
///
/// The answers hold for the life of the process, and want of memory or descriptors looks like a kernel
/// that lacks an ability. So it is asked only while there are some.
///
/// # Errors
///
/// `ENOMEM`, `EMFILE` or `ENFILE`: the caller may try again later. `EAGAIN` if the process was stopped while it asked: another
/// process has to.
pub fn examine() -> io::Result<()> {
    static KNOWN: OnceLock<()> = OnceLock::new();
    if KNOWN.get().is_some() {
        return Ok(());
    }
    match sys::create_map() {
        Err(error) if is_shortage(&error) => return Err(error),
        // The kernel's answers come with what is loaded.
        Ok(_) | Err(_) => {}
    }
    let abilities = undisturbed(|| io::Result::Ok(aya::features()))?;
    // An interrupted question looks like a no, and aya does not ask again.
    if !abilities.bpf_global_data() && refusal::is_tested_with() {
        return Err(io::Error::from_raw_os_error(libc::EAGAIN));
    }
    let _ = KNOWN.set(());
    Ok(())
}

/// Returns whether the error is one of memory or descriptors, of which there may be some later.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE)
    )
}
