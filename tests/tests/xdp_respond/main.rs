//! The server's answers by the XDP program alone: the vectors to the octet, and every row of the
//! table of verdicts from both sides.

mod answers;
mod limits;
mod outer;
mod relay;
mod requests;

use anyhow::Result;
use teredo_common::{
    address::ServicePrefix,
    limiter::Rate,
    time::Instant,
    verdict::Verdict::*,
    wire::{ALL_ROUTERS, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6, NO_NEXT_HEADER},
};
use teredo_lab::{
    fixture::{Fixture, HOST, Outcome, Port, ROUTER, Setup, WAN, now, relay},
    packet::{
        IP, address, datagram, echo, endpoint, ethernet, fix_header_checksum, fix_udp_checksum,
        ipv6, octets, udp,
    },
};
use teredo_proto::{server::Config, testing::transport};

const PRIMARY: &str = "1.2.3.4:3544";
const SECONDARY: &str = "1.2.3.5:3544";

const CLIENT: &str = "9.0.0.1:4096";

/// Address of the client.
const CLIENT_ADDRESS: &str = "2001:0:102:304:0:efff:f6ff:fffe";
const OTHER_ADDRESS: &str = "2001:0:102:304:0:fbff:f7ff:fffe";

const OTHER: &str = "8.0.0.1:1024";
const LINK_LOCAL: &str = "fe80::ffff:ffff:ffff";

const CONE: &str = "fe80::8000:ffff:ffff:ffff";

/// A server at 1.2.3.4 and 1.2.3.5 that has plenty of tokens.
fn config() -> Config {
    let mut config = Config::new([1, 2, 3, 4].into(), [1, 2, 3, 5].into());
    config.limits.source = Rate::new(1_000_000, 1_000_000);
    config.limits.network = Rate::new(1_000_000, 1_000_000);
    config
}

fn setup(config: Config) -> Setup {
    Setup {
        relay: false,
        server: Some(config),
        ..Setup::default()
    }
}

fn fixture(setup: &Setup) -> Result<Fixture> {
    let mut fixture = Fixture::new(setup)?;
    fixture.program.set_identification(|| 0x1234)?;
    Ok(fixture)
}

/// A datagram in a frame from the router.
fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(from), endpoint(to), 7, payload);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The frame with a datagram that the server sends to the router.
fn answer(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let datagram = datagram(endpoint(from), endpoint(to), 0x1234, payload);
    ethernet(ROUTER, WAN, ETHERTYPE_IPV4, &datagram)
}

/// A solicitation with these options.
fn solicitation(source: &str, options: &[u8]) -> Vec<u8> {
    let message = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
    transport(
        ICMPV6,
        255,
        &address(source).octets(),
        &ALL_ROUTERS,
        &message,
    )
}

fn plain() -> Vec<u8> {
    solicitation(LINK_LOCAL, &[])
}

fn bubble(source: &str, destination: &str) -> Vec<u8> {
    ipv6(address(source), address(destination), NO_NEXT_HEADER, &[])
}

/// The packet after a nonce-only authentication header.
fn authenticated(packet: &[u8]) -> Vec<u8> {
    [&octets("00010000 cd5669400b22df88 00"), packet].concat()
}

/// The client's frame with the IPv4 packet changed and valid checksums.
fn outer(payload: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = datagram(endpoint(CLIENT), endpoint(PRIMARY), 7, payload);
    change(&mut datagram);
    fix_udp_checksum(&mut datagram);
    fix_header_checksum(&mut datagram);
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The packet with the octet at `at` changed to `value`.
fn changed(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    packet[at] = value;
    packet
}

/// Runs the program on a payload of the client.
fn show(fixture: &mut Fixture, to: &str, payload: &[u8]) -> Result<Outcome> {
    fixture.run(Port::Wan, &frame(CLIENT, to, payload))
}

const V11: &str = "00010000cd5669400b22df8800 6000000000183aff fe800000000000008000fffffffffffd
    ff020000000000000000000000000002 8500a91d00000000 01020000000000008000f12ab9c82815";

const V12: &str = "00010000cd5669400b22df8800 0000f12ab9c82815 6000000000303aff
    fe800000000000008000f227bec861af fe800000000000008000fffffffffffd
    86001f57 00000000 00000000 000007d0 03044040ffffffffffffffff00000000
    2001000041379e500000000000000000";

const V16: &str = "6000000000383aff fe800000000000008000f227fefdfcfb
    fe800000000000000000ffffffffffff 8600954c 00000000 00000000 000007d0
    03044040ffffffffffffffff00000000 20010000010203040000000000000000 0501000000000500";

/// The origin indication of 9.0.0.1:4096.
const ORIGIN: &str = "0000effff6fffffe";
