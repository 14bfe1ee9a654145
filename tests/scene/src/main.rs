//! The scene of `cargo xtask run`: a Teredo client behind a NAT, its server, a native IPv6 host and
//! a relay, with ping and TCP both ways, and the statistics of relay and server.

mod display;
mod fleet;
mod traffic;

use std::{
    net::Ipv6Addr,
    os::fd::{AsFd as _, OwnedFd},
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum, value_parser};
use display::{Display, Ours};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::{pipe2, write},
};
use teredo_lab::{
    Capture, NatKind, Scene, Teredo, Topology,
    scene::{IPV6_INTERFACE, Maker, RELAY, Relay, SERVER, Server},
};
use traffic::Traffic;

/// Number of packets at the host that are checked for bad checksums.
const CHECKED: usize = 5_000;

#[derive(Debug, Parser)]
struct Arguments {
    /// End after this many seconds of traffic
    #[arg(long)]
    seconds: Option<u64>,
    /// Give the relay one interface for IPv4 and IPv6
    #[arg(long)]
    one_armed: bool,
    /// How the XDP programs of our relay and server are attached
    #[arg(long, value_enum, default_value_t)]
    xdp: Xdp,
    /// Kind of the NAT
    #[arg(long, value_enum, default_value_t)]
    nat: Nat,
    /// Implementation of the relay
    #[arg(long, value_enum, default_value_t)]
    relay: Whose,
    /// Implementation of the server
    #[arg(long, value_enum, default_value_t)]
    server: Whose,
    /// Implementation of the client
    #[arg(long, value_enum, default_value_t)]
    client: Whose,
    /// Instead, play a fleet of so many relays, three, behind a router
    #[arg(long, value_name = "RELAYS", value_parser = value_parser!(u8).range(3..=3))]
    fleet: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Xdp {
    #[default]
    Auto,
    Native,
    Generic,
    Off,
}

impl Xdp {
    /// The name in a configuration.
    fn name(self) -> Result<String> {
        let value = self.to_possible_value();
        Ok(value
            .context("every mode has a name")?
            .get_name()
            .to_owned())
    }
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Nat {
    #[default]
    PortRestricted,
    AddressRestricted,
    FullCone,
    Symmetric,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Whose {
    #[default]
    Teredo,
    Miredo,
}

impl From<Whose> for Maker {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Teredo => Self::Teredo,
            Whose::Miredo => Self::Miredo,
        }
    }
}

impl From<Nat> for NatKind {
    fn from(nat: Nat) -> Self {
        match nat {
            Nat::PortRestricted => Self::PortRestricted,
            Nat::AddressRestricted => Self::AddressRestricted,
            Nat::FullCone => Self::FullCone,
            Nat::Symmetric => Self::Symmetric,
        }
    }
}

/// The pipe to which the handler of SIGINT and SIGTERM writes.
static NOTIFIER: OnceLock<OwnedFd> = OnceLock::new();

extern "C" fn tell(_: i32) {
    if let Some(notifier) = NOTIFIER.get() {
        // If the pipe is full, the signal has been reported already
        let _ = write(notifier, &[0]);
    }
}

/// A waiting place for SIGINT and SIGTERM.
struct Signals(OwnedFd);

impl Signals {
    /// Catches signals from now on. The second signal ends the program at once; the next run
    /// removes its namespaces.
    fn new() -> Result<Self> {
        let (listener, notifier) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        NOTIFIER
            .set(notifier)
            .ok()
            .context("one listener is enough")?;
        let action = SigAction::new(
            SigHandler::Handler(tell),
            SaFlags::SA_RESETHAND,
            SigSet::empty(),
        );
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: the handler only reads a static and writes to a pipe.
            unsafe { sigaction(signal, &action) }?;
        }
        Ok(Self(listener))
    }

