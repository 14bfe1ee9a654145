//! The commands of the `bpf` system call that aya has no function for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

// Of the kernel's `bpf_cmd`.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_LINK_DETACH: libc::c_int = 34;

/// Entries in one call. The kernel asks for at least as many as its fullest bucket has.
const ENTRIES: usize = 4096;

/// The `batch` member of the kernel's `bpf_attr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
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

/// Shows every entry of a hash map to `visit`. Entries that come or go meanwhile may be missed,
/// others are seen once.
///
/// # Errors
///
/// `EINVAL` or `ENOTSUPP` (524) where the kernel has no batches for this kind of map, and what else
/// the kernel answers.
pub fn for_each<K: Pod, V: Pod>(map: impl AsFd, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
    let mut keys = vec![K::zeroed(); ENTRIES];
    let mut values = vec![V::zeroed(); ENTRIES];
    let mut position = 0u32;
    let mut next = 0u32;
    let mut first = true;
    loop {
        let mut attributes = Batch {
            in_batch: if first {
                0
            } else {
                (&raw const position) as u64
            },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: ENTRIES as u32,
            map_fd: map.as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values have room for `count` entries of the sizes that the map was
        // created with, which the caller's types are; the positions are what hash maps use.
        let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        let end = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = (attributes.count as usize).min(ENTRIES);
        for (key, value) in keys.iter().zip(&values).take(count) {
            visit(key, value);
        }
        if end {
            return Ok(());
        }
        position = next;
        first = false;
    }
}
