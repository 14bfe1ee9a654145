//! Receiving batches of datagrams.

use std::{
    io, iter,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
    sync::{Mutex, PoisonError},
};

use teredo_common::address::Endpoint;

use super::{
    messages::{CONTROL, Messages, NAME, name},
    socket,
};
use crate::datapath::BATCH;

/// Octets of the buffer while one process hands over to the next, in the kernel's way of counting: some
/// hundred thousand short datagrams.
const HANDOVER_ROOM: usize = 128 << 20;

/// The receiving side of a port.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    /// The kernel's count of drops at the last look, and the sum so far.
    lost: Mutex<(u32, u64)>,
}

impl Receiver {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            lost: Mutex::default(),
        }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Detaches the filter of a mailbox.
    pub fn detach_filter(&self) {
        socket::detach_filter(&self.socket);
    }

    /// Divides the datagrams of the port among as many receivers, this one being the first.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn divide_among(&self, receivers: usize) -> io::Result<()> {
        Ok(socket::distribute(&self.socket, receivers as u32)?)
    }

    /// Makes room for the datagrams that come while no process receives, of which each of as many receivers gets a part.
    pub fn make_room_among(&self, receivers: usize) {
        let part = HANDOVER_ROOM / receivers.max(1);
        socket::set_room(&self.socket, part.max(socket::room()));
    }

    /// Ends [`Self::make_room_among`]. To be called when what has waited is received: meanwhile there would be no
    /// room for more.
    pub fn end_room(&self) {
        socket::set_room(&self.socket, socket::room());
    }

    /// Receives the waiting datagrams, up to [`BATCH`], and returns how many messages there were.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there are none: the file descriptor's readiness says when to
    /// call again. Other errors are those of the socket itself.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.restore();
        // SAFETY: every header points to a name, a vector, a buffer and a control area that the
        // batch owns, with their sizes, and nothing else refers to them during the call.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                batch.messages.headers.as_mut_ptr(),
                BATCH as u32,
                0,
                ptr::null_mut(),
            )
        };
        batch.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(batch.filled)
    }

    /// Returns how many datagrams the kernel has dropped at the socket, for want of room or with a wrong
    /// checksum. To be called before four thousand million more are.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let now = self.dropped();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, total) = *lost;
        *lost = (now, total + u64::from(now.wrapping_sub(before)));
        lost.1
    }

    /// Returns the number of the kernel, which wraps around.
    fn dropped(&self) -> u32 {
        /// `SK_MEMINFO_DROPS` and `SK_MEMINFO_VARS`.
        const DROPS: usize = 8;
        const LENGTH: usize = 9;
        let mut numbers = [0_u32; LENGTH];
        let mut length = size_of_val(&numbers) as libc::socklen_t;
        // SAFETY: the kernel writes no more than the given length to the numbers.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                numbers.as_mut_ptr().cast(),
                &mut length,
            )
        };
        if result == 0 { numbers[DROPS] } else { 0 }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// One datagram of a [`ReceiveBatch`].
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The sender: for a peer behind a NAT, its mapped address and port.
    pub source: SocketAddrV4,
    /// Explicit congestion notification of the outer header (RFC 3168): 3 if congestion was
    /// experienced, else 0.
    pub ecn: u8,
    /// The UDP payload.
    pub payload: &'a mut [u8],
}

/// Octets of a buffer: the largest datagram and a little more, so that the starts of the buffers,
/// the part that is used most, do not compete for the same lines of the CPU's cache.
const BUFFER: usize = (64 << 10) + 2112;

/// The datagrams of one [`Receiver::receive`].
#[derive(Debug)]
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    messages: Messages,
    filled: usize,
}

impl ReceiveBatch {
    /// Returns an empty batch for datagrams of any length. Memory is used only as they come.
    #[must_use]
    pub fn new() -> Self {
        let mut batch = Self {
            buffers: vec![0; BATCH * BUFFER].into(),
            messages: Messages::new(),
            filled: 0,
        };
        let Messages {
            headers,
            vectors,
            names,
            controls,
        } = &mut batch.messages;
        for (index, buffer) in batch.buffers.chunks_exact_mut(BUFFER).enumerate() {
            vectors[index].iov_base = buffer.as_mut_ptr().cast();
            vectors[index].iov_len = BUFFER;
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(&mut names[index]).cast();
            header.msg_control = controls[index].0.as_mut_ptr().cast();
        }
        batch
    }

