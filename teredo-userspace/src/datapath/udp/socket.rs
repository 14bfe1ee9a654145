//! What there is to set on a socket.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use nix::sys::socket::{
    AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrIn, getsockname, setsockopt, sockopt,
};
use teredo_common::wire::OUTER_TTL;

/// Octets that the kernel may hold for us in each direction.
const BUFFER: usize = 4 << 20;
/// Explicit congestion notification: congestion experienced, and the bits that say so.
const CONGESTION_EXPERIENCED: u32 = 3;

/// A socket with the settings that all of ours have.
pub fn open() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // DF clear: the kernel fragments what is larger than the path's MTU.
    set_option(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    set_option(&socket, libc::IP_TTL, i32::from(OUTER_TTL))?;
    // Our own multicasts are nothing that we want to receive.
    set_option(&socket, libc::IP_MULTICAST_LOOP, 0)?;
    // Beyond the administrator's limit only with CAP_NET_ADMIN.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER))?;
    Ok(socket)
}

/// Binds a socket, and tells where it is bound.
pub fn bind(socket: &OwnedFd, local: SocketAddrV4) -> nix::Result<SocketAddrV4> {
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrIn::from(local))?;
    let bound: SockaddrIn = getsockname(socket.as_raw_fd())?;
    Ok(bound.into())
}

/// Connects a socket.
pub fn connect(socket: &OwnedFd, to: SocketAddrV4) -> nix::Result<()> {
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))
}

/// Has the kernel deliver datagrams of one sender in one piece where they came together. Kernels
/// before 5.0 do not.
pub fn collect(socket: &OwnedFd) {
    let _ = set_raw(socket, libc::SOL_UDP, libc::UDP_GRO, &1);
}

/// Has the kernel deliver every datagram by itself again.
pub fn separate(socket: &OwnedFd) {
    let _ = set_raw(socket, libc::SOL_UDP, libc::UDP_GRO, &0);
}

/// Sets a switch of the socket layer.
pub fn set(socket: &OwnedFd, option: impl SetSockOpt<Val = bool>, on: bool) -> nix::Result<()> {
    setsockopt(socket, option, &on)
}

/// Sets an integer of the IP layer.
pub fn set_option(socket: &OwnedFd, option: i32, value: i32) -> nix::Result<()> {
    set_raw(socket, libc::IPPROTO_IP, option, &value)
}

/// Of two sockets that share a port, has the one bound first receive everything but what
/// experienced congestion, and the other one that.
pub fn select_marked(socket: &OwnedFd) -> nix::Result<()> {
    const TYPE_OF_SERVICE: i32 = libc::SKF_NET_OFF + 1;
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        statement(
            libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
            TYPE_OF_SERVICE as u32,
        ),
        statement(
            libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
            CONGESTION_EXPERIENCED,
        ),
        libc::sock_filter {
            jf: 1,
            ..statement(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                CONGESTION_EXPERIENCED,
            )
        },
        statement(libc::BPF_RET | libc::BPF_K, 1),
        statement(libc::BPF_RET | libc::BPF_K, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_raw(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &program,
    )
}

/// Joins or leaves a multicast group on the interface with this index.
pub fn set_member(
    socket: &OwnedFd,
    group: Ipv4Addr,
    interface: u32,
    is_member: bool,
) -> nix::Result<()> {
    let option = if is_member {
        libc::IP_ADD_MEMBERSHIP
    } else {
        libc::IP_DROP_MEMBERSHIP
    };
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr {
            s_addr: u32::from(group).to_be(),
        },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: interface as i32,
    };
    set_raw(socket, libc::IPPROTO_IP, option, &request)
}

fn set_raw<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> nix::Result<()> {
    // SAFETY: the value is what the option takes, of the size given; what it points to, if
    // anything, outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    nix::Error::result(result).map(drop)
}
