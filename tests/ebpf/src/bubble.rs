//! The answers of forged clients to bubbles of a relay.

use teredo_common::{
    checksum::Sum,
    wire::{ENCAPSULATION, ETHERNET_HEADER, IPV6_HEADER, NO_NEXT_HEADER, UDP},
};

use super::{FORGED_PORTS, not};

/// Octets of a frame with a bubble over IPv4.
pub const BUBBLE: usize = ETHERNET_HEADER + ENCAPSULATION + IPV6_HEADER;

// Offsets in octets.
const ETHERTYPE: usize = 12;
const VERSION: usize = 14;
const PROTOCOL: usize = 23;
const IPV4_CHECKSUM: usize = 24;
const IPV4_SOURCE: usize = 26;
const IPV4_DESTINATION: usize = 30;
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const UDP_CHECKSUM: usize = 40;
const INNER: usize = 42;
const NEXT_HEADER: usize = INNER + 6;
const INNER_SOURCE: usize = INNER + 8;
const INNER_DESTINATION: usize = INNER + 24;

/// Turns a frame with a bubble for a forged client, which came through its server or to its mapped
/// endpoint, into the client's answer. Returns whether it was one; otherwise the frame is as it was.
///
/// # Safety
///
/// `frame` is valid for reading and writing [`BUBBLE`] octets, on a machine on which addresses need no
/// alignment.
#[inline(always)]
pub unsafe fn answer(frame: *mut u8) -> bool {
    // SAFETY: every offset lies in the frame.
    unsafe {
        let is_bubble = read::<[u8; 2]>(frame, ETHERTYPE) == [8, 0]
            && read::<u8>(frame, VERSION) == 0x45
            && read::<u8>(frame, PROTOCOL) == UDP
            && read::<[u8; 3]>(frame, NEXT_HEADER - 2) == [0, 0, NO_NEXT_HEADER];
        let [_, _, port, high, low] = read::<[[u8; 2]; 8]>(frame, INNER_DESTINATION)
            .map(not)
            .last_chunk::<5>()
            .copied()
            .unwrap_or_default();
        if !is_bubble || !FORGED_PORTS.contains(&u16::from_be_bytes(port)) {
            return false;
        }
        // The relay's endpoint and address move to the other side, which changes no checksum; the client's
        // take the place of those that the bubble was sent to.
        let asked = read::<[[u8; 2]; 2]>(frame, IPV4_DESTINATION);
        let asked_port = read::<[u8; 2]>(frame, DESTINATION_PORT);
        let changed = |checksum: usize| {
            Sum::ZERO
                .add_2(not(read(frame, checksum)))
                .add_2(not(asked[0]))
                .add_2(not(asked[1]))
                .add_2(high)
                .add_2(low)
        };
        let ipv4 = changed(IPV4_CHECKSUM).checksum();
        let udp = changed(UDP_CHECKSUM).add_2(not(asked_port)).add_2(port);
        write(frame, IPV4_CHECKSUM, ipv4);
        write(frame, UDP_CHECKSUM, udp.udp_checksum());

        let stations: [[u8; 6]; 2] = read(frame, 0);
        write(frame, 0, [stations[1], stations[0]]);
        let relay: [u8; 4] = read(frame, IPV4_SOURCE);
        write(frame, IPV4_DESTINATION, relay);
        write(frame, IPV4_SOURCE, [high, low]);
        let relay_port: [u8; 2] = read(frame, SOURCE_PORT);
        write(frame, DESTINATION_PORT, relay_port);
        write(frame, SOURCE_PORT, port);
        let addresses: [[u8; 16]; 2] = read(frame, INNER_SOURCE);
        write(frame, INNER_SOURCE, [addresses[1], addresses[0]]);
        true
    }
}

/// # Safety
///
/// The value lies in the frame, and every pattern of bits is one.
#[inline(always)]
unsafe fn read<T: bytemuck::AnyBitPattern>(frame: *mut u8, at: usize) -> T {
    // SAFETY: as the caller has promised.
    unsafe { frame.add(at).cast::<T>().read_unaligned() }
}

/// # Safety
///
/// The value lies in the frame.
#[inline(always)]
unsafe fn write<T: bytemuck::NoUninit>(frame: *mut u8, at: usize, value: T) {
    // SAFETY: as the caller has promised.
    unsafe { frame.add(at).cast::<T>().write_unaligned(value) }
}
