//! Three relays, real routing daemons, and a router that spreads packets over them: a fleet with one IPv4 address,
//! and relays with addresses of their own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use teredo_lab::{
    Namespace, Scene, Teredo,
    fleet::{self, ARM, Conversation, Design, Fleet, RELAYS, SERVICE},
    heartbeat::Heartbeat,
    links::Internet,
    names::Names,
    peers::{self, Peers},
    scene::{Client, RELAY, SERVER},
    teredo::{Config, binary},
    traffic::{Ping, Pong, UdpReport, UdpStream},
    wait_until,
};

/// Longest time that anything takes.
const SOON: Duration = Duration::from_secs(30);
/// The time between two datagrams of a stream.
const INTERVAL: Duration = Duration::from_millis(2);
/// The address of peers that are not clients.
const PEERS: Ipv4Addr = Ipv4Addr::new(20, 0, 3, 1);
/// Their number.
const COUNT: u16 = 300;
/// The longest time that BFD takes to find a dead link, and the router to follow.
const DETECTION: Duration = Duration::from_millis(900);

/// The longest silence of TCP where nothing is lost, on a busy machine.
const SILENCE: Duration = Duration::from_secs(2);
/// The longest silence of TCP after a loss: that of the detection, and as long again, since TCP doubles its pauses.
const SILENCE_OF_DETECTION: Duration = Duration::from_secs(4);

/// The number of clients that are new at a time.
const NEW: u16 = 60;
/// The longest time for which clients of a relay that goes have no other one: that in which the router follows, some
/// round trips, and those of one bubble that is lost.
const REPLACEMENT: Duration = Duration::from_secs(3);

/// Fleets run one at a time: on a busy machine, BFD takes relays for dead.
static TURN: Mutex<()> = Mutex::new(());

/// A fleet with clients and their traffic, all of which is proved to it.
struct World {
    conversation: Conversation,
    fleet: Fleet,
    scene: Scene,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> Result<Self> {
        Self::of(Design::Fleet)
    }

    fn of(design: Design) -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scene = fleet::scene()?;
        let fleet = Fleet::of(&scene, design)?;
        let conversation = Conversation::start(&scene, INTERVAL)?;
        let world = Self {
            conversation,
            fleet,
            scene,
            _turn: turn,
        };
        world.flow(1_000)?;
        Ok(world)
    }

    /// Waits until every stream has gone on by this many datagrams.
    fn flow(&self, datagrams: u64) -> Result<()> {
        let streams = &self.conversation.streams;
        let before: Vec<_> = streams.iter().map(UdpStream::received).collect();
        wait_until("all streams flow", SOON, || {
            let mut pairs = streams.iter().zip(&before);
            Ok(pairs.all(|(stream, before)| stream.received() >= before + datagrams))
        })
    }

    fn spread(&self, without: Option<u8>) -> Result<()> {
        let wanted: Vec<_> = (1..=RELAYS)
            .filter(|number| Some(*number) != without)
            .collect();
        self.fleet.wait_until_spread(&self.scene, &wanted)
    }

    /// Ends all traffic, and returns what became of the streams and the longest silence on a TCP connection.
    fn stop(self) -> Result<(Vec<UdpReport>, Duration)> {
        let streams = self.conversation.streams.into_iter();
        let reports = streams.map(UdpStream::stop).collect::<Result<_>>()?;
        let connections = self.conversation.connections.into_iter();
        let silences = connections
            .map(Heartbeat::stop)
            .collect::<Result<Vec<_>>>()?;
        let silence = silences.into_iter().max().unwrap_or_default();
        println!("TCP was silent for {silence:?} at most");
        Ok((reports, silence))
    }

    fn ensure_nothing_lost(self) -> Result<()> {
        let members = self.fleet.members.iter();
        let accounts: Vec<_> = members.map(|one| account(&one.relay)).collect();
        let (reports, silence) = self.stop()?;
        let lost: u64 = reports.iter().map(|one| one.sent - one.received).sum();
        ensure!(lost == 0, "{reports:?}\n{}", accounts.join("\n"));
        ensure!(silence < SILENCE, "TCP was silent for {silence:?}");
        Ok(())
    }
}

