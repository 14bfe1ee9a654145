//! The commands of the `bpf` system call that aya has no function for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

// Of the kernel's `bpf_cmd`.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
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

/// The members of the kernel's `bpf_attr` for new links.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The members of the kernel's `bpf_attr` for replacing the program of a link.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The members of the kernel's `bpf_attr` for describing objects.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The first members of the kernel's `bpf_link_info`, with the first of XDP links.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct LinkInfo {
    /// `BPF_LINK_TYPE_`.
    pub kind: u32,
    /// Number of the link.
    pub id: u32,
    /// Number of the program.
    pub program: u32,
    padding: u32,
    /// Index of the interface.
    pub interface: u32,
    reserved: [u32; 3],
}

/// The first members of the kernel's `bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MapInfo {
    map_type: u32,
    id: u32,
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

/// Opens a pinned object.
///
/// # Errors
///
/// The error of the kernel.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: name.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the name is zero-terminated and outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut object)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins an object.
///
/// # Errors
///
/// The error of the kernel.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object {
        pathname: name.as_ptr() as u64,
        bpf_fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the name is zero-terminated and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut object)? };
    Ok(())
}

/// Attaches an XDP program to an interface. `flags` are the kernel's `XDP_FLAGS_`.
///
/// # Errors
///
/// The error of the kernel.
pub fn create_link(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    /// `BPF_XDP`.
    const XDP: u32 = 37;
    let mut link = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: interface,
        attach_type: XDP,
        flags,
    };
    // SAFETY: the attributes contain no pointers.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &mut link)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts another program in the place of that of a link.
///
/// # Errors
///
/// The error of the kernel.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut update = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut update)? };
    Ok(())
}

/// Describes a link.
///
/// # Errors
///
/// The error of the kernel; `EINVAL` if the descriptor is not of the BPF system.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::zeroed();
    let mut request = Info {
        bpf_fd: link.as_raw_fd() as u32,
        info_len: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes no more than the given length to the information.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut request)? };
    Ok(info)
}

/// Returns the number of a map.
///
/// # Errors
///
/// The error of the kernel.
pub fn map_number(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MapInfo::zeroed();
    let mut request = Info {
        bpf_fd: map.as_raw_fd() as u32,
        info_len: size_of::<MapInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the kernel writes no more than the given length to the information.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut request)? };
    Ok(info.id)
}

/// Detaches the program of a link at once. When its descriptors are closed, the kernel would detach it only
/// after the last copy, which another process may hold.
///
/// # Errors
///
/// The error of the kernel.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut link = Link {
        link_fd: link.as_raw_fd() as u32,
        padding: 0,
    };
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(BPF_LINK_DETACH, &mut link)? };
    Ok(())
}
