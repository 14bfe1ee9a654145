//! The capture of frames at the XDP program: what the build of the program that captures is told, and the records
//! that it leaves.

use bytemuck::{Pod, Zeroable};

/// One-entry array with the [`Filter`].
pub const FILTER: &str = "FILTER";
/// Per-CPU one-entry array with the [`State`].
pub const STATES: &str = "STATES";
/// One-entry array with the moment from which the rate permits another frame, as `u64`.
pub const TURN: &str = "TURN";
/// The ring buffer with the records: a [`Head`] each, and octets of the frame.
pub const RECORDS: &str = "RECORDS";

/// Places in [`THOROUGH`](crate::maps::THOROUGH) of the programs that have one in this build alone. The first place is as
/// usual.
pub const TEREDO: u32 = 1;
/// As [`TEREDO`].
pub const RECORDER: u32 = 2;

/// Octets of the ring buffer. A power of two, and whole pages.
pub const SIZE: u32 = 2 << 20;
/// Most octets of a frame in a record.
pub const SNAPLEN_MAX: u32 = 4095;
/// Octets of a frame in which addresses are looked for.
pub const LOOK: u32 = 256;
/// Most verdicts.
pub const VERDICTS: usize = 128;

/// Places where packets are captured, each a bit.
pub mod point {
    /// As it came.
    pub const RECEIVED: u32 = 1;
    /// Given to the kernel, or to the next program there.
    pub const PASSED: u32 = 2;
    /// Dropped.
    pub const DROPPED: u32 = 4;
    /// Translated or answered, as it leaves.
    pub const FORWARDED: u32 = 8;
    /// Made by the daemon.
    pub const SENT: u32 = 16;
}

/// A set of addresses, one of which a packet must have.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Condition {
    /// [`Condition::ANY`], [`Condition::IPV6`] or [`Condition::IPV4`].
    pub kind: u32,
    /// The port that belongs to an IPv4 address; 0: any.
    pub port: u32,
    /// The address, in words of host byte order; of an IPv4 address the first.
    pub address: [u32; 4],
    /// The bits of the address that count.
    pub mask: [u32; 4],
}

/// What is captured.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Filter {
    /// Nanoseconds between two frames at the permitted rate.
    pub interval: u64,
    /// Nanoseconds by which frames may come before their time.
    pub tolerance: u64,
    /// The verdicts that are captured, each a bit.
    pub verdicts: [u32; VERDICTS / 32],
    /// The points at which is captured.
    pub points: u32,
    /// One frame of so many is looked at.
    pub sample: u32,
    /// Most octets of a frame, at most [`SNAPLEN_MAX`].
    pub snaplen: u32,
    /// Both must hold.
    pub conditions: [Condition; 2],
    /// The first 32 bits of Teredo addresses, host byte order.
    pub teredo: u32,
}

/// The begin of a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Head {
    /// The time on `CLOCK_MONOTONIC` when the frame came, in nanoseconds.
    pub time: u64,
    /// The number of the frame, the same at every point.
    pub number: u64,
    /// Index of the interface by which it came.
    pub interface: u32,
    /// Octets of the frame.
    pub length: u32,
    /// Octets of it in the record.
    pub captured: u32,
    /// The verdict.
    pub verdict: u16,
    /// The point.
    pub point: u8,
    /// The program's return value.
    pub action: u8,
}

/// A record while it is made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What is known of the frame.
    pub head: Head,
    /// Its first octets.
    pub octets: [u8; SNAPLEN_MAX as usize + 1],
}

/// What a CPU knows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// The number of the last frame that was looked at.
    pub number: u64,
    /// Frames that were not looked at, as the rate was reached.
    pub limited: u64,
    /// Records for which there was no room.
    pub lost: u64,
    /// Frames since the last that was looked at.
    pub skipped: u32,
    /// Whether the frame that the XDP program has now is of interest.
    pub is_wanted: u32,
    /// The record of the frame that the XDP program has now.
    pub record: Record,
}

const _: () = assert!(size_of::<Head>() == 32);
const _: () = assert!(crate::verdict::Verdict::ALL.len() <= VERDICTS);
// What the kernel permits for a value of a per-CPU map.
const _: () = assert!(size_of::<State>() < 32 << 10);

#[cfg(feature = "user")]
mod user {
    use super::{Filter, State};

    // SAFETY: `repr(C)` without padding (bytemuck::Pod proves it) and valid for any octets.
    unsafe impl aya::Pod for Filter {}
    // SAFETY: `repr(C)` without padding, of numbers.
    unsafe impl aya::Pod for State {}
}

impl Condition {
    /// Every packet.
    pub const ANY: u32 = 0;
    /// Packets from or to the IPv6 address.
    pub const IPV6: u32 = 1;
    /// Packets from or to the IPv4 endpoint, also inside of a Teredo address.
    pub const IPV4: u32 = 2;