#[test]
fn every_relay_serves_every_client() -> Result<()> {
    World::new()?.ensure_nothing_lost()
}

/// What the relay knew is known to the others, and its program goes on until the router has followed.
#[test]
fn a_relay_that_is_killed_and_comes_back_loses_nothing() -> Result<()> {
    let mut world = World::new()?;
    for index in 0..usize::from(RELAYS) {
        let number = world.fleet.members[index].number();
        world.fleet.members[index].relay.daemon.kill()?;
        world.spread(Some(number))?;
        world.flow(500)?;
        world.fleet.members[index].start_again()?;
        world
            .spread(None)
            .with_context(|| format!("relay {number} is back"))?;
        world.flow(500)?;
    }
    world.ensure_nothing_lost()
}

/// Many peers beside the clients, each with one datagram in each direction, again and again while a relay is killed and
/// comes back.
#[test]
fn many_peers_lose_nothing_when_a_relay_is_killed() -> Result<()> {
    let mut world = World::new()?;
    let namespace = fleet::add_host(&world.scene, "peers", PEERS)?;
    let peers = Peers::open(&namespace, SERVER, PEERS, 10_000, COUNT)?;
    let conversation = peers::Conversation::new(world.scene.host(), &peers)?;
    let service = SocketAddrV4::new(SERVICE, RELAY.port());
    conversation.open(service)?;
    wait_until("every relay has every proof", SOON, || {
        // Peers answer questions when they are listened to.
        conversation.exchange(service)?;
        let mut members = world.fleet.members.iter();
        members.try_fold(true, |all, member| {
            Ok(all && member.relay.status()?.peers.proved >= COUNT.into())
        })
    })?;
    for index in 0..usize::from(RELAYS) {
        let number = world.fleet.members[index].number();
        world.fleet.members[index].relay.daemon.kill()?;
        for _ in 0..3 {
            conversation.exchange(service)?;
        }
        world.spread(Some(number))?;
        conversation.exchange(service)?;
        world.fleet.members[index].start_again()?;
        world.spread(None)?;
        conversation.exchange(service)?;
    }
    drop(conversation);
    world.ensure_nothing_lost()
}

#[test]
fn a_relay_that_leaves_loses_nothing() -> Result<()> {
    let mut world = World::new()?;
    let number = world.fleet.members[0].number();
    let relay = &mut world.fleet.members[0].relay;
    relay.daemon.signal(Signal::SIGTERM)?;
    let status = relay.daemon.wait(SOON)?;
    ensure!(status.success(), "{status}");
    world.spread(Some(number))?;
    world.flow(500)?;
    world.fleet.members[0].start_again()?;
    world.spread(None)?;
    world.flow(500)?;
    world.ensure_nothing_lost()
}

/// As before maintenance: others are preferred, the relay drains, then it stops.
#[test]
fn a_relay_that_says_that_it_leaves_loses_nothing() -> Result<()> {
    let mut world = World::new()?;
    let number = world.fleet.members[2].number();
    world.fleet.members[2].set_leaving(true)?;
    world.spread(Some(number))?;
    world.flow(500)?;
    world.fleet.members[2].relay.tell("drain")?;
    world.flow(500)?;
    world.fleet.members[2].relay.daemon.terminate()?;
    world.flow(500)?;
    world.fleet.members[2].start_again()?;
    world.fleet.members[2].set_leaving(false)?;
    world.spread(None)?;
    world.flow(500)?;
    world.ensure_nothing_lost()
}

#[test]
fn an_upgrade_of_all_loses_nothing() -> Result<()> {
    let world = World::new()?;
    for member in &world.fleet.members {
        member.relay.tell("upgrade")?;
        world.flow(500)?;
    }
    world.ensure_nothing_lost()
}

/// Nobody is told: BFD finds it. The relay comes back with the others' news of meanwhile.
#[test]
fn a_relay_that_is_cut_off_costs_the_time_of_detection() -> Result<()> {
    let world = World::new()?;
    let member = &world.fleet.members[1];
    member.cut_off()?;
    world.spread(Some(member.number()))?;
    world.flow(500)?;
    member.connect_again()?;
    world.spread(None).context("the relay is back")?;
    world.flow(500)?;
    let (reports, silence) = world.stop()?;
    let longest = reports.iter().map(|report| report.longest_gap).max();
    ensure!(longest < Some(DETECTION), "{reports:?}");
    ensure!(
        silence < SILENCE_OF_DETECTION,
        "TCP was silent for {silence:?}"
    );
    Ok(())
}

