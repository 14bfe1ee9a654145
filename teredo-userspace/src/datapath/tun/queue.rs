//! A queue of a TUN interface.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    poll::{PollFd, PollFlags, poll},
    sys::uio::writev,
    unistd::read,
};

use super::{PacketBatch, offloads};
use crate::datapath::offload::{Coalescer, Header, Protocols};

/// Octets of kernel memory that written packets may occupy until they are routed: more than one
/// batch, but few enough to be still in the CPU's cache then.
const ROOM: i32 = 256 << 10;
/// Milliseconds to wait for room in a full queue: the kernel thread may wait for a busy CPU, while the socket
/// keeps what comes.
const FULL: u16 = 1_000;

/// A queue of a TUN interface. Reading and writing do not block.
#[derive(Debug)]
pub struct Queue {
    descriptor: OwnedFd,
    /// Of which protocols the kernel takes super-packets, if packets have a virtio-net header.
    offload: Option<Protocols>,
}

impl Queue {
    /// Sets up the queue behind a descriptor.
    pub(super) fn new(descriptor: OwnedFd, is_offloaded: bool) -> io::Result<Self> {
        let raw = descriptor.as_raw_fd();
        let offload = match is_offloaded {
            true => Some(offloads::enable(raw)?),
            false => None,
        };
        fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // SAFETY: the request reads an integer.
        unsafe { set_room(raw, &ROOM) }?;
        Ok(Self {
            descriptor,
            offload,
        })
    }

    /// Returns whether packets have a virtio-net header.
    pub(super) fn is_offloaded(&self) -> bool {
        self.offload.is_some()
    }

    /// Reads the packets that the kernel has routed into the queue, as many as the batch has room
    /// for, and returns how many.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there are none: the file descriptor's readiness says when to
    /// call again. After any other error the interface is gone or down.
    pub fn read(&self, batch: &mut PacketBatch) -> io::Result<usize> {
        batch.clear();
        while let Some(memory) = batch.next() {
            match read(self, memory) {
                Ok(length) => batch.add(length),
                Err(nix::Error::EINTR) => {}
                Err(_) if batch.len() > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(batch.len())
    }

    /// Hands packets to the kernel, which routes them on, and returns how many it accepted. The
    /// others (not IPv6, interface down, no memory) are lost.
    pub fn write(&self, packets: &[&[u8]]) -> usize {
        let header = Header::default().build(0);
        packets
            .iter()
            .filter(|packet| match self.offload {
                Some(_) => self.write_one(&[IoSlice::new(&header), IoSlice::new(packet)]),
                None => self.write_one(&[IoSlice::new(packet)]),
            })
            .count()
    }

    /// Hands packets to the kernel as [`Self::write`] does, those that follow each other in their flow as
    /// one.
    pub fn write_coalesced(&self, packets: &[&[u8]], coalescer: &mut Coalescer) -> usize {
        let Some(protocols) = self.offload else {
            return self.write(packets);
        };
        let mut written = 0;
        coalescer.coalesce(packets, protocols);
        coalescer.each(packets, |parts, count| {
            if self.write_one(parts) {
                written += count;
            }
        });
        written
    }

    fn write_one(&self, parts: &[IoSlice<'_>]) -> bool {
        let mut waited = false;
        loop {
            match writev(self, parts) {
                Ok(_) => return true,
                Err(nix::Error::EINTR) => {}
                // The kernel thread is behind, perhaps because it needs this CPU: let it run.
                Err(nix::Error::EAGAIN) if !waited => {
                    waited = true;
                    let mut writable = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
                    let _ = poll(&mut writable, FULL);
                }
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

nix::ioctl_write_ptr!(
    /// `TUNSETSNDBUF`: octets that written packets may occupy.
    set_room,
    b'T',
    212,
    libc::c_int
);
