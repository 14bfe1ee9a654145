//! Constants of the wire formats (RFC 4380 section 5.1.1, RFC 791, RFC 768, RFC 8200).

/// Octets of an Ethernet header without VLAN tags.
pub const ETHERNET_HEADER: usize = 14;
/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Octets of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Octets of the fixed IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// Octets that the plain encapsulation adds to an IPv6 packet.
pub const ENCAPSULATION: usize = IPV4_HEADER + UDP_HEADER;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag (IEEE 802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag (IEEE 802.1ad).
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

/// IPv6 next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// IPv6 next header and IPv4 protocol: TCP.
pub const TCP: u8 = 6;
/// IPv6 next header and IPv4 protocol: UDP.
pub const UDP: u8 = 17;
/// IPv6 next header: Datagram Congestion Control Protocol.
pub const DCCP: u8 = 33;
/// IPv6 next header: routing.
pub const ROUTING: u8 = 43;
/// IPv6 next header: fragment.
pub const FRAGMENT: u8 = 44;
/// IPv6 next header: Encapsulating Security Payload, behind which nothing is readable.
pub const ESP: u8 = 50;
/// IPv6 next header: Authentication Header, whose length is in units of four octets (RFC 4302).
pub const AUTHENTICATION_HEADER: u8 = 51;
/// IPv6 next header: ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6 next header: no next header. With payload length 0 it makes a bubble.
pub const NO_NEXT_HEADER: u8 = 59;
/// IPv6 next header: destination options.
pub const DESTINATION_OPTIONS: u8 = 60;
/// IPv6 next header: Stream Control Transmission Protocol.
pub const SCTP: u8 = 132;
/// IPv6 next header: mobility (RFC 6275).
pub const MOBILITY: u8 = 135;
/// IPv6 next header: UDP-Lite.
pub const UDP_LITE: u8 = 136;
/// IPv6 next header: Host Identity Protocol (RFC 7401).
pub const HOST_IDENTITY: u8 = 139;
/// IPv6 next header: Shim6 (RFC 5533).
pub const SHIM6: u8 = 140;
/// IPv6 next header: first of two for experiments (RFC 7045 section 4).
pub const EXPERIMENT_1: u8 = 253;
/// IPv6 next header: second of two for experiments (RFC 7045 section 4).
pub const EXPERIMENT_2: u8 = 254;

/// Whether no other header can follow one with this IPv6 next header, as far as is known for certain.
#[inline(always)]
pub const fn is_transport(next_header: u8) -> bool {
    matches!(
        next_header,
        TCP | UDP | DCCP | ESP | ICMPV6 | SCTP | UDP_LITE
    )
}

/// UDP port of Teredo servers (RFC 4380 section 2.7), host byte order.
pub const SERVER_PORT: u16 = 3544;
/// The smallest and default MTU of the tunnel, in octets of IPv6 packet (RFC 4380 section 5.1.2).
pub const MTU: u16 = 1280;
/// IPv4 time to live of encapsulated unicast packets.
pub const OUTER_TTL: u8 = 64;

/// Second octet, after a zero, of an origin indication (RFC 4380 section 5.1.1).
pub const ORIGIN_INDICATION: u8 = 0;
/// Second octet, after a zero, of an authentication header (RFC 4380 section 5.1.1).
pub const AUTHENTICATION: u8 = 1;
/// The IPv6 address of all routers on the link, ff02::2, where router solicitations go.
pub const ALL_ROUTERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// ICMPv6 type of an echo request (RFC 4443 section 4.1).
pub const ECHO_REQUEST: u8 = 128;
/// ICMPv6 type of an echo reply (RFC 4443 section 4.2).
pub const ECHO_REPLY: u8 = 129;
/// ICMPv6 type of a router solicitation (RFC 4861 section 4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement (RFC 4861 section 4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Hop limit of router solicitations and advertisements (RFC 4861 section 6.1).
pub const NEIGHBOR_DISCOVERY_HOP_LIMIT: u8 = 255;

/// The longest trailers that a server copies behind a bubble, in octets (requirement S-16).
pub const MAX_TRAILERS: usize = 128;
/// Octets of an origin indication.
pub const ORIGIN_INDICATION_LENGTH: usize = 8;
/// Octets of an authentication header with neither client identifier nor value: lengths, nonce and
/// confirmation.
pub const NONCE_ONLY_LENGTH: usize = 13;
