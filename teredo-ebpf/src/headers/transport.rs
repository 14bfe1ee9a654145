//! The transport header directly after an IPv6 header, as far as the outer checksum needs it.

use teredo_common::wire::{ICMPV6, TCP, UDP};

use crate::frame::Frame;

/// Offset of the length of a UDP datagram.
const UDP_LENGTH: usize = 4;
/// Offset of the checksum of a UDP datagram.
const UDP_CHECKSUM: usize = 6;

/// Whether the transport, which starts at `transport`, has a checksum over all of the `payload` octets
/// after the IPv6 header. The outer checksum in constant time requires it.
///
/// A UDP datagram may have no checksum, and options after its data that its own length excludes.
#[inline(always)]
pub fn covers_payload(transport: Frame, next_header: u8, payload: usize) -> bool {
    match next_header {
        TCP => payload >= 20,
        ICMPV6 => payload >= 8,
        UDP => match transport.first::<8>() {
            Some(udp) => {
                udp.number::<UDP_LENGTH>() == payload && udp.read::<u16, UDP_CHECKSUM>() != 0
            }
            None => false,
        },
        _ => false,
    }
}
