//! The chain of extension headers between an IPv6 header and the transport (RFC 8200 section 4, RFC 7045).

use teredo_common::wire::{
    AUTHENTICATION_HEADER, DESTINATION_OPTIONS, FRAGMENT, HOST_IDENTITY, MOBILITY, ROUTING, SHIM6,
    is_transport,
};

use crate::frame::Frame;

/// Most headers of a chain that is followed to its end. Longer chains are rare, and take the verifier long.
const MOST: usize = 3;
/// The routing header of Mobile IPv6 (RFC 6275), the one that may cross the tunnel.
const MOBILE_IPV6: u8 = 2;
/// The offset in a fragment header, in its units, but for its flags.
const OFFSET: u16 = 0xfff8_u16.to_be();

/// A transport, or the data of a later fragment.
#[derive(Clone, Copy)]
pub struct Transport {
    /// The frame from it on.
    pub start: Frame,
    /// Its protocol; [`FRAGMENT`] for the data of a later fragment.
    pub protocol: u8,
    /// Its octets in the packet.
    pub length: usize,
}

impl Transport {
    /// Follows a chain of `length` octets that begins with a header of this number. Returns `None` if it
    /// does not end with a transport in this packet that is certainly one, leads elsewhere by a routing
    /// header (requirement L-11), or has headers that the kernel has to look at, as those for every hop.
    #[inline(always)]
    pub fn behind(start: Frame, next_header: u8, length: usize) -> Option<Self> {
        let mut link = Self {
            start,
            protocol: next_header,
            length,
        };
        let mut is_first_fragment = false;
        for _ in 0..MOST {
            if is_transport(link.protocol) {
                return Some(link);
            }
            if link.length < 8 {
                return None;
            }
            let header = link.start.first::<8>()?;
            let number = usize::from(header.read::<u8, 1>());
            let octets = match link.protocol {
                // In a first fragment, it would hide the rest of the chain.
                FRAGMENT if header.read::<u16, 2>() & OFFSET != 0 => {
                    return (!is_first_fragment).then_some(link);
                }
                FRAGMENT => {
                    is_first_fragment = true;
                    8
                }
                AUTHENTICATION_HEADER => 8 + 4 * number,
                ROUTING if header.read::<u8, 2>() != MOBILE_IPV6 => return None,
                ROUTING | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6 => 8 + 8 * number,
                _ => return None,
            };
            if octets > link.length {
                return None;
            }
            link = Self {
                start: link.start.skip_octets(octets),
                protocol: header.read::<u8, 0>(),
                length: link.length - octets,
            };
        }
        is_transport(link.protocol).then_some(link)
    }
}
