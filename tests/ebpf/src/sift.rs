//! The far end of a relay under attack: what arrives there, by the addresses of the honest.

use teredo_common::wire::{ENCAPSULATION, ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6};

/// Octets of the inner packets of trusted clients that are counted.
pub const SIZE: usize = 72;
/// The network of the mapped addresses of trusted clients: 20.16.0.0/16.
pub const TRUSTED: u16 = 0x1410;
/// The network of the honest machines on the IPv4 internet: 20.16.0.0/14, and 20.0.0.0/16.
const HONEST: u16 = TRUSTED;
const HONEST_MASK: u16 = 0xfffc;
const GATEWAY: u16 = 0x1400;
/// The network of the honest machines on the IPv6 internet: 2001:db8::/32.
const NATIVE: u32 = 0x2001_0db8;

/// The fate of a frame at the far end.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A counted packet to a trusted client: ends here.
    ToTrusted = 0,
    /// A counted packet from a trusted client: ends here.
    FromTrusted = 1,
    /// For nobody honest: ends here.
    Other = 2,
    /// For the honest, or of the link.
    Pass = 3,
}

/// Number of fates.
pub const FATES: u32 = 4;

/// Returns the fate of a frame.
///
/// # Safety
///
/// `start` to `end` are the octets of a frame, on a machine on which addresses need no alignment.
#[inline(always)]
pub unsafe fn fate(start: usize, end: usize) -> Fate {
    /// Octets of the longest headers that are read: Ethernet, IPv6, type of ICMPv6.
    const HEADERS: usize = ETHERNET_HEADER + 41;
    if start + 34 > end {
        return Fate::Pass;
    }
    let length = end - start;
    // SAFETY: every offset is checked against the end before.
    let two = |at: usize| unsafe { u16::from_be(((start + at) as *const u16).read_unaligned()) };
    let four = |at: usize| u32::from(two(at)) << 16 | u32::from(two(at + 2));
    if two(12) == ETHERTYPE_IPV4 {
        let network = two(30);
        return match network {
            TRUSTED if length == ETHERNET_HEADER + ENCAPSULATION + SIZE => Fate::ToTrusted,
            GATEWAY => Fate::Pass,
            _ if network & HONEST_MASK == HONEST => Fate::Pass,
            _ => Fate::Other,
        };
    }
    if two(12) != ETHERTYPE_IPV6 || start + HEADERS > end {
        return Fate::Pass;
    }
    // SAFETY: as above.
    let (next_header, kind) = unsafe {
        (
            ((start + 20) as *const u8).read(),
            ((start + 54) as *const u8).read(),
        )
    };
    if next_header == ICMPV6 && (kind == 135 || kind == 136) {
        return Fate::Pass;
    }
    if four(38) != NATIVE {
        return Fate::Other;
    }
    let is_trusted = four(22) == 0x2001_0000 && two(34) == !TRUSTED;
    if is_trusted && length == ETHERNET_HEADER + SIZE {
        return Fate::FromTrusted;
    }
    Fate::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    fn judge(frame: &[u8]) -> Fate {
        let start = frame.as_ptr() as usize;
        // SAFETY: the octets are a frame's.
        unsafe { fate(start, start + frame.len()) }
    }

    fn ipv4(destination: [u8; 4], length: usize) -> Vec<u8> {
        let mut frame = std::vec![0; length];
        frame[12] = 8;
        frame[30..34].copy_from_slice(&destination);
        frame
    }

    fn ipv6(source: [u8; 16], destination: [u8; 4], length: usize) -> Vec<u8> {
        let mut frame = std::vec![0; length];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[22..38].copy_from_slice(&source);
        frame[38..42].copy_from_slice(&destination);
        frame
    }

    #[test]
    fn frames_are_told_apart_by_addresses_and_size() {
        assert_eq!(judge(&ipv4([20, 16, 9, 9], 114)), Fate::ToTrusted);
        assert_eq!(judge(&ipv4([20, 16, 9, 9], 82)), Fate::Pass);
        assert_eq!(judge(&ipv4([20, 19, 9, 9], 114)), Fate::Pass);
        assert_eq!(judge(&ipv4([20, 0, 0, 2], 114)), Fate::Pass);
        assert_eq!(judge(&ipv4([20, 20, 0, 1], 114)), Fate::Other);
        let native = [0x20, 1, 0xd, 0xb8];
        let trusted = [0x20, 1, 0, 0, 20, 17, 0, 1, 0, 0, 0, 0, !20, !16, !9, !9];
        assert_eq!(judge(&ipv6(trusted, native, 86)), Fate::FromTrusted);
        assert_eq!(judge(&ipv6(trusted, native, 87)), Fate::Pass);
        assert_eq!(judge(&ipv6([0; 16], native, 86)), Fate::Pass);
        assert_eq!(judge(&ipv6(trusted, [0x28, 0, 0, 1], 86)), Fate::Other);
        assert_eq!(judge(&[0; 60]), Fate::Pass);
    }
}
