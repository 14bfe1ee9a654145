//! A process that is replaced by another without a service manager: an upgrade, and a change of the
//! configuration.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use teredo_common::wire::SERVER_PORT;
use teredo_lab::{
    caller::Caller,
    namespace::Namespace,
    process::output,
    qualification::CLIENT,
    scene::{Client, Place, SERVER, Scene, Topology},
    teredo::{Teredo, binary},
    traffic::{Ping, UdpStream},
    wait::{wait_for, wait_until},
};

use crate::world::{SOON, dropped_by, ensure_perfect, flow, stop};

/// A relay with one client whose peer it is. The processes that take over end with it.
struct World {
    relay: Teredo,
    client: Client,
    scene: Scene,
}

impl World {
    fn new(mode: &str) -> Result<Self> {
        let scene = Scene::new(Topology::default())?;
        let site = scene.site();
        let client = scene.start_client(&site.client, &scene.client_config(site.port))?;
        let relay = scene.start_relay(&scene.relay_config().set("relay.xdp.mode", mode))?;
        let host = scene.host();
        Ping::to(client.address()).all_from(&host.namespace)?;
        Ping::to(host.address).all_from(&site.client)?;
        Ok(Self {
            relay,
            client,
            scene,
        })
    }

    fn streams(&self) -> Result<[UdpStream; 2]> {
        crate::world::streams(&self.scene, &self.client)
    }

    /// The relay's log, and the packets that relay and client have dropped.
    fn report(&self) -> String {
        let dropped = [Some(&self.relay), self.client.teredo()].map(dropped_by);
        format!("{}\n{dropped:?}", self.relay.daemon.log())
    }

    /// The daemon's process, once it runs alone.
    fn process(&self) -> Result<Pid> {
        process_of(&self.scene.relay)
    }

    /// Runs `teredo` with these arguments and the daemon's configuration.
    fn teredo(&self, command: &str) -> Result<String> {
        let mut teredo = Command::new(binary()?);
        output(teredo.arg(command).arg("--config").arg(self.relay.file()))
    }

    /// Changes the text of the configuration.
    fn configure(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.relay.file())?;
        ensure!(text.contains(from), "{from} is not in {text}");
        Ok(fs::write(self.relay.file(), text.replace(from, to))?)
    }
}

/// The daemon in a namespace, once it is the only one: others are about to end.
fn process_of(namespace: &Namespace) -> Result<Pid> {
    wait_for("one daemon runs", SOON, || Ok(daemon_of(namespace).ok()))
}

/// The only daemon in a namespace.
fn daemon_of(namespace: &Namespace) -> Result<Pid> {
    let listed = output(Command::new("ip").args(["netns", "pids", namespace.name()]))?;
    let is_daemon = |pid: &&str| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.contains("\0run\0")
    };
    let found: Vec<_> = listed.lines().filter(is_daemon).collect();
    match found[..] {
        [one] => Ok(Pid::from_raw(one.parse()?)),
        _ => bail!("{} daemons run: {listed:?}", found.len()),
    }
}

fn replaced_by_a_signal(mode: &str, signal: Signal) -> Result<()> {
    let world = World::new(mode)?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    for _ in 0..3 {
        let before = world.process()?;
        nix::sys::signal::kill(before, signal)?;
        wait_until("another process runs alone", SOON, || {
            Ok(daemon_of(&world.scene.relay).is_ok_and(|process| process != before))
        })
        .with_context(|| world.relay.daemon.log())?;
        flow(&streams, 200)?;
    }
    ensure_perfect(stop(streams)?, || world.report())
}

#[test]
fn an_upgrade_loses_nothing_on_the_fast_path() -> Result<()> {
    replaced_by_a_signal("native", Signal::SIGUSR2)
}

#[test]
fn an_upgrade_loses_nothing_in_userspace() -> Result<()> {
    replaced_by_a_signal("off", Signal::SIGUSR2)
}

