//! Packets that cross the TUN interface together.
//!
//! With the header of virtio-net in front of each packet, the kernel passes the packets of one flow that
//! follow each other as one (a super-packet): out of the interface those that it has not split into
//! segments yet (TCP and UDP segmentation offload, TSO and USO), into it those that were coalesced. It
//! leaves the checksums to the other side, too.
//!
//! Everything here is about octets alone: [`Split`] makes of a super-packet the packets that the kernel
//! would have made of it, octet for octet, and [`Coalescer`] makes super-packets of packets, from which
//! [`Split`] would restore them.

mod coalesce;
mod header;
mod split;

#[cfg(test)]
mod tests;

pub use coalesce::{Coalescer, Protocols};
pub use header::{Header, Protocol};
pub use split::{Malformed, Split, complete};

use teredo_common::{
    checksum::{Sum, ipv6_pseudo_header},
    wire::IPV6_HEADER,
};

/// Octets of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Offset of the sequence number in the TCP header, in octets.
const SEQUENCE: usize = 4;
/// Offset of the flags in the TCP header, in octets.
const FLAGS: usize = 13;

// Flags of TCP (RFC 9293 section 3.1).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// Sets the payload length of a packet whose length is that of its headers and data.
fn set_payload_length(headers: &mut [u8], packet_length: usize) {
    let length = (packet_length - IPV6_HEADER) as u16;
    headers[4..6].copy_from_slice(&length.to_be_bytes());
}

/// Returns the sum of the pseudo-header of a message of this length in octets. `ipv6` is the fixed header.
fn pseudo_header(ipv6: &[u8], length: u16, protocol: Protocol) -> Sum {
    let [source, destination] = [8, 24].map(|start| {
        let mut address = [0; 16];
        address.copy_from_slice(&ipv6[start..start + 16]);
        address
    });
    ipv6_pseudo_header(&source, &destination, length.into(), protocol.number())
}