    #[inline(always)]
    fn has_ipv6(&self, addresses: &[[u32; 4]; 2]) -> bool {
        let is_in = |address: &[u32; 4]| {
            let mut difference = 0;
            for ((part, own), mask) in address.iter().zip(&self.address).zip(&self.mask) {
                difference |= (part ^ own) & mask;
            }
            difference == 0
        };
        is_in(&addresses[0]) || is_in(&addresses[1])
    }

    #[inline(always)]
    fn has_ipv4(&self, address: u32, port: u16) -> bool {
        (address ^ self.address[0]) & self.mask[0] == 0
            && (self.port == 0 || self.port == port as u32)
    }

    #[inline(always)]
    fn holds(&self, subject: &Subject, teredo: u32) -> bool {
        match self.kind {
            Self::ANY => true,
            Self::IPV6 => subject.has_inner && self.has_ipv6(&subject.inner),
            _ => {
                let is_outer = subject.has_outer
                    && (self.has_ipv4(subject.outer[0], subject.ports[0])
                        || self.has_ipv4(subject.outer[1], subject.ports[1]));
                let embedded = |[prefix, _, port, address]: [u32; 4]| {
                    prefix == teredo && self.has_ipv4(!address, !(port as u16))
                };
                is_outer
                    || subject.has_inner
                        && (embedded(subject.inner[0]) || embedded(subject.inner[1]))
            }
        }
    }
}

impl Filter {
    /// Whether all packets have the wanted addresses.
    #[inline(always)]
    pub fn takes_all_addresses(&self) -> bool {
        self.conditions[0].kind | self.conditions[1].kind == Condition::ANY
    }

    /// Whether a packet has the wanted addresses. `octet` returns one of its first [`LOOK`] octets, and 0 behind
    /// its end; the packet begins with an Ethernet header if `is_frame`.
    #[inline(always)]
    pub fn takes_addresses(&self, is_frame: bool, octet: impl Fn(usize) -> u8 + Copy) -> bool {
        if self.takes_all_addresses() {
            return true;
        }
        let subject = Subject::of(is_frame, octet);
        self.conditions[0].holds(&subject, self.teredo)
            && self.conditions[1].holds(&subject, self.teredo)
    }

    /// Whether frames with a verdict are captured.
    #[inline(always)]
    pub fn takes_verdict(&self, verdict: u32) -> bool {
        let word = self.verdicts[verdict as usize / 32 % (VERDICTS / 32)];
        word & (1 << (verdict % 32)) != 0
    }
}

/// The addresses of a packet, in words of host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Subject {
    /// Source and destination of the IPv4 packet.
    outer: [u32; 2],
    /// Its ports, if it is a UDP datagram.
    ports: [u16; 2],
    /// Source and destination of the IPv6 packet, on its own or in a datagram.
    inner: [[u32; 4]; 2],
    has_outer: bool,
    has_inner: bool,
}

