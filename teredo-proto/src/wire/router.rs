//! Router solicitations and advertisements (RFC 4861 section 4, RFC 4380 section 5.3.2).

use teredo_common::{
    checksum::{self, Sum},
    scope::is_link_local,
    wire::{
        ALL_ROUTERS, ICMPV6, IPV6_HEADER, NEIGHBOR_DISCOVERY_HOP_LIMIT, ROUTER_ADVERTISEMENT,
        ROUTER_SOLICITATION,
    },
};

use super::ipv6::{self, Header};

/// Octets of a router solicitation without options.
const SOLICITATION: usize = 8;
/// Octets of a router advertisement with its prefix information.
const ADVERTISEMENT: usize = 48;
/// Octets of a router advertisement without options.
const FIXED_ADVERTISEMENT: usize = 16;
/// Octets of an MTU option.
const MTU_OPTION: usize = 8;
/// Option type: prefix information (RFC 4861 section 4.6.2).
const PREFIX: u8 = 3;
/// Option type: MTU (RFC 4861 section 4.6.4).
const MTU: u8 = 5;
/// Where the destination is in an IPv6 header.
const DESTINATION: usize = 24;
/// Where the checksum is in an ICMPv6 packet.
const CHECKSUM: usize = IPV6_HEADER + 2;

/// Returns `true` if an ICMPv6 packet is a router solicitation, valid or not.
pub fn is_solicitation(header: Header<'_>, packet: &[u8]) -> bool {
    header.next_header() == ICMPV6 && packet.get(IPV6_HEADER) == Some(&ROUTER_SOLICITATION)
}

/// Builds a router solicitation from `source` to all routers, without options.
pub fn solicitation(source: &[u8; 16]) -> [u8; IPV6_HEADER + SOLICITATION] {
    let length = SOLICITATION as u16;
    let hop_limit = NEIGHBOR_DISCOVERY_HOP_LIMIT;
    let header = ipv6::header(length, ICMPV6, hop_limit, source, &ALL_ROUTERS);
    let mut packet = [0; IPV6_HEADER + SOLICITATION];
    packet[..IPV6_HEADER].copy_from_slice(&header);
    packet[IPV6_HEADER] = ROUTER_SOLICITATION;
    let sum = checksum::ipv6_transport(source, &ALL_ROUTERS, ICMPV6, &packet[IPV6_HEADER..]);
    packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum);
    packet
}

/// Returns `true` if an ICMPv6 packet is a router advertisement, valid or not.
pub fn is_advertisement(header: Header<'_>, packet: &[u8]) -> bool {
    header.next_header() == ICMPV6 && packet.get(IPV6_HEADER) == Some(&ROUTER_ADVERTISEMENT)
}

/// The contents of a router advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The /64 that it advertises; `None` if there is none, if there are several prefixes, or if the
    /// prefix has another length.
    pub prefix: Option<[u8; 8]>,
    /// MTU in octets, if there is an option for it; the last option counts.
    pub mtu: Option<u32>,
}

/// Parses a router advertisement; returns `None` if it is not valid (RFC 4861 section 6.1.2).
/// `packet` is as long as its header says.
pub fn parse_advertisement(header: Header<'_>, packet: &[u8]) -> Option<Contents> {
    let ([ROUTER_ADVERTISEMENT, 0, ..], options) = packet
        .get(IPV6_HEADER..)?
        .split_first_chunk::<FIXED_ADVERTISEMENT>()?
    else {
        return None;
    };
    if !is_link_local(&header.source()) || !is_valid(header, packet, options) {
        return None;
    }
    let (mut contents, mut prefixes) = (Contents::default(), 0);
    for option in (Options { rest: options }) {
        match *option {
            [PREFIX, 4, length, _, ..] => {
                prefixes += 1;
                let prefix = option.get(16..).and_then(<[u8]>::first_chunk);
                contents.prefix = prefix.copied().filter(|_| length == 64 && prefixes == 1);
            }
            [MTU, 1, _, _, a, b, c, d] => {
                contents.mtu = Some(u32::from_be_bytes([a, b, c, d]));
            }
            _ => {}
        }
    }
    Some(contents)
}

/// Returns `true` if a router solicitation is valid (RFC 4861 section 6.1.1, S-21), whatever its
/// options are. `packet` is as long as its header says.
pub fn is_valid_solicitation(header: Header<'_>, packet: &[u8]) -> bool {
    let Some(([ROUTER_SOLICITATION, 0, ..], options)) = packet
        .get(IPV6_HEADER..)
        .and_then(<[u8]>::split_first_chunk::<SOLICITATION>)
    else {
        return false;
    };
    is_valid(header, packet, options)
}

