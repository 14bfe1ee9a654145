//! The parts that move packets between the network and the daemon: the UDP socket towards the IPv4
//! internet, the TUN interface towards the kernel's IPv6 routing, the kernel's routes and settings
//! that both rely on, and the XDP program that forwards for trusted peers without the daemon.
//!
//! Everything works in batches, since system calls dominate the cost of a packet.

pub mod ethtool;
mod loader;
mod napi;
pub mod native;
pub mod offload;
pub mod route;
pub mod sysfs;
pub mod tun;
pub mod udp;
pub mod verifier;
pub mod watch;
pub mod xdp;

/// The most packets that one call receives or sends.
pub const BATCH: usize = 64;
