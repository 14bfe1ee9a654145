//! Faults of the network around the daemon.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Context as _, Result, ensure};
use teredo_faults::{
    fault::{AddressGone, GatewayMoves, InterfaceDown, InterfaceReplaced, NetlinkOverflow},
    load::Rates,
    metrics,
    runner::play,
    site::Site,
};
use teredo_lab::{NatKind, scene::Maker, wait_until};

use super::{HOLD, PATIENCE, survives};

/// Longest time until a client's connectivity test is answered.
const ANSWERED: Duration = Duration::from_secs(10);

#[test]
fn interfaces_and_addresses_go_and_come_back() -> Result<()> {
    survives([
        &mut InterfaceDown,
        &mut InterfaceReplaced::default(),
        &mut AddressGone,
    ])
}

#[test]
fn next_hops_move() -> Result<()> {
    survives([&mut GatewayMoves::announced(), &mut GatewayMoves::silent()])
}

/// The connectivity test of a client goes to the host by way of the server, whose kernel would send it to the former
/// station for up to a minute: the fault would take a packet long after its end.
#[test]
fn a_moved_next_hop_takes_nothing_when_it_is_over() -> Result<()> {
    let mut site = Site::new(Rates::default())?;
    site.recovers(PATIENCE)?;
    play(&mut site, &mut GatewayMoves::silent(), HOLD)?;
    site.scene.add_site(NatKind::PortRestricted)?;
    let home = site.scene.sites.last().context("a site was added")?;
    let newcomer = site.scene.start_client_of(Maker::Teredo, home)?;
    let newcomer = newcomer.teredo().context("the client is ours")?;
    let host = site.scene.host().address;
    home.client.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.send_to(b"packet", (host, 9))
    })??;
    let tests = |kind: &str| -> Result<u64> {
        let numbers = metrics::of_daemon(&newcomer.daemon.path().join("api"))?;
        let kind = format!("kind=\"{kind}\"");
        let tests = numbers.iter().filter(|(name, _)| {
            name.starts_with("teredo_client_tests_total") && name.contains(&kind)
        });
        Ok(tests.map(|(_, count)| count).sum())
    };
    wait_until("a test is answered", ANSWERED, || {
        Ok(tests("answered")? == 1)
    })?;
    let sent = tests("sent")?;
    ensure!(sent == 1, "{} of {sent} tests were lost", sent - 1);
    Ok(())
}

#[test]
fn changes_that_netlink_lost_are_found() -> Result<()> {
    survives([&mut NetlinkOverflow])
}
