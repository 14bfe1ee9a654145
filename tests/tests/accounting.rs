//! The traffic of each peer: as a relay and a client count it on both paths, and as a collector receives it.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv6Addr, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netflow_parser::{
    NetflowPacket, NetflowParser,
    variable_versions::{field_value::FieldValue, ipfix::FlowSetBody},
};
use serde_json::Value;
use teredo::api::types::{Count, Peer};
use teredo_lab::{
    Namespace, Scene, Teredo, Topology,
    process::{Daemon, output, wait_for_udp_port},
    scene::{Client, RELAY},
    teredo::{Config, binary},
    traffic::Ping,
    wait_until,
};

const SOON: Duration = Duration::from_secs(20);
/// Octets of an echo request of `Ping` beside its payload: IPv6 and ICMPv6.
const HEADERS: u64 = 48;
const PAYLOAD: u16 = 100;

/// A relay with a client that is trusted and proved.
struct World {
    relay: Teredo,
    client: Client,
    scene: Scene,
}

impl World {
    fn new(mode: &str) -> Result<Self> {
        let scene = Scene::new(Topology::default())?;
        Self::within(scene, mode, |config| config)
    }

    fn within(scene: Scene, mode: &str, change: impl FnOnce(Config) -> Config) -> Result<Self> {
        let site = scene.site();
        let client = scene.start_client(&site.client, &scene.client_config(site.port))?;
        let config = scene.relay_config().set("relay.xdp.mode", mode);
        let relay = scene.start_relay(&change(config))?;
        let host = scene.host();
        Ping::to(client.address()).all_from(&host.namespace)?;
        Ping::to(host.address).all_from(&site.client)?;
        wait_until("the client is where it belongs", SOON, || {
            let peer = relay.peer(client.address())?;
            Ok(peer.is_some_and(|peer| peer.proved && peer.xdp == (mode != "off")))
        })?;
        Ok(Self {
            relay,
            client,
            scene,
        })
    }

    fn peer(&self) -> Result<Peer> {
        let peer = self.relay.peer(self.client.address())?;
        peer.context("the client is a peer")
    }

    /// Sends as many pings from the host and their answers back.
    fn ping(&self, count: u32) -> Result<()> {
        Ping::to(self.client.address())
            .count(count)
            .packet_size(PAYLOAD + HEADERS as u16)
            .all_from(&self.scene.host().namespace)
    }

    /// The packets that the relay has forwarded altogether, on both paths.
    fn forwarded(&self) -> Result<[u64; 2]> {
        let packets = self.relay.status()?.packets;
        Ok([packets.encap, packets.decap].map(|paths| paths.xdp + paths.userspace))
    }
}

fn packets(peer: &Peer) -> Count {
    peer.packets.unwrap_or_default()
}

fn octets(peer: &Peer) -> Count {
    peer.bytes.unwrap_or_default()
}

fn counts(mode: &str) -> Result<()> {
    const COUNT: u32 = 137;
    let world = World::new(mode)?;
    // All that there was before arrives within a second.
    let agree = |peer: &Peer| -> Result<bool> {
        Ok([packets(peer).encap, packets(peer).decap] == world.forwarded()?)
    };
    wait_until("the peer's counts are those of the relay", SOON, || {
        agree(&world.peer()?)
    })?;
    let before = world.peer()?;
    world.ping(COUNT)?;
    let count = u64::from(COUNT);
    wait_until("all packets are counted", SOON, || {
        let peer = world.peer()?;
        Ok(packets(&peer).encap >= packets(&before).encap + count
            && packets(&peer).decap >= packets(&before).decap + count
            && agree(&peer)?)
    })?;
    let peer = world.peer()?;
    for (packets, octets) in [
        (
            packets(&peer).encap - packets(&before).encap,
            octets(&peer).encap - octets(&before).encap,
        ),
        (
            packets(&peer).decap - packets(&before).decap,
            octets(&peer).decap - octets(&before).decap,
        ),
    ] {
        ensure!(packets == count, "{packets} of {count}: {peer:?}");
        let expected = count * (u64::from(PAYLOAD) + HEADERS);
        ensure!(octets == expected, "{octets} of {expected}: {peer:?}");
    }
    // The client counts the same packets for the native host.
    let client = world.client.teredo().context("ours")?;
    let host = world.scene.host().address;
    let there = client.peer(host)?.context("the host is a peer")?;
    ensure!(
        packets(&there).decap >= count && packets(&there).encap >= count,
        "{there:?}"
    );
    Ok(())
}

