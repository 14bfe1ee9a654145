//! The watchdog of the service manager.

use std::{
    io::ErrorKind,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use teredo_lab::{
    Scene, Teredo, Topology,
    flood::{Attacker, Forgery},
    uninterrupted, wait_until,
};

use super::PATIENCE;

/// The time without a notification after which the service manager would end the daemon.
const LIMIT: Duration = Duration::from_secs(2);

/// Datagrams a second, and their sources.
const RATE: u32 = 50_000;
const SOURCES: u32 = 10_000;

/// Counts the notifications that come within some time.
fn pings(socket: &UnixDatagram, time: Duration) -> Result<usize> {
    let end = Instant::now() + time;
    let mut count = 0;
    let mut buffer = [0; 256];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(count);
        }
        socket.set_read_timeout(Some(left))?;
        match uninterrupted(left, || socket.recv(&mut buffer)) {
            Ok(length) => count += usize::from(buffer[..length].starts_with(b"WATCHDOG=1")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) => return Err(error.into()),
        }
    }
}

#[test]
fn the_watchdog_is_fed_under_a_flood_and_by_nobody_while_the_daemon_starves() -> Result<()> {
    let mut scene = Scene::new(Topology {
        server: None,
        clients: 0,
        ..Topology::default()
    })?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    let config = scene.server_config().set("server.xdp.mode", "off");
    let mut server = Teredo::start_prepared(scene.server_namespace(), &config, |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", LIMIT.as_micros().to_string());
        Ok(())
    })?;
    server.ready()?;
    let attacker = Attacker::new(&mut scene)?;
    let flood = attacker.flood(Forgery::GARBAGE, SOURCES, RATE)?;
    let arrived = || {
        let dropped = server.status()?.dropped;
        anyhow::Ok(dropped["malformed"] + dropped["overrun"])
    };
    wait_until("the flood arrives", PATIENCE, || Ok(arrived()? > 0))?;
    let before = arrived()?;
    let count = pings(&socket, 3 * LIMIT)?;
    ensure!(count >= 3, "{count} notifications");
    let arrived = arrived()? - before;
    ensure!(
        arrived > u64::from(RATE),
        "only {arrived} datagrams arrived"
    );
    flood.stop()?;

    server.daemon.signal(Signal::SIGSTOP)?;
    // Those that were sent before.
    pings(&socket, Duration::from_millis(50))?;
    ensure!(pings(&socket, 2 * LIMIT)? == 0);
    server.daemon.signal(Signal::SIGCONT)?;
    wait_until("it is fed again", PATIENCE, || {
        Ok(pings(&socket, LIMIT)? >= 1)
    })
}
