//! Sprays: floods of frames from sources anywhere in a network, to destinations all over.

use bytemuck::{Pod, Zeroable};
use teredo_common::checksum::Sum;

use super::{flood::Progress, not, word};

/// Octets of every frame, of which the last ones may be padding.
pub const FRAME: usize = 128;
/// Most templates that alternate; a power of two.
pub const TEMPLATES: usize = 8;

const WORDS: usize = FRAME / 8;

// Offsets in octets.
const IDENTIFICATION: usize = 18;
const IPV4_CHECKSUM: usize = 24;
const IPV4_SOURCE: usize = 26;
const UDP_PORT: usize = 34;
const BUBBLE_PORT: usize = 60;
const BUBBLE_CLIENT: usize = 62;
const BUBBLE_DESTINATION: usize = 74;
const IPV6_SOURCE: usize = 22;
const SERVER: usize = 42;
const PORT: usize = 48;
const CLIENT: usize = 50;

/// The parts of a template's frames that vary. Masks select bits of the template in network byte
/// order; the other bits stay.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A datagram over IPv4: its source address and port. Its UDP checksum is zero.
    Datagram = 0,
    /// A fragment over IPv4: its source address and identification.
    Fragment = 1,
    /// A bubble over IPv4: its source address and port, which its Teredo address repeats, and the
    /// interface identifier of its destination.
    Bubble = 2,
    /// An IPv6 packet: the upper half of its source, and server, port and client of the Teredo
    /// address that it goes to.
    Native = 3,
}

/// Frames of one kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Template {
    frame: [u64; WORDS],
    /// Varying bits of the source, in memory order; of IPv4, in its lower half.
    source: u64,
    /// Index of the egress interface.
    interface: u32,
    /// Varying bits of the server of a [`Kind::Native`], in memory order.
    server: u32,
    kind: u32,
    /// Sum of the IPv4 header without source and identification.
    ipv4: [u8; 2],
    reserved: [u8; 2],
}

/// Varying bits of the client that a [`Kind::Native`] goes to.
const CLIENTS: u32 = u32::from_ne_bytes([0x3f, 0xff, 0xff, 0xff]);

impl Template {
    /// Makes the template of this frame, which is from the first of `source` addresses. `source`
    /// and `server` are masks in network byte order.
    pub fn new(kind: Kind, interface: u32, octets: &[u8], source: [u8; 8], server: u32) -> Self {
        let mut template = Self::zeroed();
        let length = octets.len().min(FRAME);
        bytemuck::bytes_of_mut(&mut template.frame)[..length].copy_from_slice(&octets[..length]);
        template.kind = kind as u32;
        template.interface = interface;
        template.source = u64::from_ne_bytes(source);
        template.server = u32::from_ne_bytes(server.to_be_bytes());
        let frame: &[u8] = bytemuck::bytes_of(&template.frame);
        let mut header = [0; 20];
        header.copy_from_slice(&frame[14..34]);
        // Without identification, checksum and source.
        for at in [4, 5, 10, 11, 12, 13, 14, 15] {
            header[at] = 0;
        }
        template.ipv4 = Sum::ZERO.add_octets(&header).fold();
        template
    }

