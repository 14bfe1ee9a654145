//! A client that is restarted while traffic flows.

use std::{fs, net::UdpSocket, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use teredo_lab::{
    Namespace,
    names::Names,
    nat::NatKind,
    scene::{SERVER, Scene, Topology},
    service::Service,
    teredo::client_address,
    traffic::{Ping, Tcp},
    wait::{wait_for, wait_until},
};

use crate::world::SOON;

/// The name of the server.
const NAME: &str = "teredo.test";
/// A name server at which questions end unanswered.
const SILENT: &str = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n";

struct World {
    service: Service,
    scene: Scene,
    /// The names that the client knows, if it knows its server by name.
    names: Option<Arc<Names>>,
    /// The name server's socket.
    _silent: Option<UdpSocket>,
}

impl World {
    fn new() -> Result<Self> {
        let scene = scene()?;
        let site = scene.site();
        let service = Service::start(&site.client, &scene.client_config(site.port))?;
        Ok(Self {
            service,
            scene,
            names: None,
            _silent: None,
        })
    }

    /// A client that has looked its server up, and cannot do that again.
    fn with_a_name() -> Result<Self> {
        let scene = scene()?;
        let site = scene.site();
        let silent = (site.client).run(|| UdpSocket::bind("127.0.0.1:53"))??;
        let names = Arc::new(Names::new()?);
        names.set_servers(SILENT)?;
        names.set(&format!("{SERVER} {NAME}\n"))?;
        let config = scene.client_config(site.port);
        let config = config.set("client.server", NAME);
        let service = Service::start_with(&site.client, &config, Some(Arc::clone(&names)))?;
        let world = Self {
            service,
            scene,
            names: Some(names),
            _silent: Some(silent),
        };
        world.address()?;
        world.forget_names()?;
        Ok(world)
    }

    /// Leaves the client alone with the name server.
    fn forget_names(&self) -> Result<()> {
        self.names.as_ref().context("it has none")?.set("")
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

/// A client behind a NAT.
fn scene() -> Result<Scene> {
    Scene::new(Topology {
        nat: NatKind::PortRestricted,
        ..Topology::default()
    })
}

/// Starts a service again after a crash.
fn crash(service: &mut Service, namespace: &Namespace) -> Result<()> {
    service.kill()?;
    service.begin(namespace)
}

/// Makes a service hand over to another process.
fn upgrade(service: &mut Service, _namespace: &Namespace) -> Result<()> {
    let before = service.pid();
    service.signal(Signal::SIGUSR2)?;
    wait_until("another process has taken over", SOON, || {
        Ok(service.pid() != before)
    })
}

/// Replaces the process of a client up to five times while a TCP connection transfers octets both ways. A
/// replacement that `loses` what the process holds may cost packets.
fn transfer(
    mut world: World,
    replace: fn(&mut Service, &Namespace) -> Result<()>,
    loses: bool,
) -> Result<()> {
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
                // Several seconds, on a fast machine too.
                .pause(Duration::from_millis(5))
                .between(&site.client, &host.namespace)
        });
        let mut restarts = 0;
        while !tcp.is_finished() && restarts < 5 {
            replace(service, &site.client)?;
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
    transfer(World::new()?, Service::restart, false)
}

#[test]
fn a_crash_does_not_disturb_a_transfer() -> Result<()> {
    transfer(World::new()?, crash, true)
}

#[test]
fn a_client_whose_server_has_a_name_outlives_a_restart() -> Result<()> {
    transfer(World::with_a_name()?, Service::restart, false)
}

#[test]
fn a_client_whose_server_has_a_name_outlives_an_upgrade() -> Result<()> {
    transfer(World::with_a_name()?, upgrade, false)
}

#[test]
fn a_client_whose_server_has_a_name_outlives_a_crash() -> Result<()> {
    transfer(World::with_a_name()?, crash, true)
}

/// Another server is another address, and the log says why.
#[test]
fn a_client_whose_server_is_taken_away_begins_anew() -> Result<()> {
    let mut world = World::with_a_name()?;
    let file = world.service.file().to_owned();
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace(NAME, "20.0.0.9"))?;
    world.service.restart(&world.scene.site().client)?;
    let log = world.service.log();
    let expected = format!("it used the server {SERVER}:3544, which is not configured");
    ensure!(log.contains(&expected), "{log}");
    Ok(())
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
