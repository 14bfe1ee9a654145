//! Opening, binding and configuring sockets.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use nix::{
    sys::{
        socket::{
            AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrIn, getsockname, setsockopt,
            sockopt,
        },
        stat::fstat,
    },
    unistd::Uid,
};
use teredo_common::{steering, wire::OUTER_TTL};

/// Octets of the socket buffer in each direction.
const BUFFER: usize = 4 << 20;
/// The bits of explicit congestion notification, and their value for congestion experienced.
const CONGESTION_EXPERIENCED: u32 = 3;

/// Opens a socket with the settings that all sockets here share.
pub fn open() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // DF clear: the kernel fragments datagrams that are larger than the path's MTU.
    set_option(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    set_option(&socket, libc::IP_TTL, i32::from(OUTER_TTL))?;
    // Do not receive our own multicasts.
    set_option(&socket, libc::IP_MULTICAST_LOOP, 0)?;
    set_buffers(&socket, BUFFER)?;
    Ok(socket)
}

/// Makes room for this many octets of datagrams in each direction, or for as many as the administrator permits: exceeding
/// that limit takes CAP_NET_ADMIN.
pub fn set_buffers(socket: &OwnedFd, octets: usize) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &octets)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &octets))?;
    setsockopt(socket, sockopt::SndBufForce, &octets)
        .or_else(|_| setsockopt(socket, sockopt::SndBuf, &octets))
}

/// Binds a socket and returns the endpoint that it got.
pub fn bind(socket: &OwnedFd, local: SocketAddrV4) -> nix::Result<SocketAddrV4> {
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrIn::from(local))?;
    let bound: SockaddrIn = getsockname(socket.as_raw_fd())?;
    Ok(bound.into())
}

/// Opens a socket that shares the port with others of this user. A socket of the port without `SO_REUSEPORT` needs
/// `SO_REUSEADDR` meanwhile.
pub fn open_sharing(local: SocketAddrV4) -> nix::Result<OwnedFd> {
    let socket = open()?;
    set(&socket, sockopt::ReuseAddr, true)?;
    set(&socket, sockopt::ReusePort, true)?;
    bind(&socket, local)?;
    // Nobody else joins.
    set(&socket, sockopt::ReuseAddr, false)?;
    coalesce(&socket);
    Ok(socket)
}

/// Returns whether this user has opened the socket.
pub fn is_own(socket: &OwnedFd) -> bool {
    fstat(socket).is_ok_and(|status| status.st_uid == Uid::effective().as_raw())
}

/// Connects a socket.
pub fn connect(socket: &OwnedFd, to: SocketAddrV4) -> nix::Result<()> {
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to))
}

/// Lets the kernel coalesce datagrams of one sender (generic receive offload). Kernels before 5.0 do
/// not.
pub fn coalesce(socket: &OwnedFd) {
    let _ = set_raw(socket, libc::SOL_UDP, libc::UDP_GRO, &1);
}

/// Makes the kernel deliver every datagram by itself again.
pub fn do_not_coalesce(socket: &OwnedFd) {
    let _ = set_raw(socket, libc::SOL_UDP, libc::UDP_GRO, &0);
}

/// Detaches the filter of a socket, if it has one.
pub fn detach_filter(socket: &OwnedFd) {
    let _ = set_raw(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0);
}

/// Makes room for this many octets of datagrams that wait, in the kernel's way of counting.
pub fn set_room(socket: &OwnedFd, octets: usize) {
    let _ = setsockopt(socket, sockopt::RcvBufForce, &octets);
}

/// Returns the octets that [`open`] makes room for.
pub const fn room() -> usize {
    BUFFER
}

/// Sets a boolean option of the socket layer.
pub fn set(socket: &OwnedFd, option: impl SetSockOpt<Val = bool>, on: bool) -> nix::Result<()> {
    setsockopt(socket, option, &on)
}

/// Sets an integer option of the IP layer.
pub fn set_option(socket: &OwnedFd, option: i32, value: i32) -> nix::Result<()> {
    set_raw(socket, libc::IPPROTO_IP, option, &value)
}

/// Distributes the datagrams among the sockets that share a port: those that experienced congestion go to
/// the socket that was bound second, all others to as many sockets as there are `shares`, the first and those
/// after the second, each [share of the peers](steering) to one.
pub fn distribute(socket: &OwnedFd, shares: u32) -> nix::Result<()> {
    /// The start of the IPv4 header.
    const HEADER: u32 = libc::SKF_NET_OFF as u32;
    const TYPE_OF_SERVICE: u32 = HEADER + 1;
    const SOURCE: u32 = HEADER + 12;
    /// An instruction, and how many to skip if its condition does not hold.
    const fn jump(code: u32, k: u32, jf: u8) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf,
            k,
        }
    }
    const fn plain(code: u32, k: u32) -> libc::sock_filter {
        jump(code, k, 0)
    }
    use libc::{
        BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD,
        BPF_LDX, BPF_MISC, BPF_MOD, BPF_MSH, BPF_MUL, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X,
    };
    const MARKED: u32 = 1;
    /// The value of the accumulator.
    const BPF_A: u32 = 0x10;
    let mut program = [
        plain(BPF_LD | BPF_B | BPF_ABS, TYPE_OF_SERVICE),
        plain(BPF_ALU | BPF_AND | BPF_K, CONGESTION_EXPERIENCED),
        jump(BPF_JMP | BPF_JEQ | BPF_K, CONGESTION_EXPERIENCED, 1),
        plain(BPF_RET | BPF_K, MARKED),
        // The length of the IPv4 header leads to the source port.
        plain(BPF_LDX | BPF_B | BPF_MSH, HEADER),
        plain(BPF_LD | BPF_H | BPF_IND, HEADER),
        plain(BPF_MISC | BPF_TAX, 0),
        plain(BPF_LD | BPF_W | BPF_ABS, SOURCE),
        plain(BPF_ALU | BPF_ADD | BPF_X, 0),
        plain(BPF_ALU | BPF_MUL | BPF_K, steering::FACTOR),
        plain(BPF_ALU | BPF_RSH | BPF_K, steering::SHIFT),
        plain(BPF_ALU | BPF_MOD | BPF_K, shares),
        jump(BPF_JMP | BPF_JEQ | BPF_K, 0, 1),
        plain(BPF_RET | BPF_K, 0),
        plain(BPF_ALU | BPF_ADD | BPF_K, MARKED),
        plain(BPF_RET | BPF_A, 0),
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
    // SAFETY: the value has the type and size that the option expects, and any memory that it points
    // to outlives the call.
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
