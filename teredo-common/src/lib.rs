//! Everything that the XDP program and the daemon share: the Teredo address, the address scopes, the wire
//! constants, the checksum arithmetic, the token buckets, and the layout of every BPF map.
//!
//! The crate allocates nothing, does no input or output, and is compiled for BPF as well as for
//! the host.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod budget;
pub mod capture;
pub mod checksum;
pub mod cookie;
pub mod generations;
pub mod limiter;
pub mod mailbox;
pub mod maps;
pub mod peers;
pub mod prefixes;
pub mod respond;
pub mod scope;
pub mod steering;
pub mod time;
pub mod traffic;
pub mod verdict;
pub mod vlan;
pub mod wire;