/// What solicitations and advertisements have in common: hop limit, checksum, and whole options.
fn is_valid(header: Header<'_>, packet: &[u8], options: &[u8]) -> bool {
    header.hop_limit() == NEIGHBOR_DISCOVERY_HOP_LIMIT
        && header.next_header() == ICMPV6
        && are_whole(options)
        && checksum::ipv6_transport(
            &header.source(),
            &header.destination(),
            ICMPV6,
            &packet[IPV6_HEADER..],
        ) == [0, 0]
}

fn are_whole(options: &[u8]) -> bool {
    let mut options = Options { rest: options };
    options.by_ref().for_each(drop);
    options.rest.is_empty()
}

/// Options, whose lengths count in units of eight octets. Stops before the first that is not whole.
struct Options<'p> {
    rest: &'p [u8],
}

impl<'p> Iterator for Options<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        let length = 8 * usize::from(*self.rest.get(1)?);
        if length == 0 {
            return None;
        }
        self.rest.split_off(..length)
    }
}

/// A template for the router advertisements of one prefix, which differ only in the destination.
#[derive(Clone, Debug)]
pub struct Advertisement {
    octets: [u8; IPV6_HEADER + ADVERTISEMENT + MTU_OPTION],
    length: usize,
    /// Of everything that the checksum covers but the destination.
    sum: Sum,
}

impl Advertisement {
    /// Creates the template for advertisements from `source` of the /64 that begins with `prefix`
    /// (S-17), with an MTU option if there is an `mtu` (in octets).
    pub fn new(source: &[u8; 16], prefix: [u8; 8], mtu: Option<u16>) -> Self {
        const LIFETIME_AND_FLAGS: [u8; 4] = [0; 4];
        const REACHABLE_TIME: [u8; 4] = [0; 4];
        /// Milliseconds.
        const RETRANSMISSION_TIMER: [u8; 4] = 2000_u32.to_be_bytes();
        /// Type, length, length of the prefix, autonomous but not on-link, both lifetimes infinite.
        const PREFIX_INFORMATION: [u8; 16] = [
            3, 4, 64, 0x40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ];
        let payload = ADVERTISEMENT + mtu.map_or(0, |_| MTU_OPTION);
        let header = ipv6::header(
            payload as u16,
            ICMPV6,
            NEIGHBOR_DISCOVERY_HOP_LIMIT,
            source,
            &[0; 16],
        );
        let [high, low] = mtu.unwrap_or_default().to_be_bytes();
        let parts: [&[u8]; 9] = [
            &header,
            &[ROUTER_ADVERTISEMENT, 0, 0, 0],
            &LIFETIME_AND_FLAGS,
            &REACHABLE_TIME,
            &RETRANSMISSION_TIMER,
            &PREFIX_INFORMATION,
            &prefix,
            &[0; 8],
            &[5, 1, 0, 0, 0, 0, high, low],
        ];
        let mut octets = [0; IPV6_HEADER + ADVERTISEMENT + MTU_OPTION];
        for (to, from) in octets.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        let length = IPV6_HEADER + payload;
        let sum = checksum::ipv6_pseudo_header(source, &[0; 16], payload as u32, ICMPV6)
            .add_octets(&octets[IPV6_HEADER..length]);
        Self {
            octets,
            length,
            sum,
        }
    }

    /// Appends the advertisement to `destination`.
    pub fn write(&self, destination: &[u8; 16], output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&self.octets[..self.length]);
        let packet = &mut output[start..];
        packet[DESTINATION..IPV6_HEADER].copy_from_slice(destination);
        packet[CHECKSUM..CHECKSUM + 2].copy_from_slice(&self.sum.add_16(destination).checksum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{address, octets};
    use proptest::prelude::*;
    use teredo_common::address::server_link_local;

    fn advertisement(server: [u8; 4], mtu: Option<u16>, to: &[u8; 16]) -> Vec<u8> {
        let source = server_link_local(server.into(), 3544).octets();
        let [a, b, c, d] = server;
        let mut output = Vec::new();
        Advertisement::new(&source, [0x20, 1, 0, 0, a, b, c, d], mtu).write(to, &mut output);
        output
    }

    fn is_valid(packet: &[u8]) -> bool {
        is_valid_solicitation(Header::parse(packet).unwrap(), packet)
    }

    fn solicitation_of(source: &str, checksum: &str) -> Vec<u8> {
        let source: String = address(source)
            .iter()
            .map(|one| format!("{one:02x}"))
            .collect();
        octets(&format!(
            "6000000000083aff {source} ff020000000000000000000000000002 8500{checksum}00000000"
        ))
    }

    /// A solicitation with these options and a right checksum.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut packet = solicitation_of("fe80::ffff:ffff:ffff", "0000");
        packet.extend(options);
        packet[4..6].copy_from_slice(&(8 + options.len() as u16).to_be_bytes());
        let (source, destination) = {
            let header = Header::parse(&packet).unwrap();
            (header.source(), header.destination())
        };
        let sum = checksum::ipv6_transport(&source, &destination, ICMPV6, &packet[40..]);
        packet[42..44].copy_from_slice(&sum);
        packet
    }

