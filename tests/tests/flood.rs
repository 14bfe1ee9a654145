//! Our server under a flood of forged datagrams: it keeps no state for them, and clients still get
//! answers.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use teredo::metrics::OVERRUN;
use teredo_lab::{
    Capture, Scene, Teredo, Topology,
    caller::Caller,
    flood::{Attacker, Forgery, Meter},
    process::maps,
    qualification::{CLIENT, is_solicitation},
    scene::{IPV4_INTERFACE, SERVER},
    wait_until,
};
use teredo_lab_ebpf::flood::KINDS;

/// Number of forged sources.
const SOURCES: u32 = 100_000;
/// Number of solicitations from all sources together.
const SOLICITATIONS: u64 = 1_000_000;
/// Most memory that the solicitations may take, in octets.
const GROWTH: u64 = 4 << 20;
/// Least datagrams per second that must arrive during a flood.
const RATE: f64 = 200_000.0;
/// Datagrams per second that are sent, more because the generator pauses now and then.
const SENT: u32 = 270_000;
/// Longest time for steps that are not a matter of microseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Address of the clients that are only sockets.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);
/// Number of clients, so many that the limit of their address does not count.
const CLIENTS: u16 = 10;
/// Shortest time over which a rate is measured.
const WINDOW: Duration = Duration::from_millis(1500);
/// Number of attempts to measure while no other process uses the generator's core.
const ATTEMPTS: usize = 8;

/// Floods run one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(mode: &str) -> Result<(Scene, Attacker, Teredo)> {
    let mut scene = Scene::new(Topology {
        server: None,
        ..Topology::default()
    })?;
    let server = scene.start_server(&scene.server_config().set("server.xdp.mode", mode))?;
    for attachment in server.status()?.xdp {
        ensure!(attachment.mode.name() == mode, "{attachment:?}");
    }
    let attacker = Attacker::new(&mut scene)?;
    Ok((scene, attacker, server))
}

fn memory(server: &Teredo) -> Result<u64> {
    Ok(server.daemon.resident()? + maps(server.daemon.pid())?)
}

/// The server keeps no state for sources (S-02, S-23).
fn a_million_solicitations_take_no_memory(mode: &str) -> Result<()> {
    let _turn = turn();
    let (scene, attacker, server) = start(mode)?;
    let before = memory(&server)?;
    let meter = Meter::start(scene.server_namespace(), IPV4_INTERFACE)?;
    let flood = attacker.flood([Forgery::Solicitation; KINDS], SOURCES, SENT)?;
    wait_until("all have come", PATIENCE, || {
        Ok(meter.packets()? >= SOLICITATIONS)
    })?;
    flood.stop()?;
    // The server has handled the flood once it has answered a client that came after it.
    let client = scene.start_miredo_client()?;
    let growth = memory(&server)?.saturating_sub(before);
    println!(
        "{mode}: {} answers, {} KiB more for {}",
        attacker.answers()?,
        growth / 1024,
        client.address()
    );
    ensure!(growth < GROWTH, "{growth} octets");
    ensure!(attacker.answers()? > 10_000, "the flood was not one");
    Ok(())
}

#[test]
fn a_million_solicitations_take_no_memory_with_xdp() -> Result<()> {
    a_million_solicitations_take_no_memory("native")
}

#[test]
fn a_million_solicitations_take_no_memory_without_xdp() -> Result<()> {
    a_million_solicitations_take_no_memory("off")
}

/// Returns the datagrams for which there was no room so far.
fn overruns(server: &Teredo) -> Result<u64> {
    Ok(server.status()?.dropped.get(OVERRUN).copied().unwrap_or(0))
}

/// Every client's first solicitation is answered during such a flood.
fn clients_qualify_at_once(mode: &str, kinds: [Forgery; KINDS]) -> Result<()> {
    let _turn = turn();
    let (scene, attacker, server) = start(mode)?;
    let namespace = scene.server_namespace();
    let host = scene.add_ipv4_host("clients", ADDRESS)?;
    let flood = attacker.flood(kinds, SOURCES, SENT)?;
    wait_until("it is a flood", PATIENCE, || {
        let meter = Meter::start(namespace, IPV4_INTERFACE)?;
        wait_until("some have come", PATIENCE, || Ok(meter.packets()? > 50_000))?;
        Ok(meter.rate()? > RATE)
    })?;
    let (mut rates, mut stops) = (Vec::new(), Vec::new());
    for first_port in (10_000..).step_by(usize::from(CLIENTS)).take(ATTEMPTS) {
        let meter = Meter::start(namespace, IPV4_INTERFACE)?;
        let start = Instant::now();
        let lost = overruns(&server)?;
        let clients_qualify = || {
            miredos_client_qualifies_at_once(&scene)?;
            (first_port..first_port + CLIENTS).try_for_each(|port| {
                let caller = Caller::open(&host, SocketAddrV4::new(ADDRESS, port))?;
                caller.qualify(SERVER, SERVER, CLIENT, SERVER)
            })
        };
        if let Err(error) = clients_qualify() {
            // There is room for a while of this flood: something else had the server's core.
            ensure!(overruns(&server)? > lost, error);
            stops.push(format!("{error:#}"));
            continue;
        }
        wait_until("it is a rate of seconds", PATIENCE, || {
            Ok(start.elapsed() > WINDOW)
        })?;
        let rate = meter.rate()?;
        if rate >= RATE {
            println!("{mode}, {:?}: {rate:.0} datagrams a second", kinds[0]);
            return flood.stop();
        }
        rates.push(rate);
    }
    bail!(
        "this machine has sent only {rates:.0?} datagrams a second, and the server was not running when {stops:?}"
    );
}

fn miredos_client_qualifies_at_once(scene: &Scene) -> Result<()> {
    let site = scene.site();
    let capture = Capture::start(&site.client, "eth0")?;
    let client = scene.start_miredo_client()?;
    let frames = capture.stop()?.0;
    let solicitations = frames
        .iter()
        .filter(|frame| frame.udp_payload().is_some_and(is_solicitation))
        .count();
    ensure!(solicitations == 1, "it solicited {solicitations} times");
    client.terminate()?;
    Ok(())
}

#[test]
fn clients_qualify_in_a_flood_of_garbage_with_xdp() -> Result<()> {
    clients_qualify_at_once("native", Forgery::GARBAGE)
}

#[test]
fn clients_qualify_in_a_flood_of_garbage_without_xdp() -> Result<()> {
    clients_qualify_at_once("off", Forgery::GARBAGE)
}

#[test]
fn clients_qualify_in_a_flood_of_solicitations_with_xdp() -> Result<()> {
    clients_qualify_at_once("native", [Forgery::Solicitation; KINDS])
}

#[test]
fn clients_qualify_in_a_flood_of_solicitations_without_xdp() -> Result<()> {
    clients_qualify_at_once("off", [Forgery::Solicitation; KINDS])
}