/// The clients of a relay that goes find another one: a pause, and then everything flows. In every state, new clients
/// get their first packet through whichever relay the router chooses. The figures are those of docs/scale.md.
#[test]
fn relays_with_addresses_of_their_own_replace_each_other() -> Result<()> {
    for event in ["kill -9", "stop", "drain, then stop"] {
        let mut world = World::of(Design::Apart)?;
        let namespace = fleet::add_host(&world.scene, "peers", PEERS)?;
        let mut ports = (10_000..).step_by(usize::from(NEW));
        let mut newcomers = |world: &World, when: &str| {
            let first = ports.next().context("no ports")?;
            let peers = Peers::open(&namespace, SERVER, PEERS, first, NEW)?;
            let conversation = peers::Conversation::new(world.scene.host(), &peers)?;
            conversation
                .open_anywhere()
                .with_context(|| format!("{event}: {when}"))
        };
        newcomers(&world, "all serve")?;
        for index in 0..usize::from(RELAYS) {
            let number = world.fleet.members[index].number();
            let relay = &mut world.fleet.members[index].relay;
            match event {
                "kill -9" => drop(relay.daemon.kill()?),
                "stop" => drop(relay.daemon.terminate()?),
                _ => relay.tell("drain")?,
            }
            world.spread(Some(number))?;
            newcomers(&world, "one is gone")?;
            world.flow(500)?;
            if event == "drain, then stop" {
                world.fleet.members[index].relay.daemon.terminate()?;
            }
            world.fleet.members[index].start_again()?;
            world.spread(None)?;
            newcomers(&world, "it is back")?;
            world.flow(500)?;
        }
        let (reports, silence) = world.stop()?;
        ensure!(
            silence < SILENCE_OF_DETECTION,
            "TCP was silent for {silence:?}"
        );
        // Streams to a client and from it take turns.
        for (direction, first) in [("to clients", 0), ("from clients", 1)] {
            let reports: Vec<_> = reports.iter().skip(first).step_by(2).collect();
            let sent: u64 = reports.iter().map(|report| report.sent).sum();
            let received: u64 = reports.iter().map(|report| report.received).sum();
            let longest = reports.iter().map(|report| report.longest_gap).max();
            println!(
                "{event}, {direction}: {} of {sent} lost, {longest:?}",
                sent - received
            );
            ensure!(longest < Some(REPLACEMENT), "{event}: {reports:?}");
        }
    }
    Ok(())
}

/// All have one IPv4 address, but a packet whose hop limit ends at a relay is answered from its own IPv6 address, so
/// that everybody can tell which one it is.
#[test]
fn a_relay_of_a_fleet_is_known_by_its_own_address() -> Result<()> {
    let world = World::new()?;
    let ensure_known = |pong: Pong| {
        let mut numbers = 1..=RELAYS;
        let is_known =
            numbers.any(|number| pong.text.contains(&format!("From 2001:db8:9::{number} ")));
        ensure!(is_known, "{}", pong.text);
        Ok(())
    };
    let host = world.scene.host();
    for (site, client) in world.scene.sites.iter().zip(&world.conversation.clients) {
        let wait = Duration::from_secs(2);
        let from_client = Ping::to(host.address).hop_limit(1).wait(wait);
        ensure_known(from_client.from(&site.client)?)?;
        // The router comes first.
        let to_client = Ping::to(client.address()).hop_limit(2).wait(wait);
        ensure_known(to_client.from(&host.namespace)?)?;
    }
    world.ensure_nothing_lost()
}