    #[test]
    fn v12_the_captured_advertisement() {
        let captured = octets(
            "6000000000303aff fe800000000000008000f227bec861af fe800000000000008000fffffffffffd \
             86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
             2001000041379e500000000000000000",
        );
        let built = advertisement(
            [65, 55, 158, 80],
            None,
            &address("fe80::8000:ffff:ffff:fffd"),
        );
        assert_eq!(built, captured);
    }

    #[test]
    fn v16_with_the_mtu_option() {
        let expected = octets(
            "6000000000383aff fe800000000000008000f227fefdfcfb fe800000000000000000ffffffffffff \
             8600954c 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
             20010000010203040000000000000000 0501000000000500",
        );
        let built = advertisement([1, 2, 3, 4], Some(1280), &address("fe80::ffff:ffff:ffff"));
        assert_eq!(built, expected);
    }

    #[test]
    fn v11_and_v15_solicitations_are_valid() {
        let captured = octets(
            "6000000000183aff fe800000000000008000fffffffffffd ff020000000000000000000000000002 \
             8500a91d00000000 01020000000000008000f12ab9c82815",
        );
        assert!(is_valid(&captured));
        for (source, checksum) in [
            ("fe80::ffff:ffff:ffff", "7d37"),
            ("fe80::ffff:ffff:fffe", "7d38"),
            ("fe80::8000:ffff:ffff:ffff", "fd36"),
            ("fe80::8000:ffff:ffff:fffd", "fd38"),
            ("fe80::5445:5245:444f", "925d"),
            ("fe80::8000:5445:5245:444f", "125d"),
        ] {
            assert!(is_valid(&solicitation_of(source, checksum)), "{source}");
        }
    }

    #[test]
    fn v15_our_solicitation() {
        let captured = solicitation_of("fe80::ffff:ffff:ffff", "7d37");
        assert_eq!(solicitation(&address("fe80::ffff:ffff:ffff"))[..], captured);
    }

    #[test]
    fn s21_invalid_solicitations() {
        let valid = solicitation_of("fe80::ffff:ffff:ffff", "7d37");
        let changed = |at: usize, to: u8| {
            let mut packet = valid.clone();
            packet[at] = to;
            packet
        };
        assert!(!is_valid(&changed(7, 254)), "hop limit");
        // With a right checksum.
        let mut code = solicitation_of("fe80::ffff:ffff:ffff", "7d36");
        code[41] = 1;
        assert!(!is_valid(&code), "code");
        assert!(!is_valid(&changed(43, 0x38)), "checksum");
        assert!(!is_valid(&changed(40, 134)), "another type");
        let mut short = valid[..47].to_vec();
        short[5] = 7;
        assert!(!is_valid(&short), "length");
    }

    #[test]
    fn s21_options() {
        assert!(is_valid(&with_options(&[1, 1, 0, 0, 0, 0, 0, 0])));
        assert!(
            is_valid(&with_options(&[99, 1, 0, 0, 0, 0, 0, 0])),
            "unknown"
        );
        assert!(
            !is_valid(&with_options(&[1, 0, 0, 0, 0, 0, 0, 0])),
            "length 0"
        );
        assert!(
            !is_valid(&with_options(&[1, 2, 0, 0, 0, 0, 0, 0])),
            "too long"
        );
        assert!(!is_valid(&with_options(&[1])), "cut short");
        assert!(!is_valid(&with_options(&[1, 1, 0, 0, 0, 0, 0, 0, 1, 1])));
    }

    proptest! {
        #[test]
        fn s17_every_advertisement_has_a_right_checksum(
            server: [u8; 4], to: [u8; 16], mtu in prop::option::of(any::<u16>()), junk: Vec<u8>,
        ) {
            let packet = advertisement(server, mtu, &to);
            let header = Header::parse(&packet).unwrap();
            prop_assert_eq!(header.packet_length(), packet.len());
            let verified = checksum::ipv6_transport(&header.source(), &to, ICMPV6, &packet[40..]);
            prop_assert_eq!(verified, [0, 0]);
            // Whatever stands before it.
            let mut output = junk.clone();
            let source = header.source();
            let prefix = *packet[72..].first_chunk().unwrap();
            Advertisement::new(&source, prefix, mtu).write(&to, &mut output);
            prop_assert_eq!(output, [junk, packet].concat());
        }

        #[test]
        fn s21_any_octets_are_judged_without_panic(
            mut packet in prop::collection::vec(any::<u8>(), 40..120)
        ) {
            packet[0] = 0x60;
            packet[6] = ICMPV6;
            let length = packet.len() - 40;
            packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            is_valid(&packet);
        }
    }
}
