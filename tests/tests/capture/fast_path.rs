//! Frames at the points of the fast path.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    Capture, process::output, scene::IPV4_INTERFACE, scene::IPV6_INTERFACE, teredo::binary,
    wait_until,
};

use super::{Packet, SOON, World, at};

#[test]
fn frames_of_the_fast_path_are_those_on_the_wire() -> Result<()> {
    let world = World::new("native")?;
    let usual = world.program(IPV4_INTERFACE)?;
    let capturing = world.capture("--points xdp --snaplen 4095")?;
    let wire = Capture::start(&world.scene.host().namespace, IPV6_INTERFACE)?;
    world.ping()?;
    let is_echo = |octets: &[u8]| octets.len() > 60 && octets[20] == 58 && octets[54] >> 1 == 64;
    wait_until("the echoes are captured", SOON, || {
        let frames = wire.frames();
        let echoes = frames.iter().filter(|frame| is_echo(&frame.bytes));
        Ok(echoes.count() >= 12)
    })?;
    let frames = wire.frames();
    let (packets, summary) = capturing.end()?;
    ensure!(
        summary.contains(" 0 lost for want of room, 0 not looked at"),
        "{summary}"
    );
    for (is_outgoing, point, comment) in [
        (true, "v6:received", "encap-forwarded: forwarded"),
        (false, "v4:forwarded", "decap-forwarded: forwarded"),
    ] {
        let on_wire: Vec<_> = frames
            .iter()
            .filter(|frame| frame.outgoing == is_outgoing && is_echo(&frame.bytes))
            .collect();
        ensure!(on_wire.len() == 6, "{} echoes at the host", on_wire.len());
        for frame in on_wire {
            let captured = at(&packets, point);
            let found = captured.iter().find(|packet| packet.octets == frame.bytes);
            let found = found.with_context(|| format!("{frame:?} is not in {captured:?}"))?;
            ensure!(found.comment == comment, "{found:?}");
            ensure!(found.length as usize == frame.bytes.len(), "{found:?}");
            ensure!(matches!(found.action, Some(3 | 4)), "{found:?}");
            // The other side of the same frame.
            let same = packets
                .iter()
                .filter(|packet| packet.number == found.number);
            ensure!(same.count() == 2, "{found:?}");
        }
    }
    // The client that goes ends the capture.
    wait_until("the usual program is back", SOON, || world.is_back(usual))?;
    let forwarded = world.relay.packets_during(|| world.ping())?;
    ensure!(
        forwarded.encap.xdp >= 6 && forwarded.decap.xdp >= 6,
        "{forwarded:?}"
    );
    Ok(())
}

#[test]
fn a_datagram_is_followed_from_the_fast_path_to_the_daemon() -> Result<()> {
    let world = World::new("native")?;
    let packets = world.captured("", || world.send_garbage(&[0xee; 40]))?;
    let ours = |packet: &&Packet| packet.octets.ends_with(&[0xee; 40]);
    let ours: Vec<_> = packets.iter().filter(ours).collect();
    let expected = [
        (
            "v4:received",
            "decap-not-ipv6: passed to the kernel",
            Some(2),
        ),
        ("v4:passed", "decap-not-ipv6: passed to the kernel", Some(2)),
        ("relay:received", "decap-malformed", None),
        ("relay:dropped", "decap-malformed", None),
    ];
    let at = |point: &str| {
        let found = ours.iter().find(|packet| packet.point == point);
        found.with_context(|| format!("nothing at {point}: {packets:?}"))
    };
    for (point, comment, action) in expected {
        let found = at(point)?;
        ensure!(
            found.comment == comment && found.action == action,
            "{found:?}"
        );
    }
    ensure!(ours.len() == expected.len(), "{ours:?}");
    // The headers that the socket has taken away are those of the frame, but for what nobody knows any more.
    let (frame, datagram) = (at("v4:received")?, at("relay:received")?);
    let frame = &frame.octets[14..];
    ensure!(datagram.octets[12..26] == frame[12..26], "{datagram:?}");
    ensure!(datagram.octets[28..] == frame[28..], "{datagram:?}");
    Ok(())
}

#[test]
fn filters_select_packets() -> Result<()> {
    let world = World::new("native")?;
    let (host, client) = (world.scene.host().address, world.client.address());
    let nat = world.scene.site().nat.address();
    let work = || {
        world.ping()?;
        world.send_garbage(&[0xee; 40])
    };
    let xdp = "--points xdp:received";
    for (options, has_echoes, has_garbage) in [
        (String::new(), true, true),
        (format!("--peer {client}"), true, false),
        (format!("--peer {nat}"), true, true),
        ("--peer 192.0.2.1".to_owned(), false, false),
        (format!("--prefix {host}/128"), true, false),
        ("--prefix 2001:db8:ffff::/48".to_owned(), false, false),
        ("--reason decap-not-ipv6".to_owned(), false, true),
        (
            "--reason encap-forwarded,decap-forwarded".to_owned(),
            true,
            false,
        ),
        ("--role relay".to_owned(), true, true),
    ] {
        let packets = world.captured(&format!("{xdp} {options}"), work)?;
        let forwarded = packets
            .iter()
            .filter(|packet| packet.comment.contains("-forwarded"));
        let garbage = packets
            .iter()
            .filter(|packet| packet.octets.ends_with(&[0xee; 40]));
        let found = (forwarded.count() >= 12, garbage.count() == 1);
        ensure!(
            found == (has_echoes, has_garbage),
            "{options}: {found:?} in {packets:?}"
        );
    }
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_the_usual_program() -> Result<()> {
    let mut world = World::new("native")?;
    let usual = world.program(IPV4_INTERFACE)?;
    ensure!(usual.is_some(), "no program");
    let capturing = world.capture("--points xdp")?;
    ensure!(world.guards()? == 1, "nobody would put the program back");
    world.relay.daemon.kill()?;
    wait_until("the usual program is back", SOON, || world.is_back(usual))?;
    drop(capturing);
    world.relay.start_again(&world.scene.relay)?;
    world.ping()
}

#[test]
fn a_reload_ends_the_capture_and_leaves_nothing() -> Result<()> {
    let world = World::new("native")?;
    let capturing = world.capture("--points xdp")?;
    let during = world.program(IPV4_INTERFACE)?;
    let mut reload = Command::new(binary()?);
    output(reload.arg("reload").arg("--config").arg(world.relay.file()))?;
    capturing.wait()?;
    let after = world.program(IPV4_INTERFACE)?;
    ensure!(
        after.is_some() && after != during,
        "{during:?} is still there"
    );
    wait_until("nothing is left", SOON, || world.is_back(after))?;
    let forwarded = world.relay.packets_during(|| world.ping())?;
    ensure!(forwarded.encap.xdp >= 6, "{forwarded:?}");
    Ok(())
}
