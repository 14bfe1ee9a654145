//! The node with all of its parts, in the test's own process.

use std::{
    collections::BTreeSet, future::pending, net::Ipv4Addr, path::Path, thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use teredo::{
    api::{Handle, filter::Filter, handle::PAGE},
    config::{Config, secrets::Secrets},
    metrics::{Path as Way, Snapshot},
    node::{Estate, Node, Patience},
};
use teredo_common::{
    address::{Endpoint, ServicePrefix, TeredoAddress},
    maps::{self, Line},
    peers::{ENTRY, FIRST_SET, Header, SLOTS, Slot},
    verdict::Direction,
};
use teredo_lab::{
    Namespace, Scene,
    peers::{Conversation, Peers},
    process::wait_for_free_udp_port,
    scene::{RELAY, SERVER},
    wait_for, wait_until,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{Notify, oneshot},
};

const TIMEOUT: Duration = Duration::from_secs(20);
const PEERS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);

/// The end of a node.
#[derive(Debug)]
enum End {
    Stop,
    Crash,
}

/// A node on a thread of its own.
struct Running {
    handle: Handle,
    shutdown: oneshot::Sender<End>,
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
                let estate = Estate::default();
                let mut node =
                    Node::start(config, Secrets::default(), Patience::Fail, estate).await?;
                started.send(node.handle())?;
                let (stop, crash) = (Notify::new(), Notify::new());
                let end = async {
                    match stopped.await {
                        Ok(End::Crash) => crash.notify_one(),
                        Ok(End::Stop) | Err(_) => stop.notify_one(),
                    }
                    pending().await
                };
                tokio::select! {
                    _ = node.run(stop.notified()) => {}
                    () = crash.notified() => return Ok(()),
                    () = end => return Ok(()),
                }
                node.stop().await
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
        Ok(self.runtime.block_on(self.handle.snapshot())?)
    }

    fn stop(self) -> Result<()> {
        self.end(End::Stop)
    }

    /// Closes everything that the process had open, as a crash does, and nothing else.
    fn crash(self) -> Result<()> {
        self.end(End::Crash)
    }

    fn end(self, end: End) -> Result<()> {
        let _ = self.shutdown.send(end);
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

/// Lets every peer talk with the host in both directions and returns the node's counters.
fn talk(scene: &Scene, node: &Running, count: u16, rounds: u64) -> Result<Snapshot> {
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, count)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    wait_until("all mappings are proved", TIMEOUT, || {
        Ok(node.numbers()?.peers_proved == u64::from(count))
    })?;
    for _ in 0..rounds {
        conversation.exchange(RELAY)?;
    }
    let numbers = node.numbers()?;
    ensure!(numbers.peers_trusted == u64::from(count), "{numbers:?}");
    let page = node
        .runtime
        .block_on(node.handle.peers(0, PAGE, Filter::default()))?;
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
    let scene = Scene::for_many_peers()?;
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
    let scene = Scene::for_many_peers()?;
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
        // The first packets of each peer wait for a bubble or for neighbour resolution.
        ensure!(
            fast >= 250 && slow <= 150,
            "{direction:?}: {fast} fast, {slow} slow"
        );
    }
    node.stop()?;
    ensure!(scene.relay_state()? == before);
    Ok(())
}

/// The table of the fast path of the scene's relay.
struct Table(Array<MapData, Line>);

impl Table {
    fn open(scene: &Scene) -> Result<Self> {
        let (name, version) = (scene.relay.name(), maps::ABI_VERSION);
        let path = format!("/sys/fs/bpf/teredo/{name}/v{version}/{}", maps::PEERS);
        Ok(Self(Array::try_from(Map::Array(MapData::from_pin(path)?))?))
    }

    /// Replaces the entries, of two words each, for which `change` returns another value.
    fn change(&mut self, change: impl Fn([u64; 2]) -> Option<[u64; 2]>) -> Result<()> {
        let header: Header = bytemuck::cast(self.0.get(&0, 0)?);
        for index in FIRST_SET..FIRST_SET + header.sets_max {
            let old = self.0.get(&index, 0)?;
            let mut line = old;
            for entry in line.chunks_exact_mut(ENTRY) {
                if let Some(new) = change([entry[0], entry[1]]) {
                    entry.copy_from_slice(&new);
                }
            }
            // The daemon may be writing.
            if line != old {
                self.0.set(index, line, 0)?;
            }
        }
        Ok(())
    }

    /// Puts unknown peers into all places that are empty.
    fn fill(&mut self) -> Result<()> {
        let stranger = TeredoAddress {
            prefix: ServicePrefix::STANDARD,
            server: SERVER,
            flags: 0,
            mapped: Endpoint::new(Ipv4Addr::new(20, 9, 9, 9), 9),
        };
        let octets = stranger.encode().octets();
        let [_, server, flags_and_port, client]: [u32; 4] = bytemuck::cast(octets);
        self.change(|[first, second]| {
            let new = [
                bytemuck::cast([server, flags_and_port]),
                u64::from(client) | second,
            ];
            (first == 0).then_some(new)
        })
    }

