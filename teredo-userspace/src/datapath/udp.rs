//! The UDP socket that carries a node's Teredo datagrams.

use std::{
    fmt, io, mem,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, setsockopt, socket,
    sockopt,
};
use thiserror::Error;

use super::{BATCH, buffer_size};

/// Octets that the kernel may hold for us in each direction.
const BUFFER: usize = 4 << 20;
/// Segments of one send at most: what kernels since 4.18 take.
const SEGMENTS: usize = 64;
/// Octets of UDP payload that one send may carry in all its segments.
const SEGMENTED: usize = 65_000;
/// Room for one control message with an integer.
const CONTROL: usize = 32;
/// Octets of an IPv4 socket address.
const NAME: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;
/// Port of the discard service, which never sends.
const DISCARD: u16 = 9;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error("UDP port {port} of {address} is in use by another program")]
    InUse {
        /// Our address.
        address: Ipv4Addr,
        /// The port, host byte order.
        port: u16,
    },
    /// The address belongs to no interface of this host.
    #[error("{0} is not an address of this host")]
    NotOurs(Ipv4Addr),
    /// A port below 1024 without `CAP_NET_BIND_SERVICE`.
    #[error("no permission for UDP port {0}: it takes CAP_NET_BIND_SERVICE, or another port")]
    Permission(u16),
    /// Anything else.
    #[error("cannot set up the UDP socket {address}")]
    Other {
        /// Where it was to be bound.
        address: SocketAddrV4,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A bound, non-blocking UDP socket.
///
/// Datagrams leave with a time to live of 64, DSCP and ECN zero and without "don't fragment"
/// (RFC 4380 section 5.1.2). Fragments arrive reassembled, wrong checksums not at all.
#[derive(Debug)]
pub struct UdpSocket {
    receiver: OwnedFd,
    /// A second socket on the same port that only sends.
    ///
    /// It is connected, to an endpoint that never talks, since for connected sockets the kernel
    /// takes the IPv4 identification from a counter of the socket; for others from a table shared
    /// by all CPUs, whose contention is a fifth of what sending to many peers costs.
    sender: Option<OwnedFd>,
    local: SocketAddrV4,
    scratch: Scratch,
    /// Whether the kernel cuts segments for us; some kernels refuse on devices without checksum
    /// offload.
    segmentation: bool,
}

impl UdpSocket {
    /// Binds to an address of this host; port 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// A sentence for the user, see [`BindError`].
    pub fn bind(local: SocketAddrV4) -> Result<Self, BindError> {
        let other = |source: nix::Error| BindError::Other {
            address: local,
            source: source.into(),
        };
        let receiver = open().map_err(other)?;
        bind(receiver.as_raw_fd(), &SockaddrIn::from(local)).map_err(|error| match error {
            nix::Error::EADDRINUSE => BindError::InUse {
                address: *local.ip(),
                port: local.port(),
            },
            nix::Error::EADDRNOTAVAIL => BindError::NotOurs(*local.ip()),
            nix::Error::EACCES => BindError::Permission(local.port()),
            error => other(error),
        })?;
        let bound: SockaddrIn = getsockname(receiver.as_raw_fd()).map_err(other)?;
        let bound = SocketAddrV4::from(bound);
        let sender = open_sender(&receiver, bound).map_err(other)?;
        Ok(Self {
            receiver,
            sender,
            local: bound,
            scratch: Scratch::new(),
            segmentation: true,
        })
    }

    /// Where the socket is bound.
    #[must_use]
    pub fn local_address(&self) -> SocketAddrV4 {
        self.local
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
                self.receiver.as_raw_fd(),
                batch.scratch.headers.as_mut_ptr(),
                BATCH as u32,
                0,
                ptr::null_mut(),
            )
        };
        batch.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(batch.filled)
    }

    /// Sends each payload to its endpoint and returns how many the kernel took. What it does not
    /// take (no route, a full queue, a firewall) is lost, as in any router.
    ///
    /// Payloads in a row that go to one endpoint and have one length leave in one system call, and
    /// stay together down to the network interface.
    pub fn send(&mut self, datagrams: &[(SocketAddrV4, &[u8])]) -> usize {
        datagrams
            .chunks(BATCH)
            .map(|chunk| self.send_chunk(chunk))
            .sum()
    }

    fn send_chunk(&mut self, datagrams: &[(SocketAddrV4, &[u8])]) -> usize {
        let (mut sent, mut next) = (0, 0);
        let mut together = self.segmentation;
        while next < datagrams.len() {
            let messages = self.scratch.fill(&datagrams[next..], together);
            let taken = self.send_messages(messages);
            for length in &self.scratch.runs[..taken] {
                sent += length;
                next += length;
            }
            if taken == messages {
                continue;
            }
            // The kernel stopped at a message, and says why only when that one comes first.
            let refused = self.scratch.runs[taken];
            let messages = self
                .scratch
                .fill(&datagrams[next..next + refused], together);
            if self.send_messages(messages) == messages {
                sent += refused;
                next += refused;
            } else if refused > 1 {
                // Larger than the path's MTU, or a device that cannot: one by one, then the
                // kernel fragments.
                let error = io::Error::last_os_error().raw_os_error();
                self.segmentation &= error != Some(libc::EIO);
                for datagram in &datagrams[next..next + refused] {
                    self.scratch.fill(std::slice::from_ref(datagram), false);
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

    /// Sends the first messages of the scratch area; returns how many the kernel took.
    fn send_messages(&mut self, messages: usize) -> usize {
        // SAFETY: `fill` pointed the first headers to names, vectors and control areas of the
        // scratch area, and the vectors to payloads that the caller still borrows.
        let sent = unsafe {
            libc::sendmmsg(
                self.sender.as_ref().unwrap_or(&self.receiver).as_raw_fd(),
                self.scratch.headers.as_mut_ptr(),
                messages as u32,
                0,
            )
        };
        usize::try_from(sent).unwrap_or(0)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }
}

/// A socket with the settings that both of ours have.
fn open() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // DF clear: the kernel fragments what is larger than the path's MTU.
    set(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    set(
        &socket,
        libc::IP_TTL,
        i32::from(teredo_common::wire::OUTER_TTL),
    )?;
    set(&socket, libc::IP_RECVTOS, 1)?;
    // Beyond the administrator's limit only with CAP_NET_ADMIN.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER))?;
    Ok(socket)
}

/// Sets an integer option of the IP layer.
fn set(socket: &OwnedFd, option: i32, value: i32) -> nix::Result<()> {
    // SAFETY: the option's value is an integer of the size given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            ptr::from_ref(&value).cast(),
            size_of::<i32>() as u32,
        )
    };
    nix::Error::result(result).map(drop)
}

/// The socket that sends; none if the kernel chooses the source address per datagram.
fn open_sender(receiver: &OwnedFd, local: SocketAddrV4) -> nix::Result<Option<OwnedFd>> {
    if local.ip().is_unspecified() {
        return Ok(None);
    }
    let sender = open()?;
    // Two sockets share a port if both say so, and nobody else shall.
    setsockopt(receiver, sockopt::ReuseAddr, &true)?;
    setsockopt(&sender, sockopt::ReuseAddr, &true)?;
    bind(sender.as_raw_fd(), &SockaddrIn::from(local))?;
    setsockopt(receiver, sockopt::ReuseAddr, &false)?;
    setsockopt(&sender, sockopt::ReuseAddr, &false)?;
    // What comes from there would be lost; but a node accepts nothing from its own address.
    let nobody = SocketAddrV4::new(*local.ip(), DISCARD);
    connect(sender.as_raw_fd(), &SockaddrIn::from(nobody))?;
    Ok(Some(sender))
}

/// One datagram of a [`ReceiveBatch`].
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Whom it came from: for a peer behind a NAT, its mapped address and port.
    pub source: SocketAddrV4,
    /// Explicit congestion notification of the outer header, 0 to 3 (RFC 3168).
    pub ecn: u8,
    /// The UDP payload.
    pub payload: &'a mut [u8],
}