#[test]
fn every_packet_is_counted_for_its_peer_on_the_fast_path() -> Result<()> {
    counts("native")
}

#[test]
fn every_packet_is_counted_for_its_peer_in_userspace() -> Result<()> {
    counts("off")
}

/// A collector, which adds up the packets of each peer.
struct Collector {
    socket: UdpSocket,
    parser: NetflowParser,
    sums: BTreeMap<Ipv6Addr, [u64; 4]>,
}

impl Collector {
    fn open(scene: &Scene) -> Result<Self> {
        let socket = scene.relay.run(|| UdpSocket::bind((*RELAY.ip(), 0)))??;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            parser: NetflowParser::default(),
            sums: BTreeMap::new(),
        })
    }

    /// Adds what has arrived.
    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let result = self.parser.parse_bytes(&buffer[..length]);
            ensure!(result.error.is_none(), "{:?}", result.error);
            for packet in &result.packets {
                let NetflowPacket::IPFix(message) = packet else {
                    anyhow::bail!("{packet:?}");
                };
                ensure!(message.header.observation_domain_id == 9);
                for set in &message.flowsets {
                    if let FlowSetBody::Data(data) = &set.body {
                        for record in &data.fields {
                            self.add(
                                record
                                    .iter()
                                    .map(|(name, value)| (format!("{name:?}"), value)),
                            )?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn add<'a>(&mut self, fields: impl Iterator<Item = (String, &'a FieldValue)>) -> Result<()> {
        let (mut peer, mut towards, mut counts) = (None, 0, [0; 2]);
        for (name, value) in fields {
            let name = name.to_lowercase();
            let number = || match value {
                FieldValue::DataNumber(number) => u64::try_from(number).ok(),
                _ => None,
            };
            if name.contains("postna") {
                continue;
            }
            if name.contains("ipv6address") {
                let address = IpAddr::try_from(value).ok();
                peer = address;
                towards = usize::from(name.contains("source"));
            } else if name.contains("packetdelta") {
                counts[0] = number().context("a number")?;
            } else if name.contains("octetdelta") {
                counts[1] = number().context("a number")?;
            }
        }
        let Some(IpAddr::V6(peer)) = peer else {
            anyhow::bail!("a record without a peer");
        };
        let sums = self.sums.entry(peer).or_default();
        for (sum, count) in sums[2 * towards..].iter_mut().zip(counts) {
            *sum += count;
        }
        Ok(())
    }
}

/// The counts of a peer as [`Collector`] has them.
fn of(peer: &Peer) -> [u64; 4] {
    [
        packets(peer).encap,
        octets(peer).encap,
        packets(peer).decap,
        octets(peer).decap,
    ]
}

#[test]
fn a_collector_gets_every_packet_also_of_a_relay_that_is_replaced() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let mut collector = Collector::open(&scene)?;
    let address = collector.socket.local_addr()?.to_string();
    let world = World::within(scene, "native", |config| {
        config
            .set("node.ipfix.collector", address)
            .set("node.ipfix.interval", 1)
            .set("node.ipfix.observation-domain", 9)
    })?;
    for round in 0..2 {
        world.ping(50)?;
        wait_until("the collector knows every packet", SOON, || {
            collector.receive()?;
            let sums = collector.sums.get(&world.client.address());
            let peer = world.peer()?;
            Ok(sums == Some(&of(&peer)) && packets(&peer).encap >= 50 * (round + 1))
        })?;
        if round == 0 {
            // Packets of the last second are not counted yet.
            world.ping(20)?;
            let mut upgrade = Command::new(binary()?);
            let upgrade = upgrade
                .arg("upgrade")
                .arg("--config")
                .arg(world.relay.file());
            output(upgrade)?;
        }
    }
    Ok(())
}

/// The collector of nfdump.
struct Nfcapd(Daemon);

impl Nfcapd {
    const PORT: u16 = 4739;

