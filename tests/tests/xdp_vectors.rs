//! The vectors of the protocol reference through the XDP program, to the octet.

use anyhow::Result;
use teredo_common::{
    verdict::Verdict,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_lab::{
    fixture::{Fixture, HOST, LAN, Port, ROUTER, Setup, WAN},
    packet::{address, endpoint, ethernet, octets},
};

const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";

fn fixture() -> Result<Fixture> {
    let mut fixture = Fixture::new(&Setup::default())?;
    fixture.trust(address(CLIENT), endpoint("9.0.0.1:4096"))?;
    fixture.program.set_identification(|| 0x1234)?;
    Ok(fixture)
}

/// Outer TTL and identification included (W-07).
#[test]
fn v21_encapsulation() -> Result<()> {
    let packet = octets(
        "6000000000183a40 2000000000000000000000000000000b
        20010000010203040000effff6fffffe 8100852312340001 00112233445566778899aabbccddeeff",
    );
    let expected = octets(
        "4500005c 12340000 4011534f 05060708 09000001 0dd91000 00483271
        6000000000183a3f 2000000000000000000000000000000b
        20010000010203040000effff6fffffe 8100852312340001 00112233445566778899aabbccddeeff",
    );
    let outcome = fixture()?.run(Port::Lan, &ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet))?;
    assert_eq!(outcome.verdict, Verdict::EncapForwarded);
    assert!(!outcome.same_interface);
    assert_eq!(
        outcome.frame,
        ethernet(ROUTER, WAN, ETHERTYPE_IPV4, &expected)
    );
    Ok(())
}

#[test]
fn v22_decapsulation() -> Result<()> {
    let packet = octets(
        "45000054 43210000 3911296a 09000001 05060708 10000dd9 00403280
        6000000000103a40 20010000010203040000effff6fffffe 2000000000000000000000000000000b
        800096f40007000170696e67706f6e67",
    );
    let expected = octets(
        "6000000000103a3f 20010000010203040000effff6fffffe
        2000000000000000000000000000000b 800096f40007000170696e67706f6e67",
    );
    let outcome = fixture()?.run(Port::Wan, &ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &packet))?;
    assert_eq!(outcome.verdict, Verdict::DecapForwarded);
    assert!(!outcome.same_interface);
    assert_eq!(
        outcome.frame,
        ethernet(HOST, LAN, ETHERTYPE_IPV6, &expected)
    );
    Ok(())
}
