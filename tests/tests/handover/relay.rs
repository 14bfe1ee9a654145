//! A relay that is restarted while traffic flows.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use teredo_lab::{
    scene::{Client, Scene, Topology},
    service::Service,
    teredo::{Config, Teredo},
    traffic::{Ping, UdpReport, UdpStream},
    wait::wait_until,
};

/// Longest time until traffic flows.
const SOON: Duration = Duration::from_secs(20);
/// The time between two datagrams of a stream.
const INTERVAL: Duration = Duration::from_millis(1);

/// A relay under the service manager, with one client whose peer it is.
struct World {
    service: Service,
    client: Client,
    scene: Scene,
}

impl World {
    fn new(mode: &str) -> Result<Self> {
        let scene = Scene::new(Topology::default())?;
        let site = scene.site();
        let client = scene.start_client(&site.client, &scene.client_config(site.port))?;
        let config = scene.relay_config().set("relay.xdp.mode", mode);
        let service = Service::start(&scene.relay, &config)?;
        let host = scene.host();
        Ping::to(client.address()).all_from(&host.namespace)?;
        Ping::to(host.address).all_from(&site.client)?;
        Ok(Self {
            service,
            client,
            scene,
        })
    }

    fn streams(&self) -> Result<[UdpStream; 2]> {
        let (site, host) = (self.scene.site(), self.scene.host());
        let start = |from, to, address| UdpStream::start(from, to, address, 200, INTERVAL);
        Ok([
            start(&host.namespace, &site.client, self.client.address().into())?,
            start(&site.client, &host.namespace, host.address.into())?,
        ])
    }
}

/// Waits until both streams have gone on by this many datagrams.
fn flow(streams: &[UdpStream; 2], datagrams: u64) -> Result<()> {
    let before = streams.each_ref().map(UdpStream::received);
    wait_until("both streams flow", SOON, || {
        Ok((0..2).all(|index| streams[index].received() >= before[index] + datagrams))
    })
}

fn stop(streams: [UdpStream; 2]) -> Result<[UdpReport; 2]> {
    let [first, second] = streams;
    Ok([first.stop()?, second.stop()?])
}

fn ensure_perfect(reports: [UdpReport; 2], log: impl FnOnce() -> String) -> Result<()> {
    let is_perfect = |report: &UdpReport| {
        report.sent == report.received && report.repeated == 0 && report.overtaken == 0
    };
    if !reports.iter().all(is_perfect) {
        return Err(anyhow::anyhow!("{reports:?}")).with_context(log);
    }
    Ok(())
}

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
