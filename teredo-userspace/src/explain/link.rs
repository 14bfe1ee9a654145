//! Link types of capture files: the headers in front of IP packets.

use std::fmt;

const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The ethertypes of VLAN tags.
const TAGS: [[u8; 2]; 2] = [[0x81, 0], [0x88, 0xa8]];
/// The numbers of the address families in BSD's header: IPv4; IPv6 of Linux, NetBSD, FreeBSD, and macOS.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

/// The kind of the header in front of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// BSD's header of loopback interfaces: an address family, in the order of octets of the host or of the network.
    Loopback,
    /// Ethernet, perhaps with VLAN tags.
    Ethernet,
    /// No header.
    Raw,
    /// The header that Linux makes for captures on all interfaces.
    LinuxCooked,
    /// Its second version.
    LinuxCooked2,
}

/// The numbers of link types in capture files, as <https://www.tcpdump.org/linktypes.html> lists them.
const LINKS: [(u32, Link); 8] = [
    (0, Link::Loopback),
    (1, Link::Ethernet),
    (101, Link::Raw),
    (108, Link::Loopback),
    (113, Link::LinuxCooked),
    (228, Link::Raw),
    (229, Link::Raw),
    (276, Link::LinuxCooked2),
];

impl Link {
    /// Returns the link type with this number, if it is known.
    pub fn of(number: u32) -> Option<Self> {
        let mut links = LINKS.into_iter();
        let found = links.find(|(one, _)| *one == number);
        found.map(|(_, link)| link)
    }

    /// Returns the names of all link types, with their numbers.
    pub fn known() -> String {
        let names = LINKS.map(|(number, link)| format!("{link} ({number})"));
        names.join(", ")
    }

    /// Returns the IP packet in a frame, perhaps with octets behind it; `None` if there is another packet, or not even
    /// the whole header.
    pub fn packet(self, frame: &[u8]) -> Option<&[u8]> {
        let (ethertype, content) = match self {
            Self::Raw => return Some(frame),
            Self::Loopback => {
                let (family, packet) = frame.split_first_chunk()?;
                let family = [u32::from_be_bytes(*family), u32::from_le_bytes(*family)];
                let is_ip = family.iter().any(|family| FAMILIES.contains(family));
                return is_ip.then_some(packet);
            }
            Self::Ethernet => (frame.get(12..14)?, frame.get(14..)?),
            Self::LinuxCooked => (frame.get(14..16)?, frame.get(16..)?),
            Self::LinuxCooked2 => (frame.get(..2)?, frame.get(20..)?),
        };
        behind(ethertype, content)
    }
}

/// Returns the IP packet behind an ethertype and VLAN tags.
fn behind<'f>(mut ethertype: &'f [u8], mut content: &'f [u8]) -> Option<&'f [u8]> {
    while TAGS.iter().any(|tag| tag == ethertype) {
        let (tag, rest) = content.split_at_checked(4)?;
        (ethertype, content) = (&tag[2..], rest);
    }
    let is_ip = [ETHERTYPE_IPV4, ETHERTYPE_IPV6]
        .iter()
        .any(|ip| ip == ethertype);
    is_ip.then_some(content)
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Loopback => "loopback",
            Self::Ethernet => "Ethernet",
            Self::Raw => "raw IP",
            Self::LinuxCooked => "Linux cooked",
            Self::LinuxCooked2 => "Linux cooked 2",
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns frames of every known link type with this IPv4 packet, each with the number of the type.
    pub fn frames(packet: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let tag = [0x81, 0, 0, 7];
        let cooked = [&[0, 0, 0, 1, 0, 6][..], &[2; 8]].concat();
        // The length of the address, the type of the packet and of the device, the number of the interface.
        let cooked2 = [&[0; 2][..], &[0, 0, 0, 4, 0, 1, 0, 6], &[2; 8]].concat();
        let frames: [(u32, &[&[u8]]); 13] = [
            (0, &[&[2, 0, 0, 0]]),
            (0, &[&[0, 0, 0, 2]]),
            (1, &[&[2; 12], &ETHERTYPE_IPV4]),
            (1, &[&[2; 12], &tag, &ETHERTYPE_IPV4]),
            (1, &[&[2; 12], &[0x88, 0xa8, 0, 7], &tag, &ETHERTYPE_IPV4]),
            (101, &[]),
            (108, &[&[0, 0, 0, 2]]),
            (113, &[&cooked, &ETHERTYPE_IPV4]),
            (113, &[&cooked, &tag, &ETHERTYPE_IPV4]),
            (228, &[]),
            (229, &[]),
            (276, &[&ETHERTYPE_IPV4, &cooked2]),
            (276, &[&tag[..2], &cooked2, &tag[2..], &ETHERTYPE_IPV4]),
        ];
        let frames = frames.map(|(number, header)| (number, [&header.concat(), packet].concat()));
        frames.to_vec()
    }

    #[test]
    fn packets_are_behind_the_headers_of_every_link_type() {
        let packet = [0x45; 40];
        let frames = frames(&packet);
        for (number, frame) in &frames {
            let link = Link::of(*number).unwrap();
            assert_eq!(link.packet(frame), Some(&packet[..]), "{number}");
            for end in 0..frame.len() {
                let cut = link.packet(&frame[..end]);
                assert!(cut.is_none_or(|cut| cut.len() < packet.len()), "{number}");
            }
        }
        for (number, _) in LINKS {
            assert!(frames.iter().any(|(one, _)| *one == number), "{number}");
        }
    }

    #[test]
    fn other_packets_and_links_are_none() {
        let arp = [&[2; 12][..], &[8, 6], &[0x45; 40]].concat();
        assert_eq!(Link::Ethernet.packet(&arp), None);
        assert_eq!(Link::Loopback.packet(&[7, 0, 0, 0, 0x45]), None);
        assert_eq!(Link::of(127), None);
    }
}
