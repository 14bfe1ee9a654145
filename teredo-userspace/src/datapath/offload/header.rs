//! The header that tells how far the kernel has got with a packet: `struct virtio_net_hdr`.

use super::{IPV6_HEADER, TCP_HEADER};
use teredo_common::wire::UDP_HEADER;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_*`.
const NONE: u8 = 0;
const TCP_OVER_IPV6: u8 = 4;
const UDP_SEGMENTS: u8 = 5;
/// The first segment has the flag CWR; [`super::Split`] sees that itself.
const ECN: u8 = 0x80;

/// A transport whose packets can be segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP: the segments are parts of a stream.
    Tcp,
    /// UDP: the segments are datagrams.
    Udp,
}

impl Protocol {
    /// Returns the offset of the checksum in the transport's header, in octets.
    pub(super) const fn checksum(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Returns the number of the protocol in the IPv6 header.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => teredo_common::wire::TCP,
            Self::Udp => teredo_common::wire::UDP,
        }
    }

    /// Returns the least octets of the transport's header.
    pub(super) const fn least(self) -> usize {
        match self {
            Self::Tcp => TCP_HEADER,
            Self::Udp => UDP_HEADER,
        }
    }
}

/// The header in front of a packet. The default is that of a complete packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the transport starts, and where its checksum is from there, in octets, if the checksum has
    /// only the pseudo-header so far, and is not complemented.
    pub partial: Option<(u16, u16)>,
    /// The transport and the octets of data in each segment, if the packet has to be split.
    pub segments: Option<(Protocol, u16)>,
}

impl Header {
    /// Octets of the header.
    pub const LENGTH: usize = 10;

    /// Parses a header; `None` if it tells of something that was not asked for. All numbers are in host
    /// byte order.
    #[must_use]
    pub fn parse(octets: &[u8; Self::LENGTH]) -> Option<Self> {
        let [flags, kind, _, _, segment @ .., a, b, c, d] = *octets;
        let [start, offset] = [[a, b], [c, d]].map(u16::from_ne_bytes);
        let segment = u16::from_ne_bytes(segment);
        let segments = match kind & !ECN {
            NONE => None,
            TCP_OVER_IPV6 => Some((Protocol::Tcp, segment)),
            UDP_SEGMENTS => Some((Protocol::Udp, segment)),
            _ => return None,
        };
        Some(Self {
            partial: (flags & NEEDS_CHECKSUM != 0).then_some((start, offset)),
            segments,
        })
    }

    /// Builds a header in front of a packet whose headers are `headers` octets long.
    #[must_use]
    pub fn build(&self, headers: u16) -> [u8; Self::LENGTH] {
        let mut octets = [0; Self::LENGTH];
        if let Some((start, offset)) = self.partial {
            octets[0] = NEEDS_CHECKSUM;
            octets[6..8].copy_from_slice(&start.to_ne_bytes());
            octets[8..10].copy_from_slice(&offset.to_ne_bytes());
        }
        if let Some((protocol, segment)) = self.segments {
            octets[1] = match protocol {
                Protocol::Tcp => TCP_OVER_IPV6,
                Protocol::Udp => UDP_SEGMENTS,
            };
            octets[2..4].copy_from_slice(&headers.to_ne_bytes());
            octets[4..6].copy_from_slice(&segment.to_ne_bytes());
        }
        octets
    }

    /// Returns the header of a super-packet that has no extension headers.
    pub(super) fn of_segments(protocol: Protocol, segment: u16) -> Self {
        Self {
            partial: Some((IPV6_HEADER as u16, protocol.checksum() as u16)),
            segments: Some((protocol, segment)),
        }
    }
}
