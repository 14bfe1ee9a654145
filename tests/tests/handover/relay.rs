//! A relay that is restarted while traffic flows.

use anyhow::{Result, ensure};
use teredo_lab::{
    scene::{Scene, Topology},
    service::Service,
    teredo::{Config, Teredo},
};

use crate::world::{World, ensure_perfect, flow, stop};

/// Restarts the service five times while datagrams flow.
fn restarts(mode: &str) -> Result<()> {
    let mut world = World::new(mode)?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    for _ in 0..5 {
        world.service.restart(&world.scene.relay)?;
        flow(&streams, 200)?;
    }
    ensure_perfect(stop(streams)?, || {
        let client = world.client.teredo().map(Teredo::status);
        format!("{}\nthe client: {client:?}", world.service.log())
    })
}

#[test]
fn a_restart_loses_nothing_on_the_fast_path() -> Result<()> {
    restarts("native")
}

#[test]
fn a_restart_loses_nothing_in_userspace() -> Result<()> {
    restarts("off")
}

/// Kills the service five times while datagrams flow.
fn crashes(mode: &str) -> Result<World> {
    let mut world = World::new(mode)?;
    let streams = world.streams()?;
    flow(&streams, 1500)?;
    for _ in 0..5 {
        world.service.kill()?;
        world.service.begin(&world.scene.relay)?;
        flow(&streams, 200)?;
    }
    ensure_perfect(stop(streams)?, || world.service.log())?;
    Ok(world)
}

#[test]
fn a_crash_loses_nothing_on_the_fast_path() -> Result<()> {
    crashes("native").map(drop)
}

#[test]
fn a_crash_loses_nothing_in_userspace() -> Result<()> {
    crashes("off").map(drop)
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
    assert_eq!(scene.relay_state()?, before);
    Ok(())
}
