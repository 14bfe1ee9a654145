//! Packets of the daemon: of a relay without a fast path, and of a client.

use std::{net::IpAddr, net::UdpSocket};

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{scene::RELAY, traffic::Tcp, wait_until};

use super::{Capturing, SOON, World, at};

#[test]
fn packets_of_userspace_are_captured() -> Result<()> {
    let world = World::new("off")?;
    for reason in ["", "--reason forwarded"] {
        let packets = world.captured(&format!("--points daemon {reason}"), || world.ping())?;
        for point in ["relay:received", "relay:forwarded"] {
            let here = at(&packets, point);
            let forwarded = here.iter().filter(|packet| packet.comment == "forwarded");
            ensure!(forwarded.count() == 12, "{point}: {packets:?}");
        }
        let others = packets
            .iter()
            .filter(|packet| packet.comment != "forwarded");
        ensure!(reason.is_empty() || others.count() == 0, "{packets:?}");
    }
    Ok(())
}

#[test]
fn packets_of_a_client_are_captured() -> Result<()> {
    let world = World::new("off")?;
    let client = world.client.teredo().context("ours")?;
    let site = world.scene.site();
    let capturing = Capturing::start(client, "--role client")?;
    world.ping()?;
    // A datagram of the host itself, to the client.
    let local = site.client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(RELAY)?;
        let local = socket.local_addr()?.ip();
        socket.connect((local, site.port))?;
        socket.send(&[0xee; 40])?;
        anyhow::Ok(local)
    })??;
    wait_until("it is dropped", SOON, || {
        let status = client.status()?;
        Ok(status
            .dropped
            .get("own-source")
            .is_some_and(|&count| count > 0))
    })?;
    let (packets, summary) = capturing.end()?;
    ensure!(
        summary.contains(" 0 lost for want of room, 0 not looked at"),
        "{summary}"
    );
    for point in ["client:received", "client:forwarded"] {
        let here = at(&packets, point);
        let forwarded = here.iter().filter(|packet| packet.comment == "forwarded");
        ensure!(forwarded.count() == 12, "{point}: {packets:?}");
    }
    // The kernel's own packets to groups are dropped, too.
    let dropped = at(&packets, "client:dropped");
    let dropped = dropped
        .iter()
        .filter(|packet| packet.comment == "own-source");
    let dropped: Vec<_> = dropped.collect();
    let [dropped] = &*dropped else {
        anyhow::bail!("{dropped:?}");
    };
    ensure!(dropped.octets.ends_with(&[0xee; 40]), "{dropped:?}");
    // The socket of all addresses does not tell by which a datagram leaves.
    let forwarded = at(&packets, "client:forwarded");
    let datagrams = forwarded.iter().filter(|packet| packet.octets[0] == 0x45);
    for datagram in datagrams {
        let octets = &datagram.octets;
        let [from, to] = [12, 16].map(|start| <[u8; 4]>::try_from(&octets[start..start + 4]));
        ensure!(IpAddr::from(from?) == local, "{datagram:?}");
        ensure!(to? == RELAY.ip().octets(), "{datagram:?}");
        ensure!(octets[20..22] == site.port.to_be_bytes(), "{datagram:?}");
    }
    Ok(())
}

#[test]
fn super_packets_of_a_client_are_captured_as_the_packets_that_they_become() -> Result<()> {
    const OCTETS: u64 = 100_000;
    const MTU: u64 = 1280;
    let world = World::new("off")?;
    let client = world.client.teredo().context("ours")?;
    let host = world.scene.host();
    let options = format!(
        "--points daemon --reason forwarded --rate 100000 --prefix {}/128",
        host.address
    );
    let capturing = Capturing::start(client, &options)?;
    Tcp::to(host.address)
        .upload(OCTETS)
        .between(&world.scene.site().client, &host.namespace)?;
    let (packets, _) = capturing.end()?;
    let segments = packets.iter().filter_map(|packet| {
        // Behind the headers of IPv4 and UDP, which only datagrams have.
        let start = if packet.point == "client:forwarded" {
            28
        } else {
            0
        };
        let inner = packet.octets.get(start..)?;
        let is_sent = inner[0] >> 4 == 6 && inner[24..40] == host.address.octets();
        let length = packet.length - start as u32;
        is_sent.then_some((&*packet.point, length))
    });
    for point in ["client:received", "client:forwarded"] {
        let lengths = segments.clone().filter(|(one, _)| *one == point);
        let lengths: Vec<_> = lengths.map(|(_, length)| u64::from(length)).collect();
        // A burst may have more packets than wait for those that capture.
        ensure!(lengths.iter().max() == Some(&MTU), "{point}: {lengths:?}");
    }
    Ok(())
}
