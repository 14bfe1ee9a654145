//! Frames with VLAN tags, for VLAN interfaces of the host and for others.

use anyhow::Result;
use teredo_common::{
    verdict::Verdict::*,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use teredo_differential::tags;
use teredo_lab::{
    fixture::{Fixture, HOST, LAN, Outcome, Port, ROUTER, Setup, WAN, relay},
    packet::{address, datagram, endpoint, ethernet, udp},
};

const CLIENT: &str = "2001:0:102:304:0:efff:f6ff:fffe";
/// Octets in front of tags.
const ADDRESSES: usize = 12;

fn setup(wan: &[u16], lan: &[u16]) -> Setup {
    Setup {
        tags: [tags::tags(wan), tags::tags(lan)],
        ..Setup::default()
    }
}

fn fixture(setup: &Setup) -> Result<Fixture> {
    let mut fixture = Fixture::new(setup)?;
    fixture.trust(address(CLIENT), endpoint("9.0.0.1:4096"))?;
    Ok(fixture)
}

fn data() -> Vec<u8> {
    udp(address(CLIENT), address("2000::b"), b"hello")
}

/// The client's frame without tags.
fn from_client() -> Vec<u8> {
    let datagram = datagram(endpoint("9.0.0.1:4096"), relay(), 7, &data());
    ethernet(WAN, ROUTER, ETHERTYPE_IPV4, &datagram)
}

/// The native host's frame without tags.
fn to_client() -> Vec<u8> {
    let packet = udp(address("2000::b"), address(CLIENT), b"hello");
    ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet)
}

/// The frame that the native host receives, without tags.
fn decapsulated() -> Vec<u8> {
    let mut packet = data();
    packet[7] -= 1;
    ethernet(HOST, LAN, ETHERTYPE_IPV6, &packet)
}

/// The frame with octets between the addresses and the rest.
fn with(tags: &[u8], frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(ADDRESSES);
    [addresses, tags, rest].concat()
}

/// Runs the program on a frame as it is, at the interface below the VLAN interfaces.
fn run(fixture: &mut Fixture, tags: &[u8], frame: &[u8]) -> Result<Outcome> {
    fixture.run(Port::Other, &with(tags, frame))
}

#[test]
fn d1_01_a_frame_of_a_vlan_interface_is_forwarded() -> Result<()> {
    let mut fixture = fixture(&setup(&[10], &[20]))?;
    let outcome = run(&mut fixture, &[0x81, 0, 0, 10], &from_client())?;
    assert_eq!(outcome.verdict, DecapForwarded);
    assert_eq!(outcome.frame, with(&[0x81, 0, 0, 20], &decapsulated()));
    assert!(outcome.same_interface, "both are above the same interface");
    assert_eq!(fixture.program.vlan_frames()?, 1);
    Ok(())
}

#[test]
fn d1_01_padding_behind_a_tag_is_cut_off() -> Result<()> {
    let mut fixture = fixture(&setup(&[10], &[]))?;
    let padded = [from_client(), vec![7; 20]].concat();
    let outcome = run(&mut fixture, &[0x81, 0, 0, 10], &padded)?;
    assert_eq!(outcome.frame, decapsulated());
    assert!(!outcome.same_interface);
    Ok(())
}

#[test]
fn d2_01_a_frame_leaves_with_two_tags() -> Result<()> {
    let mut fixture = fixture(&setup(&[100, 10], &[]))?;
    let packet = to_client();
    for _ in 0..2 {
        // The second time with a cached next hop.
        let outcome = fixture.run(Port::Lan, &packet)?;
        assert_eq!(outcome.verdict, EncapForwarded);
        assert_eq!(outcome.frame[..ADDRESSES], [ROUTER, WAN].concat());
        let tags = [0x88, 0xa8, 0, 100, 0x81, 0, 0, 10];
        assert_eq!(outcome.frame[ADDRESSES..ADDRESSES + 8], tags);
        assert_eq!(outcome.frame[20..22], [8, 0]);
        // Without tags, the datagram has 28 octets more.
        assert_eq!(outcome.frame.len(), packet.len() + 28 + 8);
    }
    assert_eq!(fixture.program.vlan_frames()?, 0, "none came with tags");
    Ok(())
}