    /// # Safety
    ///
    /// The same as for [`Spray::write`].
    #[inline(always)]
    unsafe fn write(&self, frame: *mut u8, one: u64, other: u64) {
        let words = &self.frame;
        // SAFETY: every offset lies in the frame.
        unsafe {
            for (at, &value) in words.iter().enumerate() {
                frame.cast::<u64>().add(at).write_unaligned(value);
            }
            if self.kind == Kind::Native as u32 {
                vary_8(frame.add(IPV6_SOURCE), self.source, one);
                vary_4(
                    frame.add(SERVER),
                    self.server,
                    (one >> 16) as u32 ^ other as u32,
                );
                frame.add(PORT).cast::<u16>().write_unaligned(other as u16);
                vary_4(frame.add(CLIENT), CLIENTS, (other >> 32) as u32);
                return;
            }
            vary_4(frame.add(IPV4_SOURCE), self.source as u32, one as u32);
            let source = frame.add(IPV4_SOURCE).cast::<[u8; 4]>().read_unaligned();
            let mut sum = Sum::ZERO
                .add_2(self.ipv4)
                .add_2([source[0], source[1]])
                .add_2([source[2], source[3]]);
            let port = (other >> 48) as u16 | u16::from_ne_bytes([4, 0]);
            if self.kind == Kind::Fragment as u32 {
                frame
                    .add(IDENTIFICATION)
                    .cast::<u16>()
                    .write_unaligned(port);
                sum = sum.add_2(port.to_ne_bytes());
            } else {
                sum = sum.add_2([
                    frame.add(IDENTIFICATION).read(),
                    frame.add(IDENTIFICATION + 1).read(),
                ]);
                frame.add(UDP_PORT).cast::<u16>().write_unaligned(port);
            }
            let checksum = word(sum.checksum());
            frame
                .add(IPV4_CHECKSUM)
                .cast::<u16>()
                .write_unaligned(checksum);
            if self.kind == Kind::Bubble as u32 {
                let [a, b] = not(port.to_ne_bytes());
                frame
                    .add(BUBBLE_PORT)
                    .cast::<[u8; 2]>()
                    .write_unaligned([a, b]);
                let client = !u32::from_ne_bytes(source);
                frame
                    .add(BUBBLE_CLIENT)
                    .cast::<u32>()
                    .write_unaligned(client);
                frame
                    .add(BUBBLE_DESTINATION)
                    .cast::<u64>()
                    .write_unaligned(other);
            }
        }
    }
}

/// # Safety
///
/// `at` is valid for four octets.
#[inline(always)]
unsafe fn vary_4(at: *mut u8, mask: u32, random: u32) {
    // SAFETY: as the caller has promised.
    unsafe {
        let fixed = at.cast::<u32>().read_unaligned() & !mask;
        at.cast::<u32>().write_unaligned(fixed | (random & mask));
    }
}

/// # Safety
///
/// `at` is valid for eight octets.
#[inline(always)]
unsafe fn vary_8(at: *mut u8, mask: u64, random: u64) {
    // SAFETY: as the caller has promised.
    unsafe {
        let fixed = at.cast::<u64>().read_unaligned() & !mask;
        at.cast::<u64>().write_unaligned(fixed | (random & mask));
    }
}

/// A generator's parameters: templates that alternate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Spray {
    /// Where the sequence of random numbers starts.
    pub seed: u64,
    /// Least nanoseconds from one frame to the next; 0 is as fast as the generator can.
    pub interval: u32,
    /// Number of templates in use.
    count: u32,
    templates: [Template; TEMPLATES],
}

impl Spray {
    /// Longest delay that a generator makes up for, in nanoseconds: on a busy machine, it may not
    /// run for some time slices of others.
    pub const CATCH_UP: u64 = 50_000_000;

    /// Makes a spray of at least one and at most [`TEMPLATES`] templates.
    pub fn new(seed: u64, interval: u32, templates: &[Template]) -> Option<Self> {
        if templates.is_empty() || templates.len() > TEMPLATES {
            return None;
        }
        let mut spray = Self::zeroed();
        spray.seed = seed;
        spray.interval = interval;
        spray.count = templates.len() as u32;
        spray.templates[..templates.len()].copy_from_slice(templates);
        Some(spray)
    }

    /// Turns a frame into the next one, and returns the interface that it leaves through.
    ///
    /// # Safety
    ///
    /// `frame` is valid for writing [`FRAME`] octets, on a machine on which addresses need no
    /// alignment.
    #[inline(always)]
    pub unsafe fn write(&self, progress: &mut Progress, frame: *mut u8) -> u32 {
        // The mask shows the verifier that there is such a template.
        let template = &self.templates[progress.kind as usize & (TEMPLATES - 1)];
        let one = mix(self.seed ^ progress.sent);
        let other = mix(one ^ 0x5851_f42d_4c95_7f2d);
        // SAFETY: as the caller has promised.
        unsafe { template.write(frame, one, other) };
        progress.sent += 1;
        progress.kind += 1;
        if progress.kind >= self.count {
            progress.kind = 0;
        }
        template.interface
    }
}

