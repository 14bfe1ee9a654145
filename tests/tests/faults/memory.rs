//! A kernel without memory for BPF maps.

use anyhow::{Context as _, Result, ensure};
use teredo_faults::refusal::MapMemory;
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    scene::{Client, Maker},
    teredo::Config,
    traffic::Ping,
    wait_until,
};

use super::PATIENCE;

/// Starts a relay whose maps depend on `memory`.
fn start(namespace: &Namespace, config: &Config, memory: &mut MapMemory) -> Result<Teredo> {
    let relay = Teredo::start_prepared(namespace, config, |command| memory.rule(command))?;
    memory.answer()?;
    Ok(relay)
}

fn modes(relay: &Teredo) -> Result<Vec<String>> {
    let xdp = relay.status()?.xdp;
    Ok(xdp.iter().map(|one| one.mode.name().to_owned()).collect())
}

/// Waits until the fast path is attached everywhere, after the next attempt.
fn has_fast_path(relay: &Teredo) -> Result<()> {
    let waited = wait_until("the fast path is there", PATIENCE, || {
        Ok(modes(relay)? == ["native", "native"] && relay.status()?.conditions.is_empty())
    });
    waited.with_context(|| format!("{:?}\n{}", relay.status(), relay.daemon.log()))
}

fn all_arrive(scene: &Scene, client: &Client) -> Result<()> {
    Ping::to(client.address())
        .count(5)
        .all_from(&scene.host().namespace)
}

#[test]
fn a_relay_without_memory_for_maps_serves_on_and_says_why() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let mut memory = MapMemory::new(true)?;
    let mut relay = start(&scene.relay, &scene.relay_config(), &mut memory)?;
    relay.ready()?;
    ensure!(memory.refused() > 0, "it needs maps");
    let client = scene.start_client_of(Maker::Teredo, scene.site())?;
    let is_said = || {
        let conditions = relay.status()?.conditions;
        let mut reasons = conditions.iter();
        Ok(reasons.any(|one| one.kind == "fast-path-off" && one.text.contains("no memory")))
    };
    wait_until("it says why", PATIENCE, is_said)?;
    ensure!(modes(&relay)? == ["off", "off"]);
    all_arrive(&scene, &client)?;

    memory.exhaust(false);
    has_fast_path(&relay)?;
    scene.check_fast_path(&relay, &client)?;

    // Its place on the host changes, so it is loaded anew.
    memory.exhaust(true);
    scene.relay.ip("link del teredo")?;
    wait_until("it says why", PATIENCE, is_said)?;
    wait_until("the prefix is routed", PATIENCE, || {
        let routes = scene.relay.ip("-6 route show 2001::/32")?;
        Ok(routes.contains("dev teredo"))
    })?;
    all_arrive(&scene, &client)?;
    memory.exhaust(false);
    has_fast_path(&relay)?;
    scene.check_fast_path(&relay, &client)
}

#[test]
fn a_relay_that_must_have_its_fast_path_ends_with_a_sentence() -> Result<()> {
    let scene = Scene::new(Topology {
        server: None,
        ..Topology::default()
    })?;
    let before = scene.relay_state()?;
    let config = scene.relay_config().set("relay.xdp.mode", "native");
    let mut memory = MapMemory::new(true)?;
    let mut relay = start(&scene.relay, &config, &mut memory)?;
    let status = relay.daemon.wait(PATIENCE)?;
    let told = relay.daemon.log();
    ensure!(status.code() == Some(1), "{status}: {told}");
    let last = told.lines().last().unwrap_or_default();
    ensure!(
        last.starts_with("teredo: ") && last.contains("no memory"),
        "{told}"
    );
    ensure!(scene.relay_state()? == before, "it left something");
    Ok(())
}
