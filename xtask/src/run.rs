//! `cargo xtask run`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::{build, setup, shell};

/// The scene, or the daemon.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Run the daemon on this host with this configuration, instead of the scene
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Arguments of `teredo run` on this host, instead of the scene
    #[arg(last = true, conflicts_with = "config")]
    daemon: Vec<String>,
    /// Arguments of the scene: `cargo xtask run --seconds 20`, `--one-armed`, `--relay miredo`
    #[command(flatten)]
    scene: Scene,
}

/// Parameters of the scene.
#[derive(Args, Debug)]
struct Scene {
    /// Stop after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Give the relay one interface for IPv4 and IPv6
    #[arg(long)]
    one_armed: bool,
    /// The mode of the XDP programs: auto, native, generic or off
    #[arg(long, value_name = "MODE")]
    xdp: Option<String>,
    /// The kind of the NAT: port-restricted, address-restricted, full-cone or symmetric
    #[arg(long, value_name = "KIND")]
    nat: Option<String>,
    /// The relay's implementation: teredo or miredo
    #[arg(long, value_name = "MAKER")]
    relay: Option<String>,
    /// The server's implementation: teredo or miredo
    #[arg(long, value_name = "MAKER")]
    server: Option<String>,
    /// The client's implementation: teredo or miredo
    #[arg(long, value_name = "MAKER")]
    client: Option<String>,
    /// Play a fleet of so many relays, three, of which keys kill one and start it again
    #[arg(long, value_name = "RELAYS")]
    fleet: Option<String>,
}

impl Scene {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(seconds) = self.seconds {
            arguments.push(format!("--seconds={seconds}"));
        }
        if self.one_armed {
            arguments.push("--one-armed".to_owned());
        }
        for (name, value) in [
            ("xdp", &self.xdp),
            ("nat", &self.nat),
            ("relay", &self.relay),
            ("server", &self.server),
            ("client", &self.client),
            ("fleet", &self.fleet),
        ] {
            arguments.extend(value.as_ref().map(|value| format!("--{name}={value}")));
        }
        arguments
    }
}

/// Runs the scene, or the daemon on this host.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(file) = &arguments.config {
        let file = file.to_string_lossy().into_owned();
        return daemon(&["--config".to_owned(), file]);
    }
    if !arguments.daemon.is_empty() {
        return daemon(&arguments.daemon);
    }
    setup::ensure()?;
    build::packages(&["teredo-userspace", "teredo-scene"], true)?;
    let directory = build::directory(true);
    let mut command = shell::as_root(directory.join("scene"));
    shell::become_command(command.args(arguments.scene.arguments()))
}

fn daemon(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure_build()?;
    let program = build::daemon(true)?;
    shell::become_command(shell::as_root(program).arg("run").args(arguments))
}