    /// Empties the entries of peers whose addresses `unwanted` selects.
    fn empty(&mut self, unwanted: impl Fn(&[u8; 16]) -> bool) -> Result<()> {
        self.change(|entry| unwanted(&address_in(entry)).then_some([0, 0]))
    }

    /// Returns the addresses of all entries, and of all peers that found no place among them.
    fn addresses(&self) -> Result<BTreeSet<[u8; 16]>> {
        let header: Header = bytemuck::cast(self.0.get(&0, 0)?);
        let mut addresses = BTreeSet::new();
        for index in FIRST_SET..FIRST_SET + header.sets_max {
            let line = self.0.get(&index, 0)?;
            let entries = line.chunks_exact(ENTRY).filter(|entry| entry[0] != 0);
            addresses.extend(entries.map(|entry| address_in([entry[0], entry[1]])));
        }
        for index in FIRST_SET + header.sets_max..self.0.len() {
            let slots: [Slot; SLOTS] = bytemuck::cast(self.0.get(&index, 0)?);
            let slots = slots
                .iter()
                .filter(|slot| slot.mapped != Endpoint::default());
            addresses.extend(slots.map(|slot| slot.address));
        }
        Ok(addresses)
    }

    /// Waits until the table holds these peers and no other.
    fn wait_for(&self, peers: &Peers) -> Result<()> {
        let expected = addresses(peers);
        // The node compares them once a second.
        wait_until("the fast path has the relay's peers", TIMEOUT, || {
            Ok(self.addresses()? == expected)
        })
    }
}

/// Returns the address of an entry.
fn address_in([first, second]: [u64; 2]) -> [u8; 16] {
    let ([server, flags_and_port], [client, _]): ([u32; 2], [u32; 2]) =
        (bytemuck::cast(first), bytemuck::cast(second));
    let ServicePrefix(prefix) = ServicePrefix::STANDARD;
    bytemuck::cast([u32::from_ne_bytes(prefix), server, flags_and_port, client])
}

fn addresses(peers: &Peers) -> BTreeSet<[u8; 16]> {
    let addresses = (0..peers.len()).map(|index| peers.address(index).octets());
    addresses.collect()
}

#[test]
fn the_fast_path_is_reconciled_with_the_relay() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let text = config(&scene, "max-peers = 1000", "mode = \"native\"");
    let node = Running::start(&scene.relay, &text)?;
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, 10)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    let mut table = Table::open(&scene)?;
    table.wait_for(&peers)?;

    let lost = [0, 7].map(|index| peers.address(index).octets());
    table.empty(|address| lost.contains(address))?;
    table.wait_for(&peers)?;
    conversation.exchange(RELAY)?;

    // The content after a crash is arbitrary.
    node.crash()?;
    table.fill()?;
    let port = RELAY.port();
    (scene.relay).run(|| wait_for_free_udp_port(port, Duration::from_secs(10)))??;
    let node = Running::start(&scene.relay, &text)?;
    Table::open(&scene)?.wait_for(&peers)?;
    let numbers = node.numbers()?;
    ensure!(numbers.peers_trusted == 10, "{numbers:?}");
    conversation.exchange(RELAY)?;
    node.stop()
}

#[test]
fn peers_without_a_place_are_on_the_fast_path_too() -> Result<()> {
    let scene = Scene::for_many_peers()?;
    let text = config(&scene, "max-peers = 128", "mode = \"native\"");
    let node = Running::start(&scene.relay, &text)?;
    let namespace = scene.add_ipv4_host("peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, 8)?;
    let conversation = Conversation::new(scene.host(), &peers)?;
    let mut table = Table::open(&scene)?;
    table.fill()?;
    conversation.open(RELAY)?;
    conversation.prove()?;
    wait_until("all mappings are proved", TIMEOUT, || {
        Ok(node.numbers()?.peers_proved == 8)
    })?;
    conversation.exchange(RELAY)?;
    let numbers = node.numbers()?;
    ensure!(numbers.xdp_refused == 0, "{numbers:?}");
    ensure!(
        numbers.traffic(Direction::Encap, Way::Xdp).packets > 0,
        "{numbers:?}"
    );
    ensure!(
        numbers.traffic(Direction::Decap, Way::Xdp).packets > 0,
        "{numbers:?}"
    );
    node.stop()
}

#[test]
fn the_route_exists_only_while_the_address_does() -> Result<()> {
    let scene = Scene::for_many_peers()?;
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
fn a_failed_start_cleans_up() -> Result<()> {
    let scene = Scene::for_many_peers()?;
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
        // A child process of another test, before its exec, may still hold the last socket.
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