/// Room for what one [`UdpSocket::receive`] delivers.
#[derive(Debug)]
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    buffer_size: usize,
    scratch: Scratch,
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
            scratch: Scratch::new(),
            filled: 0,
        };
        let Scratch {
            headers,
            vectors,
            names,
            controls,
            ..
        } = &mut batch.scratch;
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
            .zip(self.scratch.headers.iter())
            .zip(self.scratch.names.iter())
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
        for header in &mut self.scratch.headers[..self.filled] {
            header.msg_hdr.msg_namelen = NAME;
            header.msg_hdr.msg_controllen = CONTROL;
        }
        self.filled = 0;
    }
}

/// The memory in which a batch is described to the kernel.
///
/// The headers point into the other parts, which stay where they are when the whole moves.
struct Scratch {
    headers: Box<[libc::mmsghdr; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    names: Box<[libc::sockaddr_in; BATCH]>,
    controls: Box<[Control; BATCH]>,
    /// Sending: how many payloads each message carries.
    runs: Box<[usize; BATCH]>,
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the pointers lead to what the structure itself owns, or to what the caller of `fill`
// borrows during a call.
unsafe impl Send for Scratch {}
// SAFETY: as above; nothing changes behind a shared reference.
unsafe impl Sync for Scratch {}

impl Scratch {
    fn new() -> Self {
        // SAFETY: all zeros are valid for these structures of the C library.
        let (mut header, vector, name) = unsafe {
            (
                mem::zeroed::<libc::mmsghdr>(),
                mem::zeroed::<libc::iovec>(),
                mem::zeroed::<libc::sockaddr_in>(),
            )
        };
        header.msg_hdr.msg_namelen = NAME;
        header.msg_hdr.msg_controllen = CONTROL;
        Self {
            headers: Box::new([header; BATCH]),
            vectors: Box::new([vector; BATCH]),
            names: Box::new([name; BATCH]),
            controls: Box::new([Control([0; CONTROL]); BATCH]),
            runs: Box::new([0; BATCH]),
        }
    }

    /// Describes the datagrams, at most [`BATCH`], as messages, and returns how many messages
    /// these are; `together` puts runs of datagrams into one message each.
    fn fill(&mut self, datagrams: &[(SocketAddrV4, &[u8])], together: bool) -> usize {
        let (mut message, mut next) = (0, 0);
        while let Some(&(destination, first)) = datagrams.get(next) {
            let run = if together { run(&datagrams[next..]) } else { 1 };
            let payloads = &datagrams[next..next + run];
            let vectors = &mut self.vectors[next..next + run];
            for (vector, (_, payload)) in vectors.iter_mut().zip(payloads) {
                vector.iov_base = payload.as_ptr().cast_mut().cast();
                vector.iov_len = payload.len();
            }
            self.names[message] = name(destination);
            let header = &mut self.headers[message].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.names[message]).cast();
            header.msg_iov = vectors.as_mut_ptr();
            header.msg_iovlen = run;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            if run > 1 {
                segment(header, &mut self.controls[message], first.len() as u16);
            }
            self.runs[message] = run;
            message += 1;
            next += run;
        }
        message
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// How many of the first datagrams the kernel can take as segments of one: same endpoint, same
/// length, but the last may be shorter.
fn run(datagrams: &[(SocketAddrV4, &[u8])]) -> usize {
    let Some(&(destination, first)) = datagrams.first() else {
        return 0;
    };
    let length = first.len();
    if length == 0 {
        return 1;
    }
    let limit = SEGMENTS.min(SEGMENTED / length).max(1);
    let full = datagrams
        .iter()
        .take(limit)
        .take_while(|(to, payload)| *to == destination && payload.len() == length)
        .count();
    match datagrams.get(full) {
        Some((to, payload))
            if full < limit && *to == destination && (1..length).contains(&payload.len()) =>
        {
            full + 1
        }
        _ => full,
    }
}

/// Has the kernel cut the message into datagrams of this length.
fn segment(header: &mut libc::msghdr, control: &mut Control, length: u16) {
    let size = size_of::<u16>() as u32;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the computation has no precondition.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as usize;
    // SAFETY: the control area is large enough for one header and its value, and aligned.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(size) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), length);
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

fn name(endpoint: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: endpoint.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*endpoint.ip()).to_be(),
        },
        sin_zero: [0; 8],
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

    const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    fn bound() -> UdpSocket {
        UdpSocket::bind(LOCAL).unwrap()
    }

    /// Receives until `count` datagrams have come.
    fn collect(socket: &UdpSocket, count: usize) -> Vec<(SocketAddrV4, u8, Vec<u8>)> {
        let mut batch = ReceiveBatch::new(1280);
        let mut all = Vec::new();
        while all.len() < count {
            let mut readable = [nix::poll::PollFd::new(
                socket.as_fd(),
                nix::poll::PollFlags::POLLIN,
            )];
            assert_eq!(nix::poll::poll(&mut readable, 5000u16), Ok(1), "{all:?}");
            socket.receive(&mut batch).unwrap();
            all.extend(
                batch
                    .datagrams()
                    .map(|datagram| (datagram.source, datagram.ecn, datagram.payload.to_vec())),
            );
        }
        all
    }

    #[test]
    fn datagrams_arrive_as_they_were_sent() {
        let (mut here, there, elsewhere) = (bound(), bound(), bound());
        let one = |octet: u8, length: usize| vec![octet; length];
        // Runs with a shorter end, other lengths, another endpoint between, more than a batch.
        let mut payloads = vec![one(1, 100), one(2, 100), one(3, 50), one(4, 100)];
        payloads.extend((5..100).map(|octet| one(octet, 1308)));
        payloads.push(Vec::new());
        payloads.push(one(200, 1));
        let mut datagrams: Vec<(SocketAddrV4, &[u8])> = payloads
            .iter()
            .map(|payload| (there.local_address(), payload.as_slice()))
            .collect();
        datagrams.insert(2, (elsewhere.local_address(), b"elsewhere"));
        assert_eq!(here.send(&datagrams), datagrams.len());

        let received = collect(&there, payloads.len());
        let expected: Vec<_> = payloads
            .into_iter()
            .map(|payload| (here.local_address(), 0, payload))
            .collect();
        assert_eq!(received, expected);
        assert_eq!(collect(&elsewhere, 1)[0].2, b"elsewhere");
        // Nobody else hears, the sending socket's own queue included.
        let nothing = here.receive(&mut ReceiveBatch::new(1280)).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn one_that_the_kernel_refuses_does_not_stop_the_others() {
        let (mut here, there) = (bound(), bound());
        // Port 0 is no destination; broadcasts are not permitted.
        let nowhere = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        let to = there.local_address();
        let sent = here.send(&[
            (nowhere, b"a"),
            (to, b"b"),
            (broadcast, b"c"),
            (broadcast, b"d"),
            (to, b"e"),
            (to, b"f"),
            (nowhere, b"g"),
        ]);
        assert_eq!(sent, 3);
        let payloads: Vec<_> = collect(&there, 3).into_iter().map(|got| got.2).collect();
        assert_eq!(payloads, [b"b", b"e", b"f"]);
    }

    #[test]
    fn congestion_marks_come_along_and_oversize_is_left_out() {
        let there = bound();
        let socket = std::net::UdpSocket::bind(LOCAL).unwrap();
        let send = |tos: i32, payload: &[u8]| {
            // SAFETY: the option's value is an integer.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_IP,
                    libc::IP_TOS,
                    ptr::from_ref(&tos).cast(),
                    4,
                )
            };
            assert_eq!(set, 0);
            socket.send_to(payload, there.local_address()).unwrap();
        };
        send(0, b"none");
        send(0x03, b"congestion experienced");
        send(0, &[0; 4000]);
        send(0xb9, b"expedited, ECT(1)");
        let received: Vec<_> = collect(&there, 3)
            .into_iter()
            .map(|(_, ecn, payload)| (ecn, payload))
            .collect();
        assert_eq!(
            received,
            [
                (0, b"none".to_vec()),
                (3, b"congestion experienced".to_vec()),
                (1, b"expedited, ECT(1)".to_vec())
            ]
        );
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_are_told_apart() {
        let here = bound();
        let error = UdpSocket::bind(here.local_address()).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        let foreign = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 3545);
        let error = UdpSocket::bind(foreign).unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 is not an address of this host"
        );
        // Not even who offers to share gets the port.
        let socket = open().unwrap();
        setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        let taken = bind(socket.as_raw_fd(), &SockaddrIn::from(here.local_address()));
        assert_eq!(taken, Err(nix::Error::EADDRINUSE));
    }

    #[test]
    fn runs_end_where_the_kernel_wants_it() {
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