    /// Iterates over the datagrams of the last receive call, in order. There may be more of them than
    /// messages: coalesced datagrams are one message.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.buffers
            .chunks_exact_mut(BUFFER)
            .zip(self.messages.headers.iter())
            .zip(self.messages.names.iter())
            .take(self.filled)
            .flat_map(|((buffer, header), name)| {
                let notes = Notes::of(&header.msg_hdr);
                let source = endpoint(name);
                let payload = &mut buffer[..header.msg_len as usize];
                segments(payload, notes.segment).map(move |payload| Datagram {
                    source,
                    ecn: notes.ecn,
                    payload,
                })
            })
    }

    /// Removes all datagrams.
    pub(super) fn clear(&mut self) {
        self.restore();
    }

    /// Returns the number of messages.
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// Returns whether there is no room for another message.
    pub(super) fn is_full(&self) -> bool {
        self.filled == BATCH
    }

    /// Adds a datagram without control messages, if there is room for it.
    pub(super) fn put(&mut self, source: Endpoint, payload: &[u8]) {
        let start = self.filled * BUFFER;
        // Beyond the last buffer if the batch is full.
        let Some(buffer) = self.buffers.get_mut(start..start + payload.len()) else {
            return;
        };
        buffer.copy_from_slice(payload);
        self.messages.names[self.filled] = name(source.into());
        let header = &mut self.messages.headers[self.filled];
        header.msg_len = payload.len() as u32;
        header.msg_hdr.msg_controllen = 0;
        self.filled += 1;
    }

    /// Restores the fields of the headers that the kernel has changed.
    fn restore(&mut self) {
        for header in &mut self.messages.headers[..self.filled] {
            header.msg_hdr.msg_namelen = NAME;
            header.msg_hdr.msg_controllen = CONTROL as _;
        }
        self.filled = 0;
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Splits a payload into segments of this length; the last may be shorter. An empty payload is one
/// segment.
fn segments(payload: &mut [u8], length: usize) -> impl Iterator<Item = &mut [u8]> {
    let mut rest = Some(payload);
    iter::from_fn(move || {
        let payload = rest.take()?;
        if payload.len() <= length {
            return Some(payload);
        }
        let (segment, others) = payload.split_at_mut(length);
        rest = Some(others);
        Some(segment)
    })
}

/// The control messages of a payload.
#[derive(Clone, Copy, Debug)]
struct Notes {
    ecn: u8,
    /// Octets of each coalesced datagram.
    segment: usize,
}

impl Notes {
    fn of(header: &libc::msghdr) -> Self {
        let mut notes = Self {
            ecn: 0,
            segment: usize::MAX,
        };
        // SAFETY: the kernel has filled the control area and stored its length in the header.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
        // SAFETY: as above; a pointer that is not null leads to a whole control message.
        while let Some(message) = unsafe { next.as_ref() } {
            // SAFETY: as above; the value is an octet for the first kind, an integer for the second.
            unsafe {
                let data = libc::CMSG_DATA(message);
                match (message.cmsg_level, message.cmsg_type) {
                    (libc::IPPROTO_IP, libc::IP_TOS) => notes.ecn = *data & 3,
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let length: libc::c_int = ptr::read_unaligned(data.cast());
                        notes.segment = usize::try_from(length).unwrap_or(0).max(1);
                    }
                    _ => {}
                }
                next = libc::CMSG_NXTHDR(header, message);
            }
        }
        notes
    }
}

fn endpoint(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
        u16::from_be(name.sin_port),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coalesced_datagrams_are_split() {
        let cut = |total: u8, length| {
            let mut payload: Vec<u8> = (0..total).collect();
            segments(&mut payload, length)
                .map(|segment| segment.to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(5, 2), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(cut(4, 2), [[0, 1], [2, 3]]);
        assert_eq!(cut(2, usize::MAX), [[0, 1]]);
        assert_eq!(cut(0, 2), [Vec::<u8>::new()]);
    }
}
