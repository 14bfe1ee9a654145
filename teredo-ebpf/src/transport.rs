//! The transport after the inner IPv6 header, as far as the outer checksum needs it.

use teredo_common::wire::{ICMPV6, TCP, UDP};

use crate::packet::Frame;

/// Whether the transport, which starts at `transport`, has a checksum over all of the `payload` octets after the IPv6
/// header, which is what the outer checksum in constant time builds on.
///
/// UDP may have none, and covers what its own length says, which options after the data exceed.
#[inline(always)]
pub fn covers_payload(transport: Frame, next_header: u8, payload: usize) -> bool {
    match next_header {
        TCP => payload >= 20,
        ICMPV6 => payload >= 8,
        UDP => match transport.first::<8>() {
            Some(udp) => udp.number::<4>() == payload && udp.read::<u16, 6>() != 0,
            None => false,
        },
        _ => false,
    }
}
