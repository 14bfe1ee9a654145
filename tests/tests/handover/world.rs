//! A relay under a service manager, with traffic.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result};
use teredo_lab::{
    Namespace,
    scene::{Client, Scene, Topology},
    service::Service,
    teredo::Teredo,
    traffic::{Ping, UdpReport, UdpStream},
    wait::wait_until,
};

/// Longest time until traffic flows.
pub const SOON: Duration = Duration::from_secs(20);
/// The time between two datagrams of a stream.
const INTERVAL: Duration = Duration::from_millis(1);

/// A relay under the service manager, with one client whose peer it is.
pub struct World {
    pub service: Service,
    pub client: Client,
    pub scene: Scene,
}

impl World {
    pub fn new(mode: &str) -> Result<Self> {
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

    pub fn streams(&self) -> Result<[UdpStream; 2]> {
        streams(&self.scene, &self.client)
    }

    /// The relay's log, what relay and client have done with their packets, and what the kernel had no room for.
    pub fn report(&self) -> String {
        let dropped = dropped_by(self.client.teredo());
        let status = self.service.status();
        let relay = status.map(|status| {
            let both = status.dropped.into_iter().chain(status.passed);
            let others = both.filter(|(_, packets)| *packets > 0);
            (status.packets, others.collect::<Vec<_>>())
        });
        let site = self.scene.site();
        let full = [
            &self.scene.relay,
            &site.client,
            &self.scene.host().namespace,
        ]
        .map(overflows);
        let log = self.service.log();
        format!("{log}\nrelay: {relay:?}\nclient: {dropped:?}\nno room: {full:?}")
    }
}

/// The packets for which sockets and interfaces of a namespace had no room.
fn overflows(namespace: &Namespace) -> Result<String> {
    let script =
        "grep -h RcvbufErrors /proc/net/snmp6; awk '/^Udp: [0-9]/ { print $6 }' /proc/net/snmp
        awk '{ print $1, $5, $13 }' /proc/net/dev | tail -n +3";
    let text = namespace.output(Command::new("sh").args(["-c", script]))?;
    Ok(text.lines().collect::<Vec<_>>().join(", "))
}

/// Starts a stream in each direction, between the host and a client.
pub fn streams(scene: &Scene, client: &Client) -> Result<[UdpStream; 2]> {
    let (site, host) = (scene.site(), scene.host());
    let start = |from, to, address| UdpStream::start(from, to, address, 200, INTERVAL);
    Ok([
        start(&host.namespace, &site.client, client.address().into())?,
        start(&site.client, &host.namespace, host.address.into())?,
    ])
}

/// The packets that a daemon has dropped, by reason.
pub fn dropped_by(teredo: Option<&Teredo>) -> Option<Vec<(String, u64)>> {
    let dropped = teredo?.status().ok()?.dropped.into_iter();
    Some(dropped.filter(|(_, packets)| *packets > 0).collect())
}

/// Waits until both streams have gone on by this many datagrams.
pub fn flow(streams: &[UdpStream; 2], datagrams: u64) -> Result<()> {
    let before = streams.each_ref().map(UdpStream::received);
    wait_until("both streams flow", SOON, || {
        Ok((0..2).all(|index| streams[index].received() >= before[index] + datagrams))
    })
}

pub fn stop(streams: [UdpStream; 2]) -> Result<[UdpReport; 2]> {
    let [first, second] = streams;
    Ok([first.stop()?, second.stop()?])
}

/// Whether no datagram came twice or after a later one.
pub fn is_in_order(report: &UdpReport) -> bool {
    report.repeated == 0 && report.overtaken == 0
}

pub fn ensure_perfect(reports: [UdpReport; 2], log: impl FnOnce() -> String) -> Result<()> {
    let lost: u64 = (reports.iter())
        .map(|report| report.sent - report.received)
        .sum();
    if lost > 0 || !reports.iter().all(is_in_order) {
        return Err(anyhow::anyhow!("{reports:?}")).with_context(log);
    }
    Ok(())
}
