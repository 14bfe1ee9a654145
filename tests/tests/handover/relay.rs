//! A relay that is restarted while traffic flows.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    inotify::{AddWatchFlags, InitFlags, Inotify},
    signal::Signal,
};
use teredo_common::maps::ABI_VERSION;
use teredo_lab::{
    process::output,
    scene::{Scene, Topology},
    service::Service,
    teredo::{Config, binary},
    traffic::UdpReport,
    wait::wait_until,
};

use crate::world::{SOON, World, ensure_perfect, flow, is_in_order, stop};

/// Restarts the service five times while datagrams flow.
fn restarts(mode: &str) -> Result<()> {
    let mut world = World::new(mode)?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    for _ in 0..5 {
        world.service.restart(&world.scene.relay)?;
        flow(&streams, 200)?;
    }
    ensure_perfect(stop(streams)?, || world.report())
}

#[test]
fn a_restart_loses_nothing_on_the_fast_path() -> Result<()> {
    restarts("native")
}

#[test]
fn a_restart_loses_nothing_in_userspace() -> Result<()> {
    restarts("off")
}

/// A service manager that did not notice the end of the process that took over would kill it at once, with the packets
/// that it holds.
#[test]
fn a_service_manager_watches_a_process_that_took_over() -> Result<()> {
    let mut world = World::new("off")?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    for _ in 0..3 {
        let before = world.service.pid();
        world.service.signal(Signal::SIGUSR2)?;
        wait_until("another process runs", SOON, || {
            Ok(world.service.pid() != before)
        })?;
        ensure!(world.service.is_supervised(), "{}", world.service.log());
        world.service.is_watched()?;
        flow(&streams, 200)?;
        world.service.restart(&world.scene.relay)?;
        flow(&streams, 200)?;
    }
    ensure_perfect(stop(streams)?, || world.report())
}

/// A process that has read the configuration already when it changes again is not the last one.
#[test]
fn changes_while_a_process_starts_are_not_lost() -> Result<()> {
    let world = World::new("off")?;
    let file = world.service.file();
    let config = fs::read_to_string(file)?;
    let change = |peers: u64| {
        let changed = config.replace("[relay]\n", &format!("[relay]\nmax-peers = {peers}\n"));
        ensure!(changed != config, "{config}");
        fs::write(file, changed)?;
        world.service.signal(Signal::SIGHUP)
    };
    for wanted in [1_002, 1_004, 1_006] {
        let readers = Inotify::init(InitFlags::IN_NONBLOCK)?;
        readers.add_watch(file, AddWatchFlags::IN_CLOSE_NOWRITE)?;
        change(wanted - 1)?;
        wait_until("the next process has read the file", SOON, || {
            Ok(readers.read_events().is_ok())
        })?;
        change(wanted)?;
        wait_until("the last change is in force", SOON, || {
            // While one process follows another, nobody may answer.
            let status = world.service.status();
            Ok(status.is_ok_and(|status| status.peers.maximum == wanted))
        })
        .with_context(|| world.service.log())?;
    }
    Ok(())
}

/// A service manager sends signals to the process before until it has taken note of the next one.
#[test]
fn a_signal_to_a_process_that_was_replaced_is_not_lost() -> Result<()> {
    let world = World::new("off")?;
    let (service, file) = (&world.service, world.service.file());
    let config = fs::read_to_string(file)?;
    service.linger();
    let before = service.pid();
    service.signal(Signal::SIGUSR2)?;
    wait_until("another process has taken over", SOON, || {
        Ok(service.log().contains("has taken over"))
    })?;
    fs::write(
        file,
        config.replace("[relay]\n", "[relay]\nmax-peers = 1002\n"),
    )?;
    ensure!(service.pid() == before);
    service.signal(Signal::SIGHUP)?;
    service.follow();
    wait_until("the change is in force", SOON, || {
        let status = service.status();
        Ok(status.is_ok_and(|status| status.peers.maximum == 1_002))
    })
    .with_context(|| service.log())
}

/// What an operator has begun goes on in the next process, but for one that a restart makes.
#[test]
fn a_relay_that_drains_goes_on_draining_until_it_is_restarted() -> Result<()> {
    let mut world = World::new("off")?;
    let mut drain = Command::new(binary()?);
    output(drain.args(["drain", "--config"]).arg(world.service.file()))?;
    let drains =
        |world: &World| -> Result<bool> { Ok(world.service.status()?.draining == ["relay"]) };
    ensure!(drains(&world)?);
    let before = world.service.pid();
    world.service.signal(Signal::SIGUSR2)?;
    wait_until("another process runs", SOON, || {
        Ok(world.service.pid() != before)
    })?;
    ensure!(drains(&world)?, "after an upgrade");
    world.service.kill()?;
    world.service.begin(&world.scene.relay)?;
    ensure!(drains(&world)?, "after a crash");
    world.service.restart(&world.scene.relay)?;
    ensure!(!drains(&world)?, "after a restart");
    Ok(())
}

