//! The requests to the kernel about an interface.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `SIOCSIFTXQLEN` of the kernel.
const SET_QUEUE_LENGTH: libc::Ioctl = 0x8943;

/// Returns a request about the interface of this name.
pub(super) fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: zeroes are valid in every member.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, octet) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = octet as libc::c_char;
    }
    request
}

/// Makes the interface of a descriptor disappear with the last process that has it open.
///
/// # Errors
///
/// When the kernel refuses.
pub fn end_with_process(descriptor: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the request takes its argument by value.
    unsafe { set_persistence(descriptor.as_raw_fd(), 0) }?;
    Ok(())
}

/// Returns the name of the TUN interface of a descriptor; `None` if it has none any more.
#[must_use]
pub fn name_of(descriptor: &OwnedFd) -> Option<String> {
    let request = request_of(descriptor).ok()?;
    let name: Vec<u8> = (request.ifr_name.iter())
        .map(|&octet| octet as u8)
        .take_while(|&octet| octet != 0)
        .collect();
    String::from_utf8(name).ok()
}

/// Returns the flags of the interface of a descriptor.
pub(super) fn flags_of(descriptor: &OwnedFd) -> io::Result<i32> {
    let request = request_of(descriptor)?;
    // SAFETY: the kernel has set the flags.
    Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Returns the kernel's answer about the interface of a descriptor.
fn request_of(descriptor: &OwnedFd) -> io::Result<libc::ifreq> {
    // SAFETY: zeroes are valid in every member.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes an `ifreq`.
    unsafe {
        get_interface(
            descriptor.as_raw_fd(),
            std::ptr::from_mut(&mut request).cast(),
        )
    }?;
    Ok(request)
}

/// Sets how many packets of an interface may wait to be read. While the kernel changes that it loses packets, so the
/// interface must not be up.
pub(super) fn set_queue_length(name: &str, packets: u32) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let control = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    let mut request = request_for(name);
    // The member for the length is an integer, as this one.
    request.ifr_ifru.ifru_metric = packets as i32;
    // SAFETY: the request reads an `ifreq`.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), SET_QUEUE_LENGTH, &request) };
    nix::Error::result(result)?;
    Ok(())
}

nix::ioctl_read!(
    /// `TUNGETIFF`: name and flags of the interface.
    get_interface,
    b'T',
    210,
    libc::c_uint
);

nix::ioctl_write_int!(
    /// `TUNSETOWNER`: the user who may open the interface without `CAP_NET_ADMIN`.
    set_owner,
    b'T',
    204
);

nix::ioctl_write_int!(
    /// `TUNSETPERSIST`: whether the interface outlives its owner.
    set_persistence,
    b'T',
    203
);
