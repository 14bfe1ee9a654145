//! Every row of decision table D1 (IPv4 to IPv6), from both sides.

mod checksum;
mod contents;
mod destinations;
mod outer;
mod senders;

use std::net::Ipv6Addr;

use anyhow::Result;
use teredo_common::{
    address::{Endpoint, ServicePrefix},
    peers::Peer,
    prefixes::TeredoPrefixes,
    verdict::Verdict::*,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_lab::{
    fixture::{
        Fixture, HOST, LAN, Passage, Port, ROUTER, ROUTER_V6, SHORTEST, Setup, WAN, now, relay,
        wait_for_stale_stamps,
    },
    packet::{
        IP, address, datagram, echo, endpoint, ethernet, fix_header_checksum, fix_udp_checksum,
        ipv6, octets, tcp, udp,
    },
};

const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const HOST_ADDRESS: &str = "2000::b";

fn client() -> Endpoint {
    endpoint("9.0.0.1:4096")
}

/// The client's frame: the packet in a datagram in a frame.
fn frame(packet: &[u8]) -> Vec<u8> {
    let datagram = datagram(client(), relay(), 7, packet);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

fn data() -> Vec<u8> {
    udp(address(CLIENT), address(HOST_ADDRESS), b"hello, world")
}

fn to(destination: &str) -> Vec<u8> {
    udp(address(CLIENT), address(destination), b"hello, world")
}

/// The client's frame with the IPv4 packet changed and valid checksums.
fn outer(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = datagram(client(), relay(), 7, &data());
    change(&mut datagram);
    fix_udp_checksum(&mut datagram);
    fix_header_checksum(&mut datagram);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The client's frame with the inner packet changed and valid outer checksums.
fn inner(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = data();
    change(&mut packet);
    frame(&packet)
}

/// The client's frame with an outer UDP checksum of zero.
fn unchecked(packet: &[u8]) -> Vec<u8> {
    let mut frame = frame(packet);
    frame[IP + 26..IP + 28].fill(0);
    frame
}

/// The frame that the host receives.
fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[7] -= 1;
    ethernet(HOST, LAN, ETHERTYPE_IPV6, &packet)
}

fn fixture(setup: &Setup) -> Result<Fixture> {
    let mut fixture = Fixture::new(setup)?;
    fixture.trust(address(CLIENT), client())?;
    Ok(fixture)
}

/// Checks that packets are translated: the name of each, its frame, and the packet in it.
fn forward(fixture: &mut Fixture, rows: Vec<Passage>) -> Result<()> {
    for (name, frame, packet) in rows {
        fixture.forward(Port::Wan, DecapForwarded, (name, frame, forwarded(&packet)))?;
    }
    Ok(())
}
