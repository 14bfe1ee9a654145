//! What other servers were seen to answer. Ours answers the same, octet for octet.

use super::harness::*;
use crate::testing::octets;

const SOLICITATION: &str = "6000000000083aff fe800000000000000000ffffffffffff \
    ff020000000000000000000000000002 85007d3700000000";
const ADVERTISEMENT: &str = "6000000000383aff fe800000000000008000f227ebfffffe \
    fe800000000000000000ffffffffffff \
    8600954c 00000000 00000000 000007d0 03044040ffffffffffffffff00000000 \
    20010000140000010000000000000000 0501000000000500";

/// The addresses of the server Miredo in the captures.
fn miredo() -> World {
    World::with(|config| {
        config.primary = [20, 0, 0, 1].into();
        config.secondary = [20, 0, 0, 2].into();
    })
}

#[test]
fn s17_a03_miredo_qualifies() {
    let mut world = miredo();
    // Its first solicitation, and two later ones after its NAT gave it other ports.
    for (from, nonce, origin) in [
        ("20.0.2.1:40001", "de5c2402032173f2", "000063beebfffdfe"),
        ("20.0.2.1:50160", "dbae35c65b625a18", "00003c0febfffdfe"),
        ("20.0.2.1:28174", "e9160283e0578649", "000091f1ebfffdfe"),
    ] {
        let solicitation = octets(&format!("00010000 {nonce} 00 {SOLICITATION}"));
        let advertisement = octets(&format!("00010000 {nonce} 00 {origin} {ADVERTISEMENT}"));
        let expected = datagram(Primary, from, advertisement);
        assert_eq!(world.receives(from, &solicitation), expected);
    }
}

#[test]
fn s15_miredo_is_asked_for_a_bubble() {
    let mut world = miredo();
    for (from, to, origin, bubble) in [
        (
            "20.0.1.1:3545",
            "20.0.2.1:40001",
            "0000f226ebfffefe",
            "6000000000003b00 fe800000000000009882f24dd9ab4958 20010000140000013c0d63beebfffdfe",
        ),
        (
            "20.0.1.1:3545",
            "20.0.2.1:40001",
            "0000f226ebfffefe",
            "6000000000003b00 fe8000000000000044663d7c403b9547 20010000140000013c0d63beebfffdfe",
        ),
        // From one client to another, with a link-local source.
        (
            "20.0.2.1:40001",
            "20.0.3.1:40001",
            "000063beebfffdfe",
            "6000000000003b00 fe80000000000000f05f97b4b5730e3b 2001000014000001105e63beebfffcfe",
        ),
    ] {
        let expected = datagram(Primary, to, octets(&format!("{origin}{bubble}")));
        assert_eq!(world.receives(from, &octets(bubble)), expected);
    }
}

#[test]
fn s13_miredo_tests_a_native_host() {
    let test = octets(
        "60000000001a3a80 20010000140000013c0d63beebfffdfe 20010db8000600000000000000000010 \
         8000a560379894d06b0056c16799bd8cc21f7c96c32a942ba551",
    );
    let mut sent = test.clone();
    sent[7] -= 1;
    let mut world = miredo();
    let expected = Some((Output::Native, sent));
    assert_eq!(world.receives("20.0.2.1:40001", &test), expected);
}
