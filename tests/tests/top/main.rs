//! `teredo top` with a daemon that works, in a terminal.

mod terminal;

use std::{net::Ipv4Addr, process::Command};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use teredo_lab::{
    Scene, Teredo, Topology,
    peers::{Conversation, Peers},
    process::{Daemon, output},
    scene::{Maker, RELAY, SERVER},
    teredo::binary,
};
use terminal::Terminal;

const USUAL: (u16, u16) = (80, 24);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(20, 0, 2, 1);
const COUNT: u16 = 5;

/// A relay with peers.
struct World {
    // In the order in which they end.
    relay: Teredo,
    peers: Peers,
    scene: Scene,
    /// Has the socket of the API, which stays the same when the relay is started again.
    directory: TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let scene = Scene::new(Topology {
            clients: 0,
            server: Some(Maker::Miredo),
            ..Topology::default()
        })?;
        let directory = Daemon::directory("api")?;
        let relay = scene.start_relay(&scene.relay_config().set("node.api", api(&directory)))?;
        let namespace = scene.add_ipv4_host("peers", ADDRESS)?;
        let peers = Peers::open(&namespace, SERVER, ADDRESS, 10_000, COUNT)?;
        let world = Self {
            relay,
            peers,
            scene,
            directory,
        };
        let conversation = world.conversation()?;
        conversation.open(RELAY)?;
        conversation.prove()?;
        Ok(world)
    }

    fn conversation(&self) -> Result<Conversation<'_>> {
        Conversation::new(self.scene.host(), &self.peers)
    }

    fn top(&self, variables: &[(&str, &str)], size: (u16, u16)) -> Result<Terminal> {
        let api = api(&self.directory);
        let arguments = ["--interval", "0.2", "--api", &api];
        Terminal::start(&arguments, variables, size)
    }
}

fn api(directory: &TempDir) -> String {
    format!("unix:{}", directory.path().join("socket").display())
}

#[test]
fn it_shows_a_relay_and_keys_work() -> Result<()> {
    let world = World::new()?;
    let mut top = world.top(&[], USUAL)?;
    top.shows(&[
        "teredo",
        "relay  up",
        " ok",
        "5 trusted",
        "to clients",
        "╭ ",
    ])?;
    // Rates come with traffic, and go with it.
    let conversation = world.conversation()?;
    conversation.exchange(RELAY)?;
    let address = world.peers.address(2).to_string();
    top.shows(&[&address])?;
    top.keys("?")?;
    top.shows(&["sort by traffic"])?;
    top.keys("?2")?;
    top.shows(&["heard", &address])?;
    let endpoint = format!("{ADDRESS}:10002");
    top.keys(&format!("/{endpoint}\r"))?;
    top.shows(&["1 match"])?;
    top.keys("\r")?;
    top.shows(&["mapped", &endpoint, "cone flag", "trusted and proved"])?;
    top.keys("4")?;
    top.shows(&["none: every role does its job", "UDP 20.0.1.1:3545"])?;
    top.keys("1")?;
    top.resize(160, 50)?;
    top.shows(&["peers and bubbles", "fast path"])?;
    top.keys("q")?;
    assert_eq!(top.code()?, Some(0));
    top.is_given_back()
}

#[test]
fn keys_that_come_with_a_new_size_work() -> Result<()> {
    let world = World::new()?;
    let mut top = world.top(&[], USUAL)?;
    top.shows(&["to clients"])?;
    // Either may be first, and both may be there when the view looks.
    for turn in 0..80 {
        let views = [
            ("4", USUAL, "endpoints and limits"),
            ("1", (160, 50), "peers and bubbles"),
        ];
        for (key, (columns, lines), part) in views {
            if turn % 2 == 0 {
                top.keys(key)?;
                top.resize(columns, lines)?;
            } else {
                top.resize(columns, lines)?;
                top.keys(key)?;
            }
            top.shows(&[part])?;
        }
    }
    top.keys("q")?;
    assert_eq!(top.code()?, Some(0));
    top.is_given_back()
}

