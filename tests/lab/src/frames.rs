//! Ethernet frames between two stations.

use anyhow::Result;
use etherparse::PacketBuilder;
use teredo_common::address::Endpoint;

use crate::packet;

/// Source and destination of Ethernet frames.
#[derive(Clone, Copy, Debug)]
pub struct Stations {
    /// Address of the sender.
    pub source: [u8; 6],
    /// Address of the receiver.
    pub destination: [u8; 6],
}

/// An Ethernet frame with a UDP datagram over IPv4.
///
/// # Errors
///
/// Fails when the payload is too long.
pub fn datagram(
    stations: Stations,
    source: Endpoint,
    destination: Endpoint,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(stations.source, stations.destination)
        .ipv4(source.address, destination.address, 64)
        .udp(source.port(), destination.port());
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload)?;
    Ok(frame)
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(stations: Stations, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    packet::ethernet(stations.destination, stations.source, ether_type, packet)
}
