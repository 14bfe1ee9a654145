//! Receiving.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use super::messages::{CONTROL, Messages, NAME};
use crate::datapath::{BATCH, buffer_size};

/// A socket that receives.
#[derive(Debug)]
pub struct Receiver(OwnedFd);

impl Receiver {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Receives what is there, up to [`BATCH`] datagrams, and returns how many.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is nothing: the file descriptor's readiness says when
    /// to call again. Otherwise what is wrong with the socket itself.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.restore();
        // SAFETY: every header points to a name, a vector, a buffer and a control area that the
        // batch owns, with their sizes, and nothing else refers to them during the call.
        let received = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                batch.messages.headers.as_mut_ptr(),
                BATCH as u32,
                0,
                ptr::null_mut(),
            )
        };
        batch.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(batch.filled)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One datagram of a [`ReceiveBatch`].
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Whom it came from: for a peer behind a NAT, its mapped address and port.
    pub source: SocketAddrV4,
    /// Explicit congestion notification of the outer header (RFC 3168): 3 if congestion was
    /// experienced, else 0.
    pub ecn: u8,
    /// The UDP payload.
    pub payload: &'a mut [u8],
}

/// Room for what one [`Receiver::receive`] delivers.
#[derive(Debug)]
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    buffer_size: usize,
    messages: Messages,
    filled: usize,
}

impl ReceiveBatch {
    /// Room for packets of a tunnel with this MTU. Larger datagrams are of no use.
    #[must_use]
    pub fn new(mtu: u16) -> Self {
        let buffer_size = buffer_size(mtu);
        let mut batch = Self {
            buffers: vec![0; BATCH * buffer_size].into(),
            buffer_size,
            messages: Messages::new(),
            filled: 0,
        };
        let Messages {
            headers,
            vectors,
            names,
            controls,
        } = &mut batch.messages;
        for (index, buffer) in batch.buffers.chunks_exact_mut(buffer_size).enumerate() {
            vectors[index].iov_base = buffer.as_mut_ptr().cast();
            vectors[index].iov_len = buffer_size;
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(&mut names[index]).cast();
            header.msg_control = controls[index].0.as_mut_ptr().cast();
        }
        batch
    }

    /// The datagrams of the last receive call, in order. One that was larger than a buffer is left
    /// out: no Teredo packet is.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.buffers
            .chunks_exact_mut(self.buffer_size)
            .zip(self.messages.headers.iter())
            .zip(self.messages.names.iter())
            .take(self.filled)
            .filter(|((_, header), _)| header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0)
            .map(|((buffer, header), name)| Datagram {
                source: endpoint(name),
                ecn: type_of_service(&header.msg_hdr) & 3,
                payload: &mut buffer[..header.msg_len as usize],
            })
    }

    /// Restores what the kernel has changed in the headers.
    fn restore(&mut self) {
        for header in &mut self.messages.headers[..self.filled] {
            header.msg_hdr.msg_namelen = NAME;
            header.msg_hdr.msg_controllen = CONTROL;
        }
        self.filled = 0;
    }
}

/// The TOS octet that came with a datagram; zero if there is none.
fn type_of_service(header: &libc::msghdr) -> u8 {
    // SAFETY: the kernel has filled the control area, whose length it left in the header.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        if message.is_null()
            || (*message).cmsg_level != libc::IPPROTO_IP
            || (*message).cmsg_type != libc::IP_TOS
        {
            return 0;
        }
        *libc::CMSG_DATA(message)
    }
}

fn endpoint(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
        u16::from_be(name.sin_port),
    )
}
