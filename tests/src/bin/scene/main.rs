//! The scene that `cargo xtask run` plays: a relay between a Teredo client behind a NAT and a
//! native IPv6 host, with ping and TCP both ways, and what the relay says about it.

mod display;
mod traffic;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use display::Display;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use teredo_tests::lab::{
    Capture, NatKind, Scene, Teredo, Topology,
    miredo::{self, Client},
    scene::{IPV6_INTERFACE, RELAY, SERVER},
};
use traffic::Traffic;

/// How many packets at the host are looked at for bad checksums.
const CHECKED: usize = 5_000;

#[derive(Debug, Parser)]
struct Arguments {
    /// End by itself after so many seconds of traffic
    #[arg(long)]
    seconds: Option<u64>,
    /// Give the relay one interface for IPv4 and IPv6
    #[arg(long)]
    one_armed: bool,
    /// How our relay's XDP program is attached
    #[arg(long, value_enum, default_value_t)]
    xdp: Xdp,
    /// What the NAT does
    #[arg(long, value_enum, default_value_t)]
    nat: Nat,
    /// Whose relay
    #[arg(long, value_enum, default_value_t)]
    relay: Relay,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Xdp {
    #[default]
    Auto,
    Native,
    Generic,
    Off,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Nat {
    #[default]
    PortRestricted,
    AddressRestricted,
    FullCone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
enum Relay {
    #[default]
    Teredo,
    Miredo,
}

impl From<Nat> for NatKind {
    fn from(nat: Nat) -> Self {
        match nat {
            Nat::PortRestricted => Self::PortRestricted,
            Nat::AddressRestricted => Self::AddressRestricted,
            Nat::FullCone => Self::FullCone,
        }
    }
}

/// Set by SIGINT and SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: i32) {
    STOP.store(true, Ordering::Relaxed);
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
    // The second signal ends the program at once; its namespaces are swept by the next one.
    let action = SigAction::new(
        SigHandler::Handler(stop),
        SaFlags::SA_RESETHAND,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }

    let scene = Scene::new(Topology {
        one_armed: arguments.one_armed,
        nat: arguments.nat.into(),
        ..Topology::default()
    })?;
    println!("IPv4 internet     20.0.0.0/16");
    println!("Teredo server     {SERVER} (Miredo)");
    let relay = RunningRelay::start(&scene, arguments)?;
    println!("relay             {RELAY} ({})", relay.description()?);
    println!(
        "NAT               {} ({:?})",
        scene.site().nat.address(),
        arguments.nat
    );
    let client = scene.start_client()?;
    println!("Teredo client     {} (Miredo)", client.address());
    println!("native IPv6 host  {}", scene.host().address);
    println!();
    watch(&scene, &relay, &client, arguments)
}

/// The relay of the scene.
enum RunningRelay {
    Teredo(Box<Teredo>),
    Miredo(#[expect(dead_code, reason = "it runs while it is held")] miredo::Relay),
}

impl RunningRelay {
    fn start(scene: &Scene, arguments: &Arguments) -> Result<Self> {
        Ok(match arguments.relay {
            Relay::Miredo => Self::Miredo(scene.start_miredo_relay()?),
            Relay::Teredo => {
                let mode = arguments
                    .xdp
                    .to_possible_value()
                    .context("every mode has a name")?;
                let config = scene.relay_config().set("relay.xdp.mode", mode.get_name());
                Self::Teredo(Box::new(scene.start_relay(&config)?))
            }
        })
    }

    fn description(&self) -> Result<String> {
        let Self::Teredo(teredo) = self else {
            return Ok("Miredo".to_owned());
        };
        let interfaces = teredo.status()?.xdp.into_iter().map(|attachment| {
            let reason = match attachment.reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            format!("{}: {}{reason}", attachment.interface, attachment.mode)
        });
        Ok(format!(
            "XDP on {}",
            interfaces.collect::<Vec<_>>().join("; ")
        ))
    }

    fn teredo(&self) -> Option<&Teredo> {
        match self {
            Self::Teredo(teredo) => Some(teredo),
            Self::Miredo(_) => None,
        }
    }
}

fn watch(
    scene: &Scene,
    relay: &RunningRelay,
    client: &Client,
    arguments: &Arguments,
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
    let mut display = Display::new(relay.teredo())?;
    thread::scope(|scope| -> Result<()> {
        traffic.start(scope, scene, client.address());
        let result = (|| {
            let mut next = start;
            while !STOP.load(Ordering::Relaxed) && end.is_none_or(|end| Instant::now() < end) {
                let now = Instant::now();
                if now >= next {
                    next += Duration::from_secs(1);
                    display.show(start.elapsed(), &traffic)?;
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })();
        traffic.stop();
        result
    })?;
    let checksums = capture.stop()?;
    let bad = checksums.bad_checksums()?;
    display.summary(&traffic, checksums.0.len(), &bad)?;
    let fast = arguments.xdp == Xdp::Off || display.fast_path_was_used();
    Ok(traffic.passed() && bad.is_empty() && (relay.teredo().is_none() || fast))
}
