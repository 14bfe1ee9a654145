//! The fast path against the slow path: the kernel and the userspace relay or server forward every frame
//! that the fast path forwards, to the octet, and drop those that it drops; it leaves frames that it
//! passes unchanged.
//!
//! The fast path is either the XDP program in the kernel, which the laboratory runs, or the same code on
//! this host ([`host::HostPath`]), which needs no rights and takes microseconds for a frame.

pub mod frames;
pub mod host;
pub mod kernel;
pub mod packet;
pub mod relay;
pub mod server;
pub mod site;
pub mod tags;

use std::net::Ipv6Addr;

use anyhow::Result;
use teredo_common::{peers::Peer, time::Instant, verdict::Verdict};

use crate::site::Port;

/// A fast path on the [`site`].
pub trait FastPath {
    /// Returns the time on the clock of stamps.
    fn now(&self) -> Instant;

    /// Inserts or replaces a peer.
    ///
    /// # Errors
    ///
    /// Fails when the map refuses.
    fn insert(&mut self, address: Ipv6Addr, peer: Peer) -> Result<()>;

    /// Removes a peer.
    ///
    /// # Errors
    ///
    /// Fails when the map refuses.
    fn remove(&mut self, address: Ipv6Addr) -> Result<()>;

    /// Sets the end of a draining server.
    ///
    /// # Errors
    ///
    /// Fails when the map refuses.
    fn set_draining(&mut self, end: Option<Instant>) -> Result<()>;

    /// Runs on a frame.
    ///
    /// # Errors
    ///
    /// Fails when the run fails, or does not count exactly one verdict that fits the action.
    fn run(&mut self, port: Port, frame: &[u8]) -> Result<Outcome>;
}

/// The treatment of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict, which was counted.
    pub verdict: Verdict,
    /// Whether the frame leaves by its ingress interface; `None` if it is not sent.
    pub same_interface: bool,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}
