//! The node with everything that it joins, in the test's own process.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};
use teredo::{
    api::Handle,
    config::Config,
    metrics::{Path as Way, Snapshot},
    node::Node,
};
use teredo_common::{maps, verdict::Direction};
use teredo_tests::lab::{
    Namespace, Scene, Topology,
    peers::{Conversation, Peers, teredo_address},
    scene::{RELAY, SERVER},
    wait_for, wait_until,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the node compares the fast path's peers with the relay's.
const SWEEP: Duration = Duration::from_secs(1);
const PEERS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);

/// A node that runs on a thread of its own.
struct Running {
    handle: Handle,
    shutdown: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
    runtime: Runtime,
}

impl Running {
    fn start(namespace: &Namespace, text: &str) -> Result<Self> {
        let config = Config::parse(text, Path::new("test"))?;
        let (shutdown, stopped) = oneshot::channel();
        let (started, handle) = std::sync::mpsc::channel();
        let thread = namespace.spawn(move || {
            runtime()?.block_on(async {
                let node = Node::start(config).await?;
                started.send(node.handle())?;
                node.run(async {
                    let _ = stopped.await;
                })
                .await
            })
        })?;
        match handle.recv() {
            Ok(handle) => Ok(Self {
                handle,
                shutdown,
                thread,
                runtime: runtime()?,
            }),
            Err(_) => Err(join(thread)
                .err()
                .context("it ended, and not for an error")?),
        }
    }

    fn numbers(&self) -> Result<Snapshot> {
        Ok(self.runtime.block_on(self.handle.numbers())?)
    }

    fn stop(self) -> Result<()> {
        let _ = self.shutdown.send(());
        join(self.thread)
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The configuration of a relay in the scene, with more lines for `[relay]` and `[relay.xdp]`.
fn config(scene: &Scene, relay: &str, xdp: &str) -> String {
    let interfaces = if xdp.contains("interfaces") {
        String::new()
    } else {
        format!("interfaces = {:?}", scene.relay_interfaces())
    };
    format!(
        "[node]\nname = \"{}\"\napi = []\n[relay]\nipv4 = \"{}\"\nipv4-scope = \"lab\"\n{relay}\n\
         [relay.xdp]\n{interfaces}\n{xdp}\n",
        scene.relay.name(),
        RELAY.ip()
    )
}

fn scene() -> Result<Scene> {
    Scene::new(Topology {
        clients: 0,
        ..Topology::default()
    })
}

/// Every peer talks with the host in both directions; returns what the node counted.
fn talk(scene: &Scene, node: &Running, count: u16, rounds: u64) -> Result<Snapshot> {
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, count)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    for _ in 0..rounds {
        conversation.exchange(RELAY)?;
    }
    let numbers = node.numbers()?;
    ensure!(numbers.peers_trusted == u64::from(count), "{numbers:?}");
    let page = node.runtime.block_on(node.handle.peers(0))?;
    ensure!(page.peers.len() == usize::from(count) && page.next.is_none());
    ensure!(
        page.peers
            .iter()
            .all(|peer| peer.xdp != numbers.xdp.is_empty())
    );
    Ok(numbers)
}

#[test]
fn userspace_alone_relays_both_ways() -> Result<()> {
    let scene = scene()?;
    let before = scene.relay_state()?;
    let node = Running::start(&scene.relay, &config(&scene, "", "mode = \"off\""))?;
    let numbers = talk(&scene, &node, 100, 3)?;
    ensure!(numbers.xdp.is_empty());
    for direction in [Direction::Encap, Direction::Decap] {
        ensure!(numbers.traffic(direction, Way::Xdp).packets == 0);
        ensure!(numbers.traffic(direction, Way::Userspace).packets >= 300);
    }
    node.stop()?;
    ensure!(scene.relay_state()? == before);
    Ok(())
}

#[test]
fn trusted_peers_go_through_the_fast_path() -> Result<()> {
    let scene = scene()?;
    let before = scene.relay_state()?;
    let config = config(&scene, "", "mode = \"native\"");
    let node = Running::start(&scene.relay, &config)?;
    let numbers = talk(&scene, &node, 100, 3)?;
    ensure!(
        numbers.xdp.len() == 2 && numbers.xdp_refused == 0,
        "{numbers:?}"
    );
    for direction in [Direction::Encap, Direction::Decap] {
        let (fast, slow) = (
            numbers.traffic(direction, Way::Xdp).packets,
            numbers.traffic(direction, Way::Userspace).packets,
        );
        // The first packets of each peer wait for a bubble, or for a neighbour to be resolved.
        ensure!(
            fast >= 250 && slow <= 150,
            "{direction:?}: {fast} fast, {slow} slow"
        );
    }
    node.stop()?;
    ensure!(scene.relay_state()? == before);
    Ok(())
}

/// What the fast path of the scene's relay knows.
type PeerMap = HashMap<MapData, [u8; 16], maps::Peer>;

fn peer_map(scene: &Scene) -> Result<PeerMap> {
    let name = scene.relay.name();
    let path = format!(
        "/sys/fs/bpf/teredo/{name}/v{}/{}",
        maps::ABI_VERSION,
        maps::PEERS
    );
    Ok(HashMap::try_from(Map::HashMap(MapData::from_pin(path)?))?)
}

/// Waits until the map has these peers and no other.
fn wait_for_peers(map: &PeerMap, peers: &Peers) -> Result<()> {
    let expected: BTreeSet<_> = (0..peers.len())
        .map(|index| peers.address(index).octets())
        .collect();
    // Once a second they are compared.
    wait_until("the map has the relay's peers", 2 * SWEEP, || {
        let found = map.keys().collect::<Result<BTreeSet<_>, _>>();
        // A key that goes while they are listed starts the list again.
        Ok(found.is_ok_and(|found| found == expected))
    })
}

/// An address that the relay knows nothing of.
fn stranger(number: u16) -> [u8; 16] {
    let mapped = SocketAddrV4::new(Ipv4Addr::new(20, 9, 9, 9), number);
    teredo_address(SERVER, mapped).octets()
}

#[test]
fn the_fast_path_agrees_with_the_relay_again_whatever_happened_to_its_map() -> Result<()> {
    let scene = scene()?;
    let text = config(&scene, "", "mode = \"native\"");
    let node = Running::start(&scene.relay, &text)?;
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, 10)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    let mut map = peer_map(&scene)?;
    wait_for_peers(&map, &peers)?;

