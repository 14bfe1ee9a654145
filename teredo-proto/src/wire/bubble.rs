//! Bubbles: IPv6 packets without content that open NATs (RFC 4380 section 2.8).

use teredo_common::wire::{IPV6_HEADER, NO_NEXT_HEADER};

use super::ipv6;

/// Hop limit of bubbles to one address; receivers accept any (W-13).
pub const HOP_LIMIT: u8 = 255;

/// Builds the bubble from `source` to `destination`; [`ipv6::Header::is_bubble`] recognises it.
pub fn build(source: &[u8; 16], destination: &[u8; 16]) -> [u8; IPV6_HEADER] {
    ipv6::header(0, NO_NEXT_HEADER, HOP_LIMIT, source, destination)
}

/// All nodes on the link, ff02::1: the destination of discovery bubbles.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Hop limit of discovery bubbles.
const DISCOVERY_HOP_LIMIT: u8 = 1;

/// Builds the discovery bubble of `source` (RFC 4380 section 5.2.8).
pub fn build_discovery(source: &[u8; 16]) -> [u8; IPV6_HEADER] {
    ipv6::header(0, NO_NEXT_HEADER, DISCOVERY_HOP_LIMIT, source, &ALL_NODES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{address, octets};

    #[test]
    fn v19_bubble() {
        let bubble = build(
            &address("2001:0:102:304:0:efff:f6ff:fffe"),
            &address("2001:0:90a:b0c:0:fbff:f7ff:fffe"),
        );
        let expected = octets(
            "6000000000003bff 20010000010203040000effff6fffffe 20010000090a0b0c0000fbfff7fffffe",
        );
        assert_eq!(bubble[..], expected);
        assert!(ipv6::Header::parse(&bubble).unwrap().is_bubble());
    }

    #[test]
    fn v19_discovery_bubble() {
        let bubble = build_discovery(&address("2001:0:102:304:0:efff:f6ff:fffe"));
        let expected = octets(
            "6000000000003b01 20010000010203040000effff6fffffe ff020000000000000000000000000001",
        );
        assert_eq!(bubble[..], expected);
    }

    #[test]
    fn w13_hop_limit_zero_is_a_bubble() {
        let captured = octets(
            "6000000000003b00 2001000041379e508000f12ab9c82815 fe80000000000000708dfe834114a512",
        );
        assert!(ipv6::Header::parse(&captured).unwrap().is_bubble());
    }
}
