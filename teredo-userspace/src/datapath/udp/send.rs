//! Sending batches of datagrams.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr, slice,
};

use super::{
    messages::{Control, Messages, VECTORS, name},
    segmentation,
};
use crate::datapath::BATCH;

/// The payload of a datagram, in two parts.
pub trait Payload {
    /// Returns the parts. Either may be empty.
    fn parts(&self) -> [&[u8]; 2];
}

impl Payload for &[u8] {
    fn parts(&self) -> [&[u8]; 2] {
        [self, &[]]
    }
}

impl<const N: usize> Payload for &[u8; N] {
    fn parts(&self) -> [&[u8]; 2] {
        [*self, &[]]
    }
}

impl Payload for [&[u8]; 2] {
    fn parts(&self) -> [&[u8]; 2] {
        *self
    }
}

/// Most segments of one message: the limit of kernels since 4.18.
const SEGMENTS: usize = 64;
/// Most octets of UDP payload that one message carries in all its segments.
const SEGMENTED: usize = 65_000;

/// The sending side of a port.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    messages: Messages,
    /// Payloads that each message carries.
    runs: [usize; BATCH],
    /// Whether the kernel splits messages into segments, as configured ([`Segmentation`]); some kernels
    /// refuse on devices without checksum offload.
    ///
    /// [`Segmentation`]: super::Segmentation
    segmentation: bool,
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Sender {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            messages: Messages::new(),
            runs: [0; BATCH],
            segmentation: segmentation::is_on(),
        }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Returns another sender of the same port.
    ///
    /// # Errors
    ///
    /// When the process has too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::new(self.socket.try_clone()?))
    }

    /// Sends each payload to its endpoint and returns how many the kernel accepted. The others (no
    /// route, a full queue, a firewall) are lost, as in any router.
    ///
    /// Consecutive payloads of one length to one endpoint leave as one message, which stays whole
    /// down to the network interface.
    pub fn send<P: Payload>(&mut self, datagrams: &[(SocketAddrV4, P)]) -> usize {
        let (mut sent, mut next) = (0, 0);
        let mut together = self.segmentation;
        while next < datagrams.len() {
            let messages = self.fill(&datagrams[next..], together);
            let taken = self.send_messages(messages);
            for length in &self.runs[..taken] {
                sent += length;
                next += length;
            }
            if taken == messages {
                continue;
            }
            // The kernel stopped at a message; it returns the reason only for the first message.
            let refused = self.runs[taken];
            let messages = self.fill(&datagrams[next..next + refused], together);
            if self.send_messages(messages) == messages {
                sent += refused;
                next += refused;
            } else if refused > 1 {
                // Larger than the path's MTU, or not supported by the device: send the payloads
                // one by one, so that the kernel fragments them.
                let error = io::Error::last_os_error().raw_os_error();
                self.segmentation &= error != Some(libc::EIO);
                for datagram in &datagrams[next..next + refused] {
                    self.fill(slice::from_ref(datagram), false);
                    sent += self.send_messages(1);
                }
                next += refused;
            } else {
                next += 1;
            }
            together = self.segmentation;
        }
        sent
    }

    /// Sends the first `messages` messages and returns how many the kernel accepted.
    fn send_messages(&mut self, messages: usize) -> usize {
        // SAFETY: `fill` pointed the first headers to names, vectors and control areas that `self`
        // owns, and the vectors to payloads that the caller still borrows.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                self.messages.headers.as_mut_ptr(),
                messages as u32,
                0,
            )
        };
        usize::try_from(sent).unwrap_or(0)
    }

    /// Describes the first datagrams, as many as there is room for, as messages, and returns the number
    /// of messages. With `together`, each run of datagrams becomes one message.
    fn fill<P: Payload>(&mut self, datagrams: &[(SocketAddrV4, P)], together: bool) -> usize {
        let (mut message, mut next, mut used) = (0, 0, 0);
        while message < BATCH
            && let Some((destination, first)) = datagrams.get(next)
        {
            let run = if together { run(&datagrams[next..]) } else { 1 };
            if used + 2 * run > VECTORS {
                break;
            }
            let start = used;
            let payloads = datagrams[next..next + run].iter();
            for part in payloads.flat_map(|(_, payload)| payload.parts()) {
                if !part.is_empty() {
                    let vector = &mut self.messages.vectors[used];
                    vector.iov_base = part.as_ptr().cast_mut().cast();
                    vector.iov_len = part.len();
                    used += 1;
                }
            }
            self.messages.names[message] = name(*destination);
            let header = &mut self.messages.headers[message].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.messages.names[message]).cast();
            header.msg_iov = self.messages.vectors[start..].as_mut_ptr();
            header.msg_iovlen = (used - start) as _;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            if run > 1 {
                let control = &mut self.messages.controls[message];
                segment(header, control, length(first) as u16);
            }
            self.runs[message] = run;
            message += 1;
            next += run;
        }
        message
    }
}

/// Returns how many of the first datagrams can be segments of one message: same endpoint, same
/// length; only the last may be shorter.
fn run<P: Payload>(datagrams: &[(SocketAddrV4, P)]) -> usize {
    let Some((destination, first)) = datagrams.first() else {
        return 0;
    };
    let first = length(first);
    if first == 0 {
        return 1;
    }
    let limit = SEGMENTS.min(SEGMENTED / first).max(1);
    let full = datagrams
        .iter()
        .take(limit)
        .take_while(|(to, payload)| to == destination && length(payload) == first)
        .count();
    match datagrams.get(full) {
        Some((to, payload))
            if full < limit && to == destination && (1..first).contains(&length(payload)) =>
        {
            full + 1
        }
        _ => full,
    }
}

fn length(payload: &impl Payload) -> usize {
    let [head, tail] = payload.parts();
    head.len() + tail.len()
}

/// Makes the kernel split the message into datagrams of this length.
fn segment(header: &mut libc::msghdr, control: &mut Control, length: u16) {
    let size = size_of::<u16>() as u32;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the computation has no precondition.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
    // SAFETY: the control area is large enough for one header and its value, and aligned.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), length);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn runs_respect_the_limits_of_the_kernel() {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let long = [0; 2000];
        let lengths = |lengths: &[usize]| {
            let datagrams: Vec<_> = lengths
                .iter()
                .map(|&length| (to, &long[..length]))
                .collect();
            run(&datagrams)
        };
        assert_eq!(lengths(&[100]), 1);
        assert_eq!(lengths(&[100, 100, 100]), 3);
        assert_eq!(lengths(&[100, 100, 99, 99]), 3);
        assert_eq!(lengths(&[100, 101]), 1);
        assert_eq!(lengths(&[100, 0]), 1);
        assert_eq!(lengths(&[0, 0]), 1);
        assert_eq!(lengths(&[100; 70]), 64);
        assert_eq!(lengths(&[2000; 70]), 32);
    }
}