    /// Whether a signal comes before `moment`.
    fn come_before(&self, moment: Instant) -> Result<bool> {
        let left = moment.saturating_duration_since(Instant::now());
        // Rounded up, so that the wait does not end a little too early again and again.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::EINTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn main() -> ExitCode {
    match play(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &Arguments) -> Result<bool> {
    let signals = Signals::new()?;
    if arguments.fleet.is_some() {
        return fleet::play(arguments.seconds, &signals);
    }
    let scene = Scene::new(Topology {
        one_armed: arguments.one_armed,
        nat: arguments.nat.into(),
        server: None,
        ..Topology::default()
    })?;
    println!("IPv4 internet     20.0.0.0/16");
    let server = start_server(&scene, arguments)?;
    println!(
        "Teredo server     {SERVER} ({})",
        description(server.teredo())?
    );
    let relay = start_relay(&scene, arguments)?;
    println!(
        "relay             {RELAY} ({})",
        description(relay.teredo())?
    );
    println!(
        "NAT               {} ({:?})",
        scene.site().nat.address(),
        arguments.nat
    );
    let client = scene.start_client_of(arguments.client.into(), scene.site())?;
    println!(
        "Teredo client     {} ({})",
        client.address(),
        match client.teredo() {
            Some(client) => client_description(client)?,
            None => "Miredo".to_owned(),
        }
    );
    println!("native IPv6 host  {}", scene.host().address);
    println!();
    let ours = Ours {
        relay: relay.teredo(),
        server: server.teredo(),
        client: client.teredo(),
    };
    watch(&scene, ours, client.address(), arguments, &signals)
}

fn start_server(scene: &Scene, arguments: &Arguments) -> Result<Server> {
    Ok(match arguments.server {
        Whose::Miredo => Server::Miredo(scene.start_miredo_server()?),
        Whose::Teredo => {
            let mode = arguments.xdp.name()?;
            let config = scene.server_config().set("server.xdp.mode", mode);
            Server::Teredo(Box::new(scene.start_server(&config)?))
        }
    })
}

/// The implementation of a relay or server, and the mode of its XDP program.
fn description(teredo: Option<&Teredo>) -> Result<String> {
    let Some(teredo) = teredo else {
        return Ok("Miredo".to_owned());
    };
    let interfaces = teredo.status()?.xdp.into_iter().map(|attachment| {
        let reason = match attachment.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        format!("{}: {}{reason}", attachment.interface, attachment.mode)
    });
    let interfaces = interfaces.collect::<Vec<_>>();
    Ok(match interfaces.is_empty() {
        true => "without XDP".to_owned(),
        false => format!("XDP on {}", interfaces.join("; ")),
    })
}

/// The results of our client's qualification.
fn client_description(client: &Teredo) -> Result<String> {
    let status = client.status()?.client.context("the daemon has a client")?;
    let mapped = status.mapped.context("a qualified client has a mapping")?;
    let nat = status
        .nat_behaviour
        .context("a qualified client knows its NAT")?;
    Ok(format!("seen as {mapped}; NAT {nat}"))
}

fn start_relay(scene: &Scene, arguments: &Arguments) -> Result<Relay> {
    Ok(match arguments.relay {
        Whose::Miredo => Relay::Miredo(scene.start_miredo_relay()?),
        Whose::Teredo => {
            let mode = arguments.xdp.name()?;
            let config = scene.relay_config().set("relay.xdp.mode", mode);
            Relay::Teredo(Box::new(scene.start_relay(&config)?))
        }
    })
}

fn watch(
    scene: &Scene,
    ours: Ours<'_>,
    client: Ipv6Addr,
    arguments: &Arguments,
    signals: &Signals,
) -> Result<bool> {
    let taken = AtomicUsize::new(0);
    let capture = Capture::filtered(&scene.host().namespace, IPV6_INTERFACE, move |_| {
        taken.fetch_add(1, Ordering::Relaxed) < CHECKED
    })?;
    let traffic = Traffic::default();
    let start = Instant::now();
    let end = arguments
        .seconds
        .map(|seconds| start + Duration::from_secs(seconds));
    let mut display = Display::new(ours)?;
    thread::scope(|scope| -> Result<()> {
        traffic.start(scope, scene, client);
        let result = (|| {
            let mut next = start;
            while end.is_none_or(|end| Instant::now() < end) {
                display.show(start.elapsed(), &traffic)?;
                next += Duration::from_secs(1);
                if signals.come_before(end.map_or(next, |end| next.min(end)))? {
                    break;
                }
            }
            Ok(())
        })();
        traffic.stop();
        result
    })?;
    let checksums = capture.stop()?;
    let bad = checksums.bad_checksums()?;
    display.summary(&traffic, checksums.0.len(), &bad)?;
    let is_fast = arguments.xdp == Xdp::Off
        || display.relay_was_fast().unwrap_or(true) && display.server_was_fast()?.unwrap_or(true);
    Ok(traffic.passed() && bad.is_empty() && is_fast)
}
