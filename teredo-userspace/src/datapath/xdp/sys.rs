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
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The members of the kernel's `bpf_attr` for new maps.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Map {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

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

/// The member of the kernel's `bpf_attr` for opening objects by number.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Number {
    id: u32,
    next_id: u32,
    open_flags: u32,
    padding: u32,
}

/// Calls the kernel with one member of `bpf_attr`.
///
/// # Safety
///
/// Every pointer in `attributes` is valid for the reads and writes of the command.
unsafe fn bpf<T: Pod>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes no more of the attributes than their size; the caller
    // guarantees the pointers in them.
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

/// Creates an array of one small entry.
///
/// # Errors
///
/// The error of the kernel.
pub fn create_map() -> io::Result<OwnedFd> {
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    let mut map = Map {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
    };
    // SAFETY: the attributes contain no pointers.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &mut map)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Detaches the program of a pinned link at once. After removing the pin alone, the kernel would
/// detach it at some later moment.
///
/// # Errors
///
/// The error of the kernel; `EINVAL` if the pin is not a link.
pub fn detach_link(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: name.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the name is zero-terminated and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut object)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    detach(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Detaches the program of the link with this number at once. When its descriptors are closed, the kernel
/// would detach it only after the last copy, which a child process may hold for a moment.
///
/// # Errors
///
/// The error of the kernel; `ENOENT` if there is no such link.
pub fn detach_link_numbered(id: u32) -> io::Result<()> {
    let mut number = Number {
        id,
        ..Number::zeroed()
    };
    // SAFETY: the attributes contain no pointers.
    let fd = unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut number)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    detach(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn detach(fd: OwnedFd) -> io::Result<()> {
    let mut link = Link {
        link_fd: fd.as_raw_fd() as u32,
        padding: 0,
    };
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut link)? };
    Ok(())
}