    for index in [0, 7] {
        map.remove(&peers.address(index).octets())?;
    }
    wait_for_peers(&map, &peers)?;
    for number in 1..20 {
        let trusted = maps::Peer {
            flags: maps::Peer::TRUSTED,
            ..maps::Peer::default()
        };
        map.insert(stranger(number), trusted, 0)?;
    }
    wait_for_peers(&map, &peers)?;
    conversation.exchange(RELAY)?;
    node.stop()
}

#[test]
fn a_full_map_loses_no_traffic() -> Result<()> {
    const ROOM: u16 = 128;
    let scene = scene()?;
    let text = config(&scene, &format!("max-peers = {ROOM}"), "mode = \"native\"");
    let node = Running::start(&scene.relay, &text)?;
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, 8)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    let map = Mutex::new(peer_map(&scene)?);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Takes every place that there is, again and again.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for number in 1..=ROOM {
                    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = map.insert(stranger(number), maps::Peer::default(), 0);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let result = conversation
            .open(RELAY)
            .and_then(|()| conversation.exchange(RELAY));
        is_over.store(true, Ordering::Relaxed);
        result
    })?;
    let numbers = node.numbers()?;
    ensure!(numbers.xdp_refused > 0, "{numbers:?}");
    let map = map.into_inner().unwrap_or_else(PoisonError::into_inner);
    wait_for_peers(&map, &peers)?;
    conversation.exchange(RELAY)?;
    node.stop()
}

#[test]
fn the_route_is_held_only_while_the_address_is_there() -> Result<()> {
    let scene = scene()?;
    let node = Running::start(&scene.relay, &config(&scene, "", "mode = \"off\""))?;
    let has_route = || Ok(!scene.relay.ip("-6 route show 2001::/32")?.is_empty());
    ensure!(has_route()?);
    let address = format!("{}/16 dev {}", RELAY.ip(), scene.relay_interfaces()[0]);
    scene.relay.ip(&format!("addr del {address}"))?;
    wait_until("the route is withdrawn", TIMEOUT, || Ok(!has_route()?))?;
    scene.relay.ip(&format!("addr add {address}"))?;
    wait_until("the route is back", TIMEOUT, has_route)?;
    node.stop()
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() -> Result<()> {
    let scene = scene()?;
    let before = scene.relay_state()?;
    for (relay, xdp, expected) in [
        (
            "",
            "mode = \"native\"\ninterfaces = [\"nothing\"]",
            "nothing",
        ),
        ("host-specific = true", "mode = \"native\"", "host-specific"),
        ("tun = \"lo\"", "mode = \"off\"", "choose another"),
    ] {
        let config = config(&scene, relay, xdp);
        // A child that another test is about to start may still hold the last socket.
        let error = wait_for(
            "it fails for its own reason",
            TIMEOUT,
            || match Running::start(&scene.relay, &config) {
                Ok(_) => bail!("it runs with {relay} {xdp}"),
                Err(error) if format!("{error}").contains("in use") => Ok(None),
                Err(error) => Ok(Some(format!("{error:#}"))),
            },
        )?;
        ensure!(error.contains(expected), "{error}");
        ensure!(scene.relay_state()? == before);
    }
    Ok(())
}
