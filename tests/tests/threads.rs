//! A relay without a fast path whose packets several threads carry.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use teredo_common::steering;
use teredo_lab::{
    Scene, Teredo,
    peers::{Conversation, Peers},
    scene::{RELAY, SERVER},
    wait_until,
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);
const FIRST_PORT: u16 = 10_000;
const COUNT: u16 = 400;
const THREADS: u16 = 4;
const SOON: Duration = Duration::from_secs(30);

/// A relay with many peers.
struct World {
    peers: Peers,
    relay: Teredo,
    scene: Scene,
}

impl World {
    fn new(threads: u16) -> Result<Self> {
        let scene = Scene::for_many_peers()?;
        let config = scene
            .relay_config()
            .set("relay.xdp.mode", "off")
            .set("relay.threads", i64::from(threads));
        let relay = scene.start_relay(&config)?;
        let namespace = scene.add_ipv4_host("peers", ADDRESS)?;
        let peers = Peers::open(&namespace, SERVER, ADDRESS, FIRST_PORT, COUNT)?;
        Ok(Self {
            peers,
            relay,
            scene,
        })
    }

    fn conversation(&self) -> Result<Conversation<'_>> {
        Conversation::new(self.scene.host(), &self.peers)
    }

    /// The packets that each thread has read from the kernel and written to it, by name. That of the event loop has
    /// the name of the program.
    fn carried(&self) -> Result<BTreeMap<String, [u64; 2]>> {
        let tasks = format!("/proc/{}/task", self.relay.daemon.pid());
        let mut carried = BTreeMap::new();
        for task in fs::read_dir(tasks)? {
            let path = task?.path();
            let name = fs::read_to_string(path.join("comm"))?.trim().to_owned();
            let counts = fs::read_to_string(path.join("io"))?;
            let count = |kind: &str| {
                let line = counts.lines().find_map(|line| line.strip_prefix(kind));
                let number = line.and_then(|number| number.strip_prefix(": "));
                number.context("no number")?.parse().context("a number")
            };
            carried.insert(name, [count("syscr")?, count("syscw")?]);
        }
        Ok(carried)
    }
}

/// The threads of the relay, in the order of their shares.
fn names() -> impl Iterator<Item = String> {
    (1..THREADS).map(|number| format!("relay-{number}"))
}

/// The packets of one peer have the same thread in both directions.
#[test]
fn each_thread_carries_its_peers_in_both_directions() -> Result<()> {
    let world = World::new(THREADS)?;
    let conversation = world.conversation()?;
    conversation.open(RELAY)?;
    let share = |index: usize| {
        let port = FIRST_PORT + index as u16;
        let mapped = std::net::SocketAddrV4::new(ADDRESS, port);
        steering::share(mapped.into()) as usize % usize::from(THREADS)
    };
    for (number, name) in (1..).zip(names()) {
        let own: Vec<usize> = (0..world.peers.len())
            .filter(|index| share(*index) == number)
            .collect();
        ensure!(own.len() > 50, "{number} has {} peers", own.len());
        let before = world.carried()?;
        conversation.exchange_with(RELAY, &own)?;
        let after = world.carried()?;
        for other in names() {
            let [read, written] =
                [0, 1].map(|direction| after[&other][direction] - before[&other][direction]);
            let is_own = other == name;
            // Some reads find nothing more, and some writes wake another thread.
            let are_right = |calls: u64, others: u64| match is_own {
                true => calls >= own.len() as u64,
                false => calls <= others,
            };
            ensure!(
                are_right(read, 0) && are_right(written, 10),
                "{other} has read {read} and written {written} packets of the {} of {name}",
                own.len()
            );
        }
    }
    Ok(())
}

/// Somebody removes the interface, and all of its queues with it.
#[test]
fn all_threads_go_on_after_the_interface_was_removed() -> Result<()> {
    let world = World::new(THREADS)?;
    let conversation = world.conversation()?;
    conversation.open(RELAY)?;
    conversation.exchange(RELAY)?;
    for _ in 0..3 {
        let index = || world.scene.relay.ip("-o link show dev teredo");
        let before = index()?;
        world.scene.relay.ip("link del teredo")?;
        wait_until("there is another interface with a route", SOON, || {
            let routes = world.scene.relay.ip("-6 route show 2001::/32")?;
            Ok(routes.contains("teredo") && index().is_ok_and(|after| after != before))
        })?;
        conversation.exchange(RELAY)?;
    }
    let carried = world.carried()?;
    ensure!(
        names().all(|name| carried[&name].iter().all(|&packets| packets > 0)),
        "{carried:?}"
    );
    Ok(())
}

/// The counters are exact, whichever thread carries a packet.
#[test]
fn packets_of_all_threads_are_counted() -> Result<()> {
    let world = World::new(THREADS)?;
    let conversation = world.conversation()?;
    conversation.open(RELAY)?;
    let forwarded = world
        .relay
        .packets_during(|| (0..5).try_for_each(|_| conversation.exchange(RELAY)))?;
    for paths in [forwarded.encap, forwarded.decap] {
        ensure!(
            paths.xdp == 0 && paths.userspace == 5 * u64::from(COUNT),
            "{forwarded:?}"
        );
    }
    Ok(())
}

/// The interface has room for packets in its queues, and needs no others in front of those.
#[test]
fn an_interface_with_queues_has_no_queueing_discipline() -> Result<()> {
    let world = World::new(THREADS)?;
    let link = world.scene.relay.ip("-d link show dev teredo")?;
    ensure!(
        link.contains("qdisc noqueue") && link.contains("numqueues 4"),
        "{link}"
    );
    Ok(())
}

/// The kernel gives every process that opens such an interface some of its packets.
#[test]
fn an_interface_of_another_daemon_is_not_shared() -> Result<()> {
    let world = World::new(THREADS)?;
    for threads in [1, 3] {
        let config = world
            .scene
            .relay_config()
            .set("relay.port", 3999)
            .set("relay.xdp.mode", "off")
            .set("relay.threads", threads);
        let refusal = world.scene.start_relay(&config).unwrap_err();
        let refusal = format!("{refusal:#}");
        ensure!(
            refusal.contains("the TUN interface teredo is in use by another process"),
            "{refusal}"
        );
    }
    let conversation = world.conversation()?;
    conversation.open(RELAY)?;
    conversation.exchange(RELAY)
}

/// On most systems everybody may open the device of all tunnels.
#[test]
fn no_other_user_opens_a_queue() -> Result<()> {
    let world = World::new(THREADS)?;
    let open = "ip tuntap add dev teredo mode tun multi_queue";
    let mut other = world.scene.relay.command("setpriv")?;
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let opened = other.args(open.split(' ')).output()?;
    let refusal = String::from_utf8_lossy(&opened.stderr);
    ensure!(
        !opened.status.success() && refusal.contains("TUNSETIFF"),
        "{opened:?}"
    );
    Ok(())
}

#[test]
fn one_thread_starts_no_others() -> Result<()> {
    let world = World::new(1)?;
    let conversation = world.conversation()?;
    conversation.open(RELAY)?;
    conversation.exchange(RELAY)?;
    let carried = world.carried()?;
    ensure!(
        !carried.keys().any(|name| name.starts_with("relay-")),
        "{carried:?}"
    );
    Ok(())
}