/// Tags that no VLAN interface has: another number, another protocol, priority alone, too few and too many.
#[test]
fn d1_01_frames_with_other_tags_pass() -> Result<()> {
    let mut one = fixture(&setup(&[10], &[]))?;
    let mut two = fixture(&setup(&[100, 10], &[]))?;
    let of_one: &[&[u8]] = &[
        &[0x81, 0, 0, 11],
        &[0x81, 0, 1, 10],
        &[0x88, 0xa8, 0, 10],
        &[0x81, 0, 0, 0],
        &[0x81, 0, 0xe0, 0],
        &[0x81, 0, 0, 10, 0x81, 0, 0, 10],
        &[0x81, 0, 0, 0, 0x81, 0, 0, 10],
    ];
    let of_two: &[&[u8]] = &[
        &[0x88, 0xa8, 0, 100],
        &[0x81, 0, 0, 10],
        &[0x81, 0, 0, 10, 0x88, 0xa8, 0, 100],
        &[0x88, 0xa8, 0, 100, 0x88, 0xa8, 0, 10],
        &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 0],
        &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 10, 0x81, 0, 0, 10],
    ];
    for (fixture, rows) in [(&mut one, of_one), (&mut two, of_two)] {
        for tags in rows {
            let outcome = run(fixture, tags, &from_client())?;
            assert_eq!(outcome.verdict, Tagged, "{tags:02x?}");
            assert_eq!(outcome.frame, with(tags, &from_client()), "{tags:02x?}");
        }
    }
    Ok(())
}

#[test]
fn d1_01_frames_that_pass_keep_tags_and_priority() -> Result<()> {
    let mut fixture = fixture(&setup(&[10], &[100, 20]))?;
    let mut unknown = from_client();
    // Another source port, and no checksum.
    unknown[35] ^= 1;
    unknown[40..42].fill(0);
    let mut stranger = from_client();
    stranger[5] ^= 1;
    let mut exhausted = to_client();
    exhausted[21] = 1;
    let arp = ethernet(WAN, ROUTER, 0x0806, &[0; 28]);
    let one = [0x81, 0, 0xb0, 10];
    let two = [0x88, 0xa8, 0x30, 100, 0x81, 0, 0xf0, 20];
    for (tags, frame, verdict) in [
        (&one[..], unknown, DecapMapping),
        (&one, stranger, OtherStation),
        (&one, arp, NotIp),
        (&two, exhausted, EncapHopLimit),
        (&two, to_client()[..40].to_vec(), EncapLength),
    ] {
        let outcome = run(&mut fixture, tags, &frame)?;
        assert_eq!(outcome.verdict, verdict);
        assert_eq!(outcome.frame, with(tags, &frame), "{verdict:?}");
    }
    Ok(())
}

/// The interface below belongs to nobody: its frames without tags are the kernel's.
#[test]
fn d1_01_frames_without_tags_are_not_for_a_vlan_interface() -> Result<()> {
    let mut fixture = fixture(&setup(&[10], &[20]))?;
    for frame in [from_client(), to_client()] {
        let outcome = fixture.run(Port::Other, &frame)?;
        assert_eq!(outcome.verdict, OtherStation);
        assert_eq!(outcome.frame, frame);
    }
    Ok(())
}

/// A packet that is too large for the way out is so with tags, too.
#[test]
fn d2_07_a_packet_that_does_not_fit_passes_with_its_tags() -> Result<()> {
    let mut fixture = fixture(&setup(&[10], &[20]))?;
    let far = "2001:0:102:304:0:f236:f6f6:fffe";
    fixture.trust(address(far), endpoint("9.9.0.1:3529"))?;
    let packet = udp(address("2000::b"), address(far), &[0; 1000]);
    let frame = ethernet(LAN, HOST, ETHERTYPE_IPV6, &packet);
    let tags = [0x81, 0, 0, 20];
    let outcome = run(&mut fixture, &tags, &frame)?;
    assert_eq!(outcome.verdict, EncapTooBig);
    assert_eq!(outcome.frame, with(&tags, &frame));
    Ok(())
}