/// Mixes the bits of a number so that those of consecutive numbers have nothing in common.
#[inline(always)]
const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::{collections::HashSet, vec::Vec};

    const SEED: u64 = 7;

    fn frames(kind: Kind, octets: &[u8], source: [u8; 8], server: u32) -> Vec<[u8; FRAME]> {
        let template = Template::new(kind, 3, octets, source, server);
        let spray = Spray::new(SEED, 0, &[template]).unwrap();
        let mut progress = Progress::default();
        let next = |_| {
            let mut frame = [0xee; FRAME];
            // SAFETY: the array has the length.
            assert_eq!(unsafe { spray.write(&mut progress, frame.as_mut_ptr()) }, 3);
            frame
        };
        (0..1000).map(next).collect()
    }

    fn ipv4() -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[16..18].copy_from_slice(&82_u16.to_be_bytes());
        frame[22..24].copy_from_slice(&[64, 17]);
        frame[IPV4_SOURCE..UDP_PORT].copy_from_slice(&[64, 1, 2, 3, 20, 0, 0, 1]);
        frame[50..58].copy_from_slice(&[0x20, 1, 0, 0, 9, 9, 9, 9]);
        frame[66] = 0xfe;
        frame
    }

    #[test]
    fn sources_are_in_their_network_and_headers_intact() {
        let mask = [0, 0, 0xff, 0xff, 0, 0, 0, 0];
        for kind in [Kind::Datagram, Kind::Fragment, Kind::Bubble] {
            let mut sources = HashSet::new();
            for frame in frames(kind, &ipv4(), mask, 0) {
                assert_eq!(frame[IPV4_SOURCE..IPV4_SOURCE + 2], [64, 1]);
                let sum = Sum::ZERO.add_octets(&frame[14..34]);
                assert!(sum.is_valid(), "{kind:?}");
                sources.insert(frame[IPV4_SOURCE..UDP_PORT].to_vec());
            }
            assert!(sources.len() > 950, "{kind:?}: {}", sources.len());
        }
    }

    #[test]
    fn bubbles_come_from_the_endpoint_in_their_address() {
        let mask = [0x3f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let mut cookies = HashSet::new();
        for frame in frames(Kind::Bubble, &ipv4(), mask, 0) {
            let source = frame[IPV4_SOURCE..IPV4_SOURCE + 4].iter();
            assert!(
                frame[BUBBLE_CLIENT..66]
                    .iter()
                    .eq(source.map(|octet| !octet).collect::<Vec<_>>().iter())
            );
            let port = &frame[UDP_PORT..UDP_PORT + 2];
            assert_eq!(frame[BUBBLE_PORT..BUBBLE_CLIENT], [!port[0], !port[1]]);
            cookies.insert(frame[BUBBLE_DESTINATION..82].to_vec());
        }
        assert!(cookies.len() > 950);
    }

    #[test]
    fn native_packets_go_everywhere() {
        let mut packet = [0; FRAME];
        packet[IPV6_SOURCE..IPV6_SOURCE + 4].copy_from_slice(&[0x28, 0, 0, 1]);
        packet[38..42].copy_from_slice(&[0x20, 1, 0, 0]);
        packet[SERVER] = 20;
        let mask = [0, 0, 0, 0, 0xff, 0xff, 0, 0];
        let frames = frames(Kind::Native, &packet, mask, 0xffff);
        let destinations: HashSet<_> = frames.iter().map(|frame| &frame[38..54]).collect();
        assert_eq!(destinations.len(), frames.len());
        for frame in &frames {
            assert_eq!(frame[22..26], [0x28, 0, 0, 1]);
            assert_eq!(frame[28..38], [0; 10]);
            assert_eq!(frame[38..44], [0x20, 1, 0, 0, 20, 0]);
        }
    }

    #[test]
    fn templates_alternate() {
        let template = |interface| Template::new(Kind::Datagram, interface, &ipv4(), [0; 8], 0);
        let templates = [template(1), template(2), template(3)];
        let spray = Spray::new(0, 0, &templates).unwrap();
        let mut progress = Progress::default();
        let mut frame = [0; FRAME];
        // SAFETY: the array has the length.
        let interfaces =
            [(); 7].map(|()| unsafe { spray.write(&mut progress, frame.as_mut_ptr()) });
        assert_eq!(interfaces, [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(Spray::new(0, 0, &[]), None);
    }
}
