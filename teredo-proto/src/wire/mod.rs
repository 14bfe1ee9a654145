//! Parsing and building of what is on the wire. No sockets, no clocks, no allocation to parse.
//!
//! Nothing here assumes alignment: an element of any length may stand before the IPv6 packet
//! (requirement W-02).

pub mod authentication;
pub mod bubble;
pub mod ecn;
pub mod encapsulation;
pub mod icmpv6;
pub mod ipv6;
pub mod router;
pub mod trailer;
