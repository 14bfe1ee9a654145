//! Short datagrams that a socket's filter puts into memory which the daemon shares with the kernel.

use crate::address::Endpoint;

/// Octets of the longest UDP payload that fits: solicitations, and bubbles with trailers.
pub const LONGEST: usize = 184;
/// The ring buffer's name.
pub const LETTERS: &str = "LETTERS";
/// Per-CPU one-entry array with the number of datagrams for which there was no room, as `u64`.
pub const LOST: &str = "LOST";
/// Octets of the ring buffer: 40,000 letters, a flood of a tenth of a second. A power of two, and whole pages.
pub const SIZE: u32 = 8 << 20;

/// A datagram.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Letter {
    /// Its outer source.
    pub source: Endpoint,
    /// Octets of the payload, host byte order.
    pub length: u16,
    /// The payload; the octets after it are arbitrary.
    pub payload: [u8; LONGEST],
}

const _: () = assert!(size_of::<Letter>() == 192);
