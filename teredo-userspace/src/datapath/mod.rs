//! What moves packets between the network and the daemon: the UDP socket towards the IPv4
//! internet, the TUN interface towards the kernel's IPv6 routing, and the routes and settings of
//! the kernel that both rely on; and the XDP program that spares trusted peers all of it.
//!
//! Everything works in batches, since the system call is what a packet costs most.

mod napi;
pub mod native;
pub mod route;
pub mod tun;
pub mod udp;
pub mod watch;
pub mod xdp;

/// Packets that one call receives or sends at most.
pub const BATCH: usize = 64;
