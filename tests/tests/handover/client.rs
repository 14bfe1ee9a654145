//! A client that is restarted while traffic flows.

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    nat::NatKind,
    scene::{Scene, Topology},
    service::Service,
    teredo::client_address,
    traffic::{Ping, Tcp},
    wait::{wait_for, wait_until},
};

use crate::world::SOON;

struct World {
    service: Service,
    scene: Scene,
}

impl World {
    fn new() -> Result<Self> {
        let scene = Scene::new(Topology {
            nat: NatKind::PortRestricted,
            ..Topology::default()
        })?;
        let site = scene.site();
        let service = Service::start(&site.client, &scene.client_config(site.port))?;
        Ok(Self { service, scene })
    }

    fn address(&self) -> Result<std::net::Ipv6Addr> {
        let client = &self.scene.site().client;
        wait_for("the client is qualified", SOON, || {
            Ok(client_address(client))
        })
        .with_context(|| self.service.log())
    }

    /// The solicitations that the server has answered.
    fn advertised(&self) -> Result<u64> {
        let server = self
            .scene
            .server
            .as_ref()
            .and_then(|server| server.teredo());
        let answered = server.context("the server is ours")?.advertised()?;
        Ok(answered.xdp + answered.userspace)
    }
}

/// Ends a client up to five times while a TCP connection transfers octets both ways. An end that `loses` what the
/// process holds may cost packets.
fn transfer(end: fn(&mut Service) -> Result<()>, loses: bool) -> Result<()> {
    let mut world = World::new()?;
    let address = world.address()?;
    let relay = world.scene.start_relay(&world.scene.relay_config())?;
    let (site, host) = (world.scene.site(), world.scene.host());
    Ping::to(host.address).all_from(&site.client)?;
    let asked = world.advertised()?;
    let service = &mut world.service;
    let moved = std::thread::scope(|scope| {
        let tcp = scope.spawn(|| {
            Tcp::to(host.address)
                .upload(80_000_000)
                .download(80_000_000)
                .between(&site.client, &host.namespace)
        });
        let mut restarts = 0;
        while !tcp.is_finished() && restarts < 5 {
            end(service)?;
            service.begin(&site.client)?;
            ensure!(
                client_address(&site.client) == Some(address),
                "another address"
            );
            restarts += 1;
            let ping = Ping::to(host.address);
            let answered = || Ok(ping.all_from(&site.client).is_ok());
            match loses {
                true => wait_until("an echo reply comes", SOON, answered)?,
                false => ping.all_from(&site.client)?,
            }
        }
        ensure!(restarts > 2, "the transfer was too short");
        tcp.join().expect("the transfer does not panic")?;
        Ok(restarts)
    });
    let restarts = moved.with_context(|| world.service.log())?;
    // Each qualification would take two; maintenance and the measurement of its interval take a few.
    let asked = world.advertised()? - asked;
    ensure!(asked < 2 * restarts, "the server was asked {asked} times");
    drop(relay);
    Ok(())
}

#[test]
fn a_restart_does_not_disturb_a_transfer() -> Result<()> {
    transfer(Service::terminate, false)
}

#[test]
fn a_crash_does_not_disturb_a_transfer() -> Result<()> {
    transfer(Service::kill, true)
}

#[test]
fn qualification_goes_on() -> Result<()> {
    let mut world = World::new()?;
    // At any moment of it.
    for _ in 0..3 {
        world.service.restart(&world.scene.site().client)?;
    }
    world.address()?;
    let asked = world.advertised()?;
    ensure!(asked <= 4, "the server was asked {asked} times");
    Ok(())
}

#[test]
fn a_stop_leaves_nothing() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let site = scene.site();
    let before = scene.state_of(&site.client)?;
    let mut service = Service::start(&site.client, &scene.client_config(site.port))?;
    wait_for("the client is qualified", SOON, || {
        Ok(client_address(&site.client))
    })?;
    service.restart(&site.client)?;
    service.stop()?;
    wait_until("nothing is left", SOON, || {
        Ok(scene.state_of(&site.client)? == before)
    })
}
