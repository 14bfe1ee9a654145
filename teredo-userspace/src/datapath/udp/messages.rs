//! The description of a batch for the kernel.

use std::{fmt, mem, net::SocketAddrV4};

use crate::datapath::BATCH;

/// Room for two control messages with an integer each.
pub const CONTROL: usize = 64;
/// Parts of payloads in all messages: more than a message has.
pub const VECTORS: usize = 8 * BATCH;
/// Octets of an IPv4 socket address.
pub const NAME: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;

/// The headers of a batch for `recvmmsg` and `sendmmsg`.
///
/// The headers point into the other parts, which are boxed so that moving the whole does not move
/// them.
pub struct Messages {
    pub headers: Box<[libc::mmsghdr; BATCH]>,
    pub vectors: Box<[libc::iovec; VECTORS]>,
    pub names: Box<[libc::sockaddr_in; BATCH]>,
    pub controls: Box<[Control; BATCH]>,
}

/// Room for control messages.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control(pub [u8; CONTROL]);

// SAFETY: the pointers lead into memory that the structure owns, or that is borrowed as long as they
// are used.
unsafe impl Send for Messages {}
// SAFETY: as above; nothing changes behind a shared reference.
unsafe impl Sync for Messages {}

impl Messages {
    pub fn new() -> Self {
        // SAFETY: all zeros are valid values of these structures of the C library.
        let (mut header, vector, name) = unsafe {
            (
                mem::zeroed::<libc::mmsghdr>(),
                mem::zeroed::<libc::iovec>(),
                mem::zeroed::<libc::sockaddr_in>(),
            )
        };
        header.msg_hdr.msg_namelen = NAME;
        header.msg_hdr.msg_controllen = CONTROL as _;
        Self {
            headers: Box::new([header; BATCH]),
            vectors: Box::new([vector; VECTORS]),
            names: Box::new([name; BATCH]),
            controls: Box::new([Control([0; CONTROL]); BATCH]),
        }
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// Returns the endpoint as a socket address of the kernel.
pub fn name(endpoint: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: endpoint.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*endpoint.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}