impl Subject {
    #[inline(always)]
    fn of(is_frame: bool, octet: impl Fn(usize) -> u8 + Copy) -> Self {
        const TAG: usize = 4;
        const AUTHENTICATION: u16 = 1;
        const ORIGIN: u16 = 0;
        const UDP: u8 = 17;
        let word = |at| u16::from_be_bytes([octet(at), octet(at + 1)]);
        let long =
            |at| u32::from_be_bytes([octet(at), octet(at + 1), octet(at + 2), octet(at + 3)]);
        let address = |at| [long(at), long(at + 4), long(at + 8), long(at + 12)];
        let mut subject = Self::default();
        let mut start = 0;
        if is_frame {
            start = 14;
            let is_tag = |kind| matches!(kind, 0x8100 | 0x88a8);
            if is_tag(word(12)) {
                start += TAG;
                if is_tag(word(16)) {
                    start += TAG;
                }
            }
        }
        if octet(start) >> 4 == 4 {
            subject.has_outer = true;
            subject.outer = [long(start + 12), long(start + 16)];
            if octet(start + 9) != UDP {
                return subject;
            }
            let datagram = start + (octet(start) & 15) as usize * 4;
            subject.ports = [word(datagram), word(datagram + 2)];
            start = datagram + 8;
            if word(start) == AUTHENTICATION {
                // The value may not be longer than the octets that are looked at.
                start += 13 + (octet(start + 2) & 63) as usize + (octet(start + 3) & 63) as usize;
            }
            if word(start) == ORIGIN {
                start += 8;
            }
        }
        if octet(start) >> 4 == 6 {
            subject.has_inner = true;
            subject.inner = [address(start + 8), address(start + 24)];
        }
        subject
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const TEREDO: u32 = 0x2001_0000;
    const CLIENT: [u32; 4] = [TEREDO, 0x0102_0304, 0x0000_ffff ^ 4096, !0x0a0b_0c0d];
    const HOST: [u32; 4] = [0x2000_0000, 0, 0, 0xb];

    fn ipv6(source: [u32; 4], destination: [u32; 4]) -> Vec<u8> {
        let mut packet = std::vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        for word in source.iter().chain(&destination) {
            packet.extend(word.to_be_bytes());
        }
        packet
    }

    fn udp(options: usize, elements: &[u8], inner: &[u8]) -> Vec<u8> {
        let mut packet = std::vec![0x45 + options as u8, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([10, 11, 12, 13, 5, 6, 7, 8]);
        packet.resize(20 + 4 * options, 1);
        packet.extend([0x10, 0, 13, 217, 0, 0, 0, 0]);
        packet.extend(elements);
        packet.extend(inner);
        packet
    }

    fn framed(tags: &[u8], kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = std::vec![2; 12];
        frame.extend(tags);
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn filter(kind: u32, port: u32, address: [u32; 4], mask: [u32; 4]) -> Filter {
        let condition = Condition {
            kind,
            port,
            address,
            mask,
        };
        Filter {
            conditions: [condition, Condition::default()],
            teredo: TEREDO,
            ..Filter::default()
        }
    }

    fn takes(filter: &Filter, is_frame: bool, packet: &[u8]) -> bool {
        filter.takes_addresses(is_frame, |at| packet.get(at).copied().unwrap_or(0))
    }

    #[test]
    fn addresses_are_found_behind_every_header() {
        let inner = ipv6(CLIENT, HOST);
        let authentication = [0, 1, 2, 3, 7, 7, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0];
        let origin = [0, 0, 1, 2, 3, 4, 5, 6];
        let both = [&authentication[..], &origin].concat();
        let exact = filter(Condition::IPV6, 0, CLIENT, [u32::MAX; 4]);
        let network = filter(Condition::IPV6, 0, HOST, [0xffff_0000, 0, 0, 0]);
        let other = filter(Condition::IPV6, 0, [9; 4], [u32::MAX; 4]);
        for elements in [&[][..], &authentication, &origin, &both] {
            for options in [0, 3, 10] {
                let packet = udp(options, elements, &inner);
                let one = [0x81, 0, 0, 5];
                let two = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6];
                let frames = [
                    framed(&[], 0x800, &packet),
                    framed(&one, 0x800, &packet),
                    framed(&two, 0x800, &packet),
                ];
                assert!(takes(&exact, false, &packet));
                for frame in frames {
                    assert!(takes(&exact, true, &frame));
                    assert!(takes(&network, true, &frame));
                    assert!(!takes(&other, true, &frame));
                }
            }
        }
        assert!(takes(&exact, true, &framed(&[], 0x86dd, &inner)));
        assert!(takes(&exact, false, &ipv6(HOST, CLIENT)));
    }

    #[test]
    fn endpoints_are_found_outside_and_in_teredo_addresses() {
        let at = |address: u32, mask: u32, port| {
            filter(Condition::IPV4, port, [address, 0, 0, 0], [mask, 0, 0, 0])
        };
        let exact = u32::MAX;
        let datagram = udp(0, &[], &ipv6(CLIENT, HOST));
        let native = ipv6(HOST, CLIENT);
        for packet in [&datagram, &native] {
            assert!(takes(&at(0x0a0b_0c0d, exact, 0), false, packet));
            assert!(takes(&at(0x0a0b_0c0d, exact, 4096), false, packet));
            assert!(takes(&at(0x0a0b_0000, 0xffff_0000, 0), false, packet));
            assert!(!takes(&at(0x0a0b_0c0d, exact, 4097), false, packet));
            assert!(!takes(&at(0x0a0b_0c0e, exact, 0), false, packet));
        }
        // The relay's own.
        assert!(takes(&at(0x0506_0708, exact, 3545), false, &datagram));
        assert!(!takes(&at(0x0506_0708, exact, 4096), false, &datagram));
    }

    #[test]
    fn both_conditions_have_to_hold() {
        let mut both = filter(Condition::IPV6, 0, CLIENT, [u32::MAX; 4]);
        both.conditions[1] = filter(Condition::IPV6, 0, HOST, [u32::MAX; 4]).conditions[0];
        assert!(takes(&both, false, &ipv6(HOST, CLIENT)));
        assert!(!takes(&both, false, &ipv6([1; 4], CLIENT)));
        assert!(!takes(&both, false, &ipv6(HOST, [1; 4])));
    }

    #[test]
    fn any_octets_are_looked_at() {
        let filter = filter(Condition::IPV4, 5, [1, 0, 0, 0], [u32::MAX; 4]);
        for octet in 0..=255 {
            for length in 0..64 {
                takes(&filter, true, &std::vec![octet; length]);
                takes(&filter, false, &std::vec![octet; length]);
            }
        }
    }

    #[test]
    fn every_verdict_has_a_bit() {
        let mut filter = Filter::default();
        filter.verdicts[2] = 1 << 5;
        for verdict in 0..VERDICTS as u32 {
            assert_eq!(filter.takes_verdict(verdict), verdict == 69);
        }
    }
}
