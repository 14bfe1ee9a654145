//! Floods: datagrams over IPv4 to one endpoint, from one forged source after another.

use bytemuck::{Pod, Zeroable};
use teredo_common::{checksum::Sum, wire::UDP};

use super::{Words, client, not, stride, word};

/// Octets of every frame: Ethernet, IPv4, UDP, and a router solicitation with a nonce.
pub const FRAME: usize = 103;
/// Number of kinds of frames that alternate.
pub const KINDS: usize = 4;

const WORDS: usize = FRAME.div_ceil(8);
/// Whole words of a frame; a word of 4, one of 2 and an octet follow.
const WHOLE: usize = FRAME / 8;

// Offsets in octets.
const IPV4_CHECKSUM: usize = 24;
const SOURCE: usize = 26;
const SOURCE_PORT: usize = 34;
const UDP_CHECKSUM: usize = 40;

/// One kind of frame: the frame of source 0, and the part of the checksums that all have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
struct Kind {
    frame: [u64; WORDS],
    ipv4: [u8; 2],
    udp: [u8; 2],
    reserved: [u8; 4],
}

/// A generator's parameters. With a spacing of 1, the sources are the clients of [`client`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flood {
    /// Index of the egress interface.
    pub interface: u32,
    /// Least nanoseconds from one frame to the next; 0 is as fast as the generator can.
    pub interval: u32,
    /// Number of sources.
    pub sources: u32,
    /// Step from one source to the next, modulo `sources`.
    stride: u32,
    /// Distance of the addresses of two sources with subsequent numbers.
    spacing: u32,
    reserved: u32,
    kinds: [Kind; KINDS],
}

/// The progress of a generator.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Progress {
    /// Number of runs of the program, also of those that found no frame to be due.
    pub runs: u64,
    /// Number of frames sent by a flood, a spray, or a generator with a pace.
    pub sent: u64,
    /// Time at which the next frame is due, in nanoseconds of `CLOCK_MONOTONIC`.
    pub due: u64,
    /// The source of the next frame.
    pub source: u32,
    /// The kind of the next frame.
    pub kind: u32,
}

impl Progress {
    /// Longest delay that a generator makes up for, in nanoseconds.
    pub const CATCH_UP: u64 = 1_000_000;
}

impl Flood {
    /// Makes a flood of these frames, whose sources have addresses at this distance, and which are from source 0 and have right checksums.
    pub fn new(
        interface: u32,
        interval: u32,
        sources: u32,
        spacing: u32,
        frames: [&[u8; FRAME]; KINDS],
    ) -> Option<Self> {
        let mut kinds = [Kind::zeroed(); KINDS];
        for (kind, frame) in kinds.iter_mut().zip(frames) {
            *kind = Kind::of(frame)?;
        }
        Some(Self {
            interface,
            interval,
            sources,
            stride: stride(sources),
            spacing,
            reserved: 0,
            kinds,
        })
    }

    /// Turns a frame, whatever a server or the kernel has left of it, into the next one.
    ///
    /// # Safety
    ///
    /// `frame` is valid for writing [`FRAME`] octets, on a machine on which addresses need no
    /// alignment.
    #[inline(always)]
    pub unsafe fn write(&self, progress: &mut Progress, frame: *mut u8) {
        // The mask shows the verifier that there is such a kind.
        let kind = &self.kinds[progress.kind as usize & (KINDS - 1)];
        // SAFETY: as the caller has promised.
        unsafe { kind.write(progress.source * self.spacing, frame) };
        progress.kind = progress.kind.wrapping_add(1);
        let next = progress.source + self.stride;
        progress.source = if next >= self.sources {
            next - self.sources
        } else {
            next
        };
        progress.sent += 1;
    }
}