#[test]
fn conditions_show_with_their_remedies() -> Result<()> {
    let world = World::new()?;
    let top = world.top(&[], USUAL)?;
    top.shows(&[" ok"])?;
    world
        .scene
        .relay
        .ip("-6 route add 2001::/32 dev lo metric 1")?;
    top.shows(&["DOWN", "route-diverted"])?;
    world
        .scene
        .relay
        .ip("-6 route del 2001::/32 dev lo metric 1")?;
    top.shows(&[" ok"])
}

#[test]
fn it_waits_for_a_daemon_that_goes_away() -> Result<()> {
    let mut world = World::new()?;
    let top = world.top(&[], (100, 24))?;
    top.shows(&[" ok"])?;
    world.relay.daemon.kill()?;
    top.shows(&["NO ANSWER", "trying again: no daemon answers"])?;
    world.relay.start_again(&world.scene.relay)?;
    top.shows(&["the daemon was restarted", "5 trusted"])
}

#[test]
fn signals_give_the_terminal_back() -> Result<()> {
    let world = World::new()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut top = world.top(&[], USUAL)?;
        top.shows(&["to clients"])?;
        assert!(top.is_taken()?);
        top.signal(signal)?;
        assert_eq!(top.code()?, Some(0), "{signal}");
        top.is_given_back().with_context(|| signal.to_string())?;
    }
    let mut top = world.top(&[], USUAL)?;
    top.shows(&["to clients"])?;
    top.keys("\x03")?;
    assert_eq!(top.code()?, Some(0), "Ctrl-C");
    top.is_given_back()
}

#[test]
fn a_stopped_view_leaves_the_terminal_to_the_shell() -> Result<()> {
    let world = World::new()?;
    let mut top = world.top(&[], USUAL)?;
    for by_key in [false, true] {
        top.shows(&["to clients"])?;
        match by_key {
            true => top.keys("\x1a")?,
            false => top.signal(Signal::SIGTSTP)?,
        }
        top.is_stopped()?;
        top.is_given_back()?;
        top.signal(Signal::SIGCONT)?;
        top.shows(&["to clients", "q end"])?;
        assert!(top.is_taken()?);
    }
    top.keys("q")?;
    assert_eq!(top.code()?, Some(0));
    top.is_given_back()
}

#[test]
fn it_respects_terminals_that_can_do_less() -> Result<()> {
    let world = World::new()?;
    let top = world.top(&[("LANG", "C"), ("NO_COLOR", "1")], (60, 20))?;
    top.shows(&["to clients", "+ peers"])?;
    let octets = top.octets();
    assert!(octets.is_ascii(), "{}", top.text());
    let text = String::from_utf8(octets)?;
    for colour in ["\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[38;5;"] {
        assert!(!text.contains(colour), "{colour:?}");
    }
    let mut top = world.top(&[("TERM", "dumb")], USUAL)?;
    top.shows(&["cannot place a cursor", "--once"])?;
    assert_eq!(top.code()?, Some(1));
    top.is_given_back()
}

#[test]
fn one_picture_goes_into_a_pipe() -> Result<()> {
    let world = World::new()?;
    let once = |program: &str| -> Result<String> {
        let mut command = Command::new(program);
        command
            .args(["top", "--once", "--interval", "0.2", "--config"])
            .arg(world.relay.file())
            .env("LANG", "C.UTF-8")
            .env_remove("LC_ALL");
        output(&mut command)
    };
    let program = binary()?.to_string_lossy().into_owned();
    let text = once(&program)?;
    for part in [
        "relay",
        "5 trusted",
        "to clients",
        &world.peers.address(0).to_string(),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    // Without `--once` there has to be a terminal.
    let mut command = Command::new(&program);
    let refused = command
        .args(["top", "--config"])
        .arg(world.relay.file())
        .output()?;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr)?;
    assert!(
        said.contains("standard output is no terminal; `teredo top --once`"),
        "{said}"
    );
    Ok(())
}