/// A relay that cannot start again must not attract packets that nobody serves.
#[test]
fn a_relay_that_cannot_start_again_is_not_announced() -> Result<()> {
    let mut world = World::new("native")?;
    let has_route = |world: &World| -> Result<bool> {
        let routes = world.scene.relay.ip("-6 route show table main 2001::/32")?;
        Ok(!routes.trim().is_empty())
    };
    ensure!(has_route(&world)?);
    let good = fs::read_to_string(world.service.file())?;
    for is_crash in [true, false] {
        fs::write(world.service.file(), "nonsense = true\n")?;
        match is_crash {
            true => world.service.kill()?,
            false => world.service.terminate()?,
        }
        ensure!(has_route(&world)?, "it may start in a moment");
        let started = world.service.begin(&world.scene.relay);
        ensure!(started.is_err(), "{}", world.service.log());
        // A child of this process that has not become another program yet may hold the interface for a moment.
        wait_until("the route goes", SOON, || Ok(!has_route(&world)?))
            .with_context(|| world.service.log())?;
        fs::write(world.service.file(), &good)?;
        world.service.begin(&world.scene.relay)?;
        ensure!(has_route(&world)?, "{}", world.service.log());
        let streams = world.streams()?;
        flow(&streams, 200)?;
        stop(streams)?;
    }
    Ok(())
}

/// Neither the packets of the program between two processes nor those of either process are lost to the accounts.
fn accounts(mode: &str) -> Result<()> {
    // Those of the client's own tests, which may be repeated.
    const OTHERS: u64 = 20;
    let mut world = World::new(mode)?;
    let known = |world: &World| -> Result<_> {
        let peers = world.service.peers()?.into_iter();
        let peer = peers.filter(|peer| peer.address == world.client.address());
        Ok(peer
            .filter_map(|peer| peer.packets)
            .map(|packets| [packets.encap, packets.decap])
            .next())
    };
    let before = known(&world)?.unwrap_or_default();
    let streams = world.streams()?;
    flow(&streams, 200)?;
    for _ in 0..3 {
        world.service.restart(&world.scene.relay)?;
        flow(&streams, 300)?;
    }
    let sent = stop(streams)?.map(|report| report.sent);
    let mut counted = [0; 2];
    wait_until("every packet is counted", SOON, || {
        let now = known(&world)?.unwrap_or_default();
        counted = [
            now[0].saturating_sub(before[0]),
            now[1].saturating_sub(before[1]),
        ];
        Ok(counted[0] >= sent[0] && counted[1] >= sent[1])
    })?;
    ensure!(
        (0..2).all(|index| counted[index] <= sent[index] + OTHERS),
        "{counted:?} of {sent:?}"
    );
    Ok(())
}

#[test]
fn restarts_keep_the_accounts_on_the_fast_path() -> Result<()> {
    accounts("native")
}

#[test]
fn restarts_keep_the_accounts_in_userspace() -> Result<()> {
    accounts("off")
}

/// The maps of another release have another layout: the peers come from the state.
#[test]
fn an_upgrade_to_another_layout_of_maps_loses_nothing() -> Result<()> {
    let mut world = World::new("native")?;
    let streams = world.streams()?;
    flow(&streams, 1500)?;
    for _ in 0..3 {
        world.service.terminate()?;
        world
            .service
            .rename(&format!("map.{ABI_VERSION}.PEERS"), "map.1.PEERS");
        world.service.begin(&world.scene.relay)?;
        flow(&streams, 1500)?;
    }
    ensure_perfect(stop(streams)?, || world.report())
}

/// Kills the service five times while datagrams flow, of which as many as `loss` may be lost.
fn crashes(mode: &str, loss: u64) -> Result<()> {
    let mut world = World::new(mode)?;
    let streams = world.streams()?;
    flow(&streams, 1500)?;
    for _ in 0..5 {
        world.service.kill()?;
        world.service.begin(&world.scene.relay)?;
        flow(&streams, 200)?;
    }
    let reports = stop(streams)?;
    let is_fine = |report: &UdpReport| report.sent - report.received <= loss && is_in_order(report);
    ensure!(
        reports.iter().all(is_fine),
        "{reports:?} {}",
        world.report()
    );
    Ok(())
}

#[test]
fn a_crash_loses_nothing_on_the_fast_path() -> Result<()> {
    crashes("native", 0)
}

/// The datagrams that the process holds at the moment of the crash are lost with it: mostly one, if any.
#[test]
fn a_crash_loses_what_the_process_holds_in_userspace() -> Result<()> {
    crashes("off", 5)
}

/// Longer than peers are trusted that say nothing: the fast path has heard them meanwhile.
#[test]
fn a_long_pause_loses_nothing_on_the_fast_path() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(40);
    let mut world = World::new("native")?;
    let streams = world.streams()?;
    flow(&streams, 1500)?;
    world.service.terminate()?;
    thread::sleep(PAUSE);
    world.service.begin(&world.scene.relay)?;
    flow(&streams, 3000)?;
    // The neighbours that only the program used may be unknown now, and packets take the kernel's way at first.
    let reports = stop(streams)?.map(|report| UdpReport {
        overtaken: 0,
        ..report
    });
    ensure_perfect(reports, || world.report())
}

#[test]
fn a_stop_leaves_nothing() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let before = scene.relay_state()?;
    let config: Config = scene.relay_config().set("relay.xdp.mode", "native");
    let mut service = Service::start(&scene.relay, &config)?;
    ensure!(
        scene.relay_state()? != before,
        "the state does not show the daemon"
    );
    service.restart(&scene.relay)?;
    service.stop()?;
    // A child of this process may hold a descriptor for a moment.
    wait_until("nothing is left", SOON, || {
        Ok(scene.relay_state()? == before)
    })
}
