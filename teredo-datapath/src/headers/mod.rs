//! Typed views of the headers in a frame. A view exists only where the frame has all of its octets.

mod chain;
mod ethernet;
mod icmpv6;
mod ipv6;
mod outer;
mod transport;

pub use self::{
    chain::Transport,
    ethernet::{ADDRESSES, Addresses, Ethernet, is_tag},
    icmpv6::{Options, Solicitation},
    ipv6::{Ipv6, Ipv6Start, TeredoAddress},
    outer::{OUTER, Outer, udp_sum},
    transport::{covering_checksum, covers_payload, is_of_pseudo_header, is_plain, is_unfinished},
};