/// A client has one relay for each host, and tells if others bring packets of the host, too.
#[test]
fn a_client_tells_that_routers_hash_ports() -> Result<()> {
    let world = World::of(Design::Apart)?;
    let policy = "net.ipv6.fib_multipath_hash_policy";
    // Addresses and ports.
    world.scene.relay.sysctl(policy, 1)?;
    let host = world.scene.host().address.to_string();
    wait_until("a client tells it", SOON, || {
        let mut answers = world.conversation.clients.iter().map(|client| {
            let Client::Teredo(daemon, _) = client else {
                bail!("another client than ours");
            };
            let mut explain = Command::new(binary()?);
            explain
                .args(["explain", &host, "--config"])
                .arg(daemon.file());
            Ok(String::from_utf8(explain.output()?.stdout)?)
        });
        answers.try_fold(false, |told, answer| {
            Ok(told || answer?.contains("must do so by addresses alone"))
        })
    })?;
    world.scene.relay.sysctl(policy, 3)?;
    world.flow(500)
}

/// Returns a relay's log, and what did not take its fast path.
fn account(relay: &Teredo) -> String {
    let metrics = metrics(relay).unwrap_or_else(|error| error.to_string());
    let counters = metrics.lines().filter(|line| {
        let is_meant = ["teredo_passed_total{", "teredo_dropped_total{"]
            .iter()
            .any(|family| line.starts_with(family));
        is_meant && !line.ends_with(" 0")
    });
    let lines: Vec<_> = counters.collect();
    format!("{}\n{}", relay.daemon.log(), lines.join("\n"))
}

fn metrics(relay: &Teredo) -> Result<String> {
    let mut stream = UnixStream::connect(relay.daemon.path().join("api"))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Relays that know each other by a name find each other once it can be looked up.
#[test]
fn the_relays_of_a_fleet_may_have_a_name() -> Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let segment = Internet::new("members")?;
    let names = Names::new()?;
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("fleet.key");
    fs::write(&key, "5a".repeat(32))?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let relays = (1..=2)
        .map(|number| {
            let namespace = Namespace::new(&format!("member{number}"))?;
            segment.plug(&namespace, ARM)?;
            namespace.ip_batch(&format!(
                "link set lo up
                addr add {SERVICE}/32 dev lo
                addr add 10.9.0.{number}/24 dev {ARM}
                addr add 2001:db8:9::{number}/64 dev {ARM} nodad
                route add default via 2001:db8:9::fe"
            ))?;
            namespace.sysctl("net.ipv6.conf.all.forwarding", 1)?;
            let config = Config::new()
                .set("relay.ipv4", SERVICE.to_string())
                .set("relay.xdp.mode", "off")
                .set("relay.fleet.listen", format!("10.9.0.{number}:3546"))
                .set("relay.fleet.members", "relays.test:3546")
                .set("relay.fleet.key-file", key.to_string_lossy().into_owned());
            let prepare = |command: &mut Command| names.prepare(command);
            let mut relay = Teredo::start_prepared(&namespace, &config, prepare)?;
            relay.ready()?;
            Ok((relay, namespace))
        })
        .collect::<Result<Vec<_>>>()?;
    let trouble = |relay: &Teredo| -> Result<String> {
        let conditions = relay.status()?.conditions.into_iter();
        let texts = conditions.filter(|one| one.kind == "fleet-out-of-step");
        Ok(texts.map(|one| one.text).collect())
    };
    for (relay, _) in &relays {
        wait_until("the relay says what it lacks", SOON, || {
            Ok(trouble(relay)?.contains("cannot look up \"relays.test\""))
        })
        .with_context(|| relay.daemon.log())?;
    }
    names.set("10.9.0.1 relays.test\n10.9.0.2 relays.test\n")?;
    for (relay, namespace) in &relays {
        wait_until("the relay has joined", SOON, || {
            let announced = namespace.ip("-6 route show 2001::/32")?;
            Ok(trouble(relay)?.is_empty() && announced.contains("teredo"))
        })
        .with_context(|| relay.daemon.log())?;
    }
    for (number, (relay, _)) in (1..).zip(&relays) {
        let reached = format!(
            "teredo_fleet_member_reached{{member=\"10.9.0.{}:3546\"}} 1",
            3 - number
        );
        wait_until("they reach each other", SOON, || {
            Ok(metrics(relay)?.lines().any(|line| line == reached))
        })
        .with_context(|| reached.clone())?;
    }
    Ok(())
}
