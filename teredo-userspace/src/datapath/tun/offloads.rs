//! What the kernel leaves to the reader of a TUN interface, and takes from its writer.

use std::{io, os::fd::RawFd};

use crate::datapath::{
    offload::{Header, Protocols},
    udp::segmentation,
};

// `TUN_F_*` of the kernel's `linux/if_tun.h`.
const CHECKSUM: u32 = 0x01;
const TCP_IPV6: u32 = 0x04;
const TCP_ECN: u32 = 0x08;
/// The kernel takes these two only together.
const UDP: u32 = 0x20 | 0x40;

/// Switches on what this kernel offers: checksums and TCP segments; since Linux 6.2 UDP segments, too.
/// Returns the protocols of which it also takes super-packets; not UDP if the kernel is not to split
/// datagrams, as it does for most programs.
///
/// # Errors
///
/// The kernel does not know the header.
pub(super) fn enable(interface: RawFd) -> io::Result<Protocols> {
    let length = Header::LENGTH as libc::c_int;
    // SAFETY: the request reads an integer.
    unsafe { set_header_length(interface, &length) }?;
    let tcp = CHECKSUM | TCP_IPV6 | TCP_ECN;
    for (offloads, protocols) in [
        (tcp | UDP, Protocols::TcpAndUdp),
        (tcp, Protocols::Tcp),
        // Without any, the kernel still takes super-packets of TCP.
        (0, Protocols::Tcp),
    ] {
        // SAFETY: the request takes its argument by value.
        match unsafe { set_offloads(interface, offloads.into()) } {
            Ok(_) if segmentation::is_on() => return Ok(protocols),
            Ok(_) => return Ok(Protocols::Tcp),
            Err(error) => {
                tracing::debug!(%error, "the TUN driver has not the offloads {offloads:#x}")
            }
        }
    }
    Ok(Protocols::Tcp)
}

nix::ioctl_write_int!(
    /// `TUNSETOFFLOAD`: what the reader of the interface does itself.
    set_offloads,
    b'T',
    208
);

nix::ioctl_write_ptr!(
    /// `TUNSETVNETHDRSZ`: octets of the header before each packet.
    set_header_length,
    b'T',
    216,
    libc::c_int
);