impl Kind {
    fn of(octets: &[u8; FRAME]) -> Option<Self> {
        let mut kind = Self::zeroed();
        bytemuck::bytes_of_mut(&mut kind.frame)[..FRAME].copy_from_slice(octets);
        let is_udp = octets[12..15] == [8, 0, 0x45] && octets[14 + 9] == UDP;
        let first = client(0).mapped;
        let is_first = octets[SOURCE..SOURCE + 4] == first.address
            && octets[SOURCE_PORT..SOURCE_PORT + 2] == first.port;
        if !is_udp || !is_first {
            return None;
        }
        // A checksum is the complement of the sum; the rest without the words of source 0 is common
        // to all.
        let words = Words::of(0);
        let rest = |checksum: usize, part: Sum| {
            Sum::ZERO
                .add_2(not([octets[checksum], octets[checksum + 1]]))
                .add_2(not(part.fold()))
                .fold()
        };
        kind.ipv4 = rest(IPV4_CHECKSUM, words.ipv4(Sum::ZERO));
        kind.udp = rest(UDP_CHECKSUM, words.outer(Sum::ZERO));
        Some(kind)
    }

    /// # Safety
    ///
    /// The same as for [`Flood::write`].
    #[inline(always)]
    unsafe fn write(&self, source: u32, frame: *mut u8) {
        let words = Words::of(source);
        let last = self.frame[WHOLE].to_ne_bytes();
        // SAFETY: every offset lies in the frame.
        unsafe {
            for at in 0..WHOLE {
                frame.cast::<u64>().add(at).write_unaligned(self.frame[at]);
            }
            let rest = frame.add(8 * WHOLE);
            let four = u32::from_ne_bytes([last[0], last[1], last[2], last[3]]);
            rest.cast::<u32>().write_unaligned(four);
            let two = u16::from_ne_bytes([last[4], last[5]]);
            rest.add(4).cast::<u16>().write_unaligned(two);
            rest.add(6).write(last[6]);
            let put = |at: usize, octets: [u8; 2]| {
                frame.add(at).cast::<u16>().write_unaligned(word(octets));
            };
            let sum = |common: [u8; 2]| Sum::ZERO.add_2(common);
            put(IPV4_CHECKSUM, words.ipv4(sum(self.ipv4)).checksum());
            put(SOURCE, words.address[0]);
            put(SOURCE + 2, words.address[1]);
            put(SOURCE_PORT, words.port);
            put(UDP_CHECKSUM, words.outer(sum(self.udp)).udp_checksum());
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use teredo_common::{address::Endpoint, checksum, wire};

    extern crate std;
    use std::vec::Vec;

    const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(20, 0, 0, 1), 3544);

    /// The plain frame, field by field.
    fn frame(source: u32, fill: u8) -> [u8; FRAME] {
        let mapped = client(source).mapped;
        let payload = [fill; FRAME - 42];
        let total = (FRAME - wire::ETHERNET_HEADER) as u16;
        let mut frame = std::vec![2; 12];
        frame.extend(wire::ETHERTYPE_IPV4.to_be_bytes());
        let mut ipv4 = std::vec![0x45, 0];
        ipv4.extend(total.to_be_bytes());
        ipv4.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
        ipv4.extend(mapped.address);
        ipv4.extend(SERVER.address);
        let header = Sum::ZERO.add_octets(&ipv4).checksum();
        ipv4[10..12].copy_from_slice(&header);
        frame.extend(ipv4);
        frame.extend(mapped.port);
        frame.extend(SERVER.port);
        frame.extend((total - 20).to_be_bytes());
        frame.extend(checksum::ipv4_udp(mapped, SERVER, &payload));
        frame.extend(payload);
        frame.try_into().unwrap()
    }

    #[test]
    fn every_source_sends_intact_frames() {
        let first: Vec<_> = (0..KINDS as u8).map(|fill| frame(0, fill)).collect();
        let flood =
            Flood::new(7, 0, 9999, 1, [&first[0], &first[1], &first[2], &first[3]]).unwrap();
        let mut seen = std::vec![0; 9999];
        let mut progress = Progress::default();
        for turn in 0..KINDS * 9999 {
            let source = progress.source;
            let mut used = [0xee; FRAME];
            // SAFETY: the array has the length.
            unsafe { flood.write(&mut progress, used.as_mut_ptr()) };
            assert_eq!(used, frame(source, (turn % KINDS) as u8), "{source}");
            seen[source as usize] += 1;
        }
        assert!(seen.iter().all(|&times| times == KINDS));
        assert_eq!(progress.sent, 4 * 9999);
    }

    #[test]
    fn a_frame_of_another_source_is_refused() {
        let (first, other) = (frame(0, 0), frame(1, 0));
        assert_eq!(
            Flood::new(7, 0, 10, 1, [&first, &first, &first, &other]),
            None
        );
    }
}