    /// Starts it at the relay's address.
    fn start(namespace: &Namespace) -> Result<Self> {
        let directory = Daemon::directory("nfcapd")?;
        let flows = directory.path().join("flows");
        fs::create_dir(&flows)?;
        let mut command = namespace.command("nfcapd")?;
        command.arg("-w").arg(flows);
        command.arg("-b").arg(RELAY.ip().to_string());
        command.arg("-p").arg(Self::PORT.to_string());
        let nfcapd = Self(Daemon::start("nfcapd", command, directory)?);
        namespace.run(|| wait_for_udp_port(Self::PORT, SOON))??;
        Ok(nfcapd)
    }

    fn flows(&self) -> PathBuf {
        self.0.path().join("flows")
    }

    /// Whether it waits for messages, and none waits for it.
    fn is_idle(&self, namespace: &Namespace) -> Result<bool> {
        let table = namespace.run(|| fs::read_to_string("/proc/thread-self/net/udp"))??;
        let port = format!(":{:04X}", Self::PORT);
        let sockets = table.lines().map(|line| line.split_whitespace());
        let mut queues = sockets.filter_map(|mut words| {
            let is_it = words.nth(1)?.ends_with(&port);
            // The state is between the addresses and the queues.
            words.nth(2).filter(|_| is_it)
        });
        let queues = queues.next().context("it has a socket")?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.pid()))?;
        Ok(queues.ends_with(":00000000") && status.contains("State:\tS"))
    }

    /// Ends it when it has taken everything, and returns the flows as nfdump reads them.
    fn end(&mut self, namespace: &Namespace) -> Result<Vec<Value>> {
        wait_until("nfcapd has taken everything", SOON, || {
            self.is_idle(namespace)
        })?;
        let status = self.0.terminate()?;
        ensure!(status.success(), "{status}");
        let mut nfdump = Command::new("nfdump");
        let text = output(nfdump.arg("-R").arg(self.flows()).args(["-o", "json"]))?;
        serde_json::from_str(&text).with_context(|| text)
    }
}

#[test]
fn nfdump_reads_what_the_relay_says_of_its_peers() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let mut nfcapd = Nfcapd::start(&scene.relay)?;
    let mut world = World::within(scene, "native", |config| {
        let collector = format!("{}:{}", RELAY.ip(), Nfcapd::PORT);
        config
            .set("node.ipfix.collector", collector)
            .set("node.ipfix.interval", 1)
    })?;
    for round in 1..=2 {
        world.ping(50)?;
        wait_until("the peer's counts are those of the relay", SOON, || {
            let counts = packets(&world.peer()?);
            let forwarded = world.forwarded()?;
            Ok([counts.encap, counts.decap] == forwarded && counts.encap >= 50 * round)
        })?;
    }
    let peer = world.peer()?;
    // The rest leaves with the end of the relay.
    world.relay.daemon.terminate()?;
    let flows = nfcapd.end(&world.scene.relay)?;
    let mut sums = [0; 4];
    for flow in &flows {
        let towards = flow["direction"] == 1;
        let [address, other, ip, port] = match towards {
            true => ["dst6_addr", "src6_addr", "dst4_xlt_ip", "dst_xlt_port"],
            false => ["src6_addr", "dst6_addr", "src4_xlt_ip", "src_xlt_port"],
        };
        let text = |name: &str| flow[name].to_string().trim_matches('"').to_owned();
        ensure!(text(address).parse::<Ipv6Addr>()? == peer.address, "{flow}");
        ensure!(text(other) == "::", "{flow}");
        let mapped = format!("{}:{}", text(ip), text(port));
        ensure!(mapped == peer.mapped.to_string(), "{flow}");
        let place = if towards { 0 } else { 2 };
        for (sum, name) in sums[place..].iter_mut().zip(["in_packets", "in_bytes"]) {
            *sum += flow[name].as_u64().context("a number")?;
        }
    }
    ensure!(sums == of(&peer), "{sums:?}: {peer:?}, {flows:?}");
    ensure!(flows.len() > 2, "{flows:?}");
    let log = nfcapd.0.log();
    let verdict = "Sequence Errors: 0, Bad Packets: 0";
    ensure!(log.contains(verdict), "{log}");
    Ok(())
}

#[test]
fn nothing_is_counted_without_accounting() -> Result<()> {
    for mode in ["native", "off"] {
        let scene = Scene::new(Topology::default())?;
        let world = World::within(scene, mode, |config| config.set("relay.accounting", false))?;
        world.ping(3)?;
        let peer = world.peer()?;
        ensure!(peer.packets.is_none() && peer.bytes.is_none(), "{peer:?}");
    }
    Ok(())
}