#[test]
fn a_reload_applies_the_configuration_without_loss() -> Result<()> {
    let world = World::new("native")?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    let max_peers = || Ok::<_, anyhow::Error>(world.relay.status()?.peers.maximum);
    let before = max_peers()?;
    world.configure(
        "[relay]\n",
        &format!("[relay]\nmax-peers = {}\n", before / 2),
    )?;
    world.teredo("reload")?;
    ensure!(max_peers()? == before / 2, "{} peers at most", max_peers()?);
    flow(&streams, 200)?;
    ensure_perfect(stop(streams)?, || world.report())
}

/// Sockets and queues are added to those that are there, and none of those goes.
#[test]
fn a_reload_to_more_or_fewer_threads_loses_nothing() -> Result<()> {
    let world = World::new("off")?;
    let mut before = "[relay]\n".to_owned();
    let mut set = |threads: usize| {
        let after = format!("[relay]\nthreads = {threads}\n");
        let configured = world.configure(&before, &after);
        before = after;
        configured.and_then(|()| world.teredo("reload"))
    };
    set(2)?;
    // An interface that was made for one thread has one queue.
    world.scene.relay.ip("link del teredo")?;
    wait_until("there is another interface with the route", SOON, || {
        let link = world.scene.relay.ip("-d link show dev teredo");
        let routes = world.scene.relay.ip("-6 route show 2001::/32")?;
        Ok(routes.contains("teredo") && link.is_ok_and(|link| link.contains("numqueues 2")))
    })?;
    let ping = Ping::to(world.client.address());
    ping.all_from(&world.scene.host().namespace)?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    // The event loop counts as one; with one wanted, another still reads what was opened for more.
    for (wanted, others) in [(5, 4), (1, 1), (3, 2)] {
        set(wanted)?;
        let link = world.scene.relay.ip("-d link show dev teredo")?;
        ensure!(link.contains("numqueues 5"), "{link}");
        let tasks = fs::read_dir(format!("/proc/{}/task", world.process()?))?;
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let found = names.filter(|name| name.starts_with("relay-")).count();
        ensure!(found == others, "{found} threads, not {others}");
        flow(&streams, 200)?;
    }
    let reports = stop(streams)?;
    // While a flow moves to another thread, a packet may overtake another.
    let are_whole = reports
        .iter()
        .all(|report| report.sent == report.received && report.repeated == 0);
    ensure!(are_whole, "{reports:?}\n{}", world.report());
    Ok(())
}

/// Both use one port from now on, of which only one thread can tell whose the datagrams are.
#[test]
fn a_server_on_the_port_of_a_relay_with_threads_gets_its_datagrams() -> Result<()> {
    let scene = Scene::new(Topology {
        clients: 0,
        server: None,
        place: Place::Relay,
        ..Topology::default()
    })?;
    let endpoint = SocketAddrV4::new(SERVER, SERVER_PORT);
    let alone = scene
        .relay_config()
        .set("relay.ipv4", endpoint.ip().to_string())
        .set("relay.port", i64::from(endpoint.port()))
        .set("relay.xdp.mode", "off")
        .set("relay.threads", 4);
    let relay = Teredo::start(&scene.relay, &alone)?;
    let text = fs::read_to_string(relay.file())?;
    // Connectivity tests need a right that the relay has given up.
    let server = scene
        .server_config()
        .set("server.xdp.mode", "off")
        .set("server.forward-echo", false)
        .set("server.forward-echo-replies", false);
    fs::write(relay.file(), format!("{text}\n{server}"))?;
    relay.tell("reload")?;
    let callers = scene.add_ipv4_host("callers", Ipv4Addr::new(20, 0, 2, 1))?;
    for port in 10_000..10_020 {
        let caller = Caller::open(
            &callers,
            SocketAddrV4::new(Ipv4Addr::new(20, 0, 2, 1), port),
        )?;
        caller.qualify(SERVER, SERVER, CLIENT, SERVER)?;
    }
    Ok(())
}

