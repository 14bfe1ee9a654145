//! The commands of the `bpf` system call that aya has no function for.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bytemuck::{Pod, Zeroable};

// Of the kernel's `bpf_cmd`.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_FREEZE: libc::c_int = 22;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `BPF_XDP`, of the kernel's `bpf_attach_type`.
const XDP: u32 = 37;

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

/// The members of the kernel's `bpf_attr` for new programs.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    padding: u32,
}

/// The members of the kernel's `bpf_attr` for elements of maps.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The member of the kernel's `bpf_attr` for freezing maps.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Freeze {
    map_fd: u32,
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

/// Puts another program in the place of that of a link, if that is `old`.
///
/// # Errors
///
/// The error of the kernel; `EPERM` if it is another one.
pub fn exchange_program(
    link: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    old: BorrowedFd<'_>,
) -> io::Result<()> {
    /// `BPF_F_REPLACE`.
    const REPLACE: u32 = 4;
    let mut update = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: REPLACE,
        old_prog_fd: old.as_raw_fd() as u32,
    };
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(BPF_LINK_UPDATE, &mut update)? };
    Ok(())
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

/// Loads an XDP program of the kernel's instructions.
///
/// # Errors
///
/// The error of the kernel.
pub fn load_xdp(name: &str, instructions: &[u64]) -> io::Result<OwnedFd> {
    const TYPE_XDP: u32 = 6;
    let license = c"Dual MIT/GPL";
    let mut load = Load::zeroed();
    load.prog_type = TYPE_XDP;
    load.expected_attach_type = XDP;
    load.insn_cnt = instructions.len() as u32;
    load.insns = instructions.as_ptr() as u64;
    load.license = license.as_ptr() as u64;
    // The last octet is the zero at the end.
    for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the instructions and the licence outlive the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut load)? };
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Writes the only value of an array, and lets nobody write it any more. `value` has the size of the value.
///
/// # Errors
///
/// The error of the kernel.
pub fn fill(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0u32;
    let mut element = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const key as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    let mut freeze = Freeze {
        map_fd: map.as_raw_fd() as u32,
    };
    // SAFETY: key and value outlive the calls, and have the sizes that the map has.
    unsafe {
        bpf(BPF_MAP_UPDATE_ELEM, &mut element)?;
        bpf(BPF_MAP_FREEZE, &mut freeze)?;
    }
    Ok(())
}

/// Puts a program into an array of programs.
///
/// # Errors
///
/// The error of the kernel.
pub fn set_program(map: BorrowedFd<'_>, place: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd();
    let mut element = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const place as u64,
        value: &raw const program as u64,
        flags: 0,
    };
    // SAFETY: key and value outlive the call, and have the sizes that such a map has.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut element)? };
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

/// Returns the number of a program.
///
/// # Errors
///
/// The error of the kernel.
pub fn program_number(program: BorrowedFd<'_>) -> io::Result<u32> {
    // The first two members are of the same kind as those of a map.
    map_number(program)
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

/// Clears the flag that closes a descriptor when another program is executed.
///
/// # Errors
///
/// When it is not open.
pub fn keep_over_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: the call takes its arguments by value.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns whether a descriptor is open.
#[must_use]
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: the call takes its arguments by value.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}
