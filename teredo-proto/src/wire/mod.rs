//! The formats on the wire: parsing, which never allocates, and building.
//!
//! [`encapsulation`] takes the payload of a UDP datagram apart; [`ipv6`] reads the packet in it. Like
//! on the wire, addresses are octets in network byte order. Nothing here assumes alignment: an
//! element of any length may precede the IPv6 packet (W-02).

pub mod authentication;
pub mod bubble;
pub mod ecn;
pub mod encapsulation;
pub mod icmpv6;
pub mod ipv6;
pub mod router;
pub mod trailer;