/// The interface of another name, and the end of the fast path: what is of no use any more goes.
#[test]
fn a_reload_leaves_nothing_of_the_old_configuration() -> Result<()> {
    let world = World::new("native")?;
    world.configure("[relay]\n", "[relay]\ntun = \"other\"\n")?;
    world.teredo("reload")?;
    let has = |name: &str| {
        world
            .scene
            .relay
            .ip(&format!("link show dev {name}"))
            .is_ok()
    };
    wait_until("only the new interface is there", SOON, || {
        Ok(has("other") && !has("teredo"))
    })?;
    let ping = Ping::to(world.client.address());
    ping.all_from(&world.scene.host().namespace)?;
    world.configure("mode = \"native\"", "mode = \"off\"")?;
    world.teredo("reload")?;
    let links = world.scene.relay.ip("link")?;
    ensure!(!links.contains("xdp"), "{links}");
    ping.all_from(&world.scene.host().namespace)?;
    let refusal = {
        let name = world.relay.status()?.name;
        world.configure(&format!("name = \"{name}\""), "name = \"another\"")?;
        world.teredo("reload").unwrap_err().to_string()
    };
    ensure!(refusal.contains("needs a restart"), "{refusal}");
    Ok(())
}

#[test]
fn a_reload_to_another_socket_of_the_api_leaves_no_file() -> Result<()> {
    let world = World::new("off")?;
    let socket = world.relay.daemon.path().join("api");
    let before = format!("unix:{}", socket.display());
    world.configure(&before, &format!("{before}-new"))?;
    let refusal = world.teredo("reload").unwrap_err().to_string();
    ensure!(refusal.contains("with --api"), "{refusal}");
    ensure!(socket.exists());
    let mut reload = Command::new(binary()?);
    output(
        reload
            .args(["reload", "--api", &before, "--config"])
            .arg(world.relay.file()),
    )?;
    world.relay.status()?;
    ensure!(!socket.exists(), "nobody listens at it");
    Ok(())
}

#[test]
fn a_wrong_configuration_leaves_the_old_one_in_force() -> Result<()> {
    let world = World::new("native")?;
    let before = world.process()?;
    let streams = world.streams()?;
    flow(&streams, 200)?;
    // One that cannot be read, and one that cannot be carried out.
    let edits = [
        ("[relay]\n", "[relay]\nmax-peers = 0\n", "max-peers"),
        ("port = 3545", "port = 3999", "3999"),
    ];
    for (right, wrong, key) in edits {
        let other = world
            .scene
            .relay
            .run(|| std::net::UdpSocket::bind("20.0.1.1:3999"))??;
        let text = fs::read_to_string(world.relay.file())?;
        world.configure(right, wrong)?;
        let refusal = world.teredo("reload").unwrap_err().to_string();
        ensure!(refusal.contains(key), "{refusal}");
        let refusals = || world.relay.daemon.log().matches("this one goes on").count();
        let so_far = refusals();
        nix::sys::signal::kill(before, Signal::SIGHUP)?;
        wait_until(
            "the refusal is in the log",
            SOON,
            || Ok(refusals() > so_far),
        )?;
        fs::write(world.relay.file(), text)?;
        drop(other);
        flow(&streams, 200)?;
    }
    assert_eq!(world.process()?, before);
    ensure_perfect(stop(streams)?, || world.report())?;
    // It can still be replaced.
    world.teredo("upgrade")?;
    ensure!(world.process()? != before, "the process is the same");
    Ok(())
}

#[test]
fn what_was_handed_over_is_removed_at_the_end() -> Result<()> {
    let scene = Scene::new(Topology::default())?;
    let before = scene.relay_state()?;
    let relay = scene.start_relay(&scene.relay_config().set("relay.xdp.mode", "native"))?;
    output(
        Command::new(binary()?)
            .args(["upgrade", "--config"])
            .arg(relay.file()),
    )?;
    let process = process_of(&scene.relay)?;
    nix::sys::signal::kill(process, Signal::SIGTERM)?;
    wait_until("the process ends", SOON, || {
        Ok(daemon_of(&scene.relay).is_err())
    })?;
    wait_until("nothing is left", SOON, || {
        Ok(scene.relay_state()? == before)
    })
}
