//! The commands of the `bpf` system call that aya has no function for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

// Of the kernel's `bpf_cmd`.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The members of the kernel's `bpf_attr` for pinned objects.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The member of the kernel's `bpf_attr` for detaching links.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Link {
    link_fd: u32,
    padding: u32,
}

/// Calls the kernel with one member of `bpf_attr`.
///
/// # Safety
///
/// Every pointer in `attributes` points to what the command reads or writes there.
unsafe fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes no more of the attributes than their size; the caller
    // vouches for the pointers in them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Detaches the program of a pinned link at once. Removing the pin alone would leave that to some
/// later moment of the kernel's choice.
///
/// # Errors
///
/// What the kernel answers; `EINVAL` if it is not a link.
pub fn detach_link(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: name.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the name is a string that ends with a zero and lives until after the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut object)? };
    // SAFETY: the kernel made this descriptor for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut link = Link {
        link_fd: fd.as_raw_fd() as u32,
        padding: 0,
    };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut link)? };
    Ok(())
}
