//! The routing daemon BIRD, with the configurations that the project ships.

use std::{fs, os::unix::net::UnixStream, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    cpu,
    namespace::Namespace,
    process::{self, Daemon},
};

/// Longest time that a start may take.
const START: Duration = Duration::from_secs(15);

/// The configuration for a relay host.
pub const RELAY: &str = include_str!("../../../packaging/bird/bird.conf");
/// The configuration for the router in front of relays.
pub const ROUTER: &str = include_str!("../../../packaging/bird/router.conf");
/// The configuration for a relay of a fleet.
pub const FLEET: &str = include_str!("../../../packaging/bird/fleet.conf");
/// The configuration for the router in front of a fleet.
pub const FLEET_ROUTER: &str = include_str!("../../../packaging/bird/fleet-router.conf");

/// Returns the configuration for the router in front of these relays, made as the comments in it say.
///
/// # Errors
///
/// Fails when the configuration has no block for a relay.
pub fn router_of(relays: &[String]) -> Result<String> {
    let (before, block) = ROUTER
        .split_once("# Add one of these for each relay.\n")
        .context("the configuration has a block for each relay")?;
    let blocks = (1..).zip(relays).map(|(number, relay)| {
        let block = block.replace("relay_1", &format!("relay_{number}"));
        block.replace("neighbor RELAY ", &format!("neighbor {relay} "))
    });
    Ok(before.to_owned() + &blocks.collect::<String>())
}

/// A running BIRD.
#[derive(Debug)]
pub struct Bird {
    /// Its process.
    pub daemon: Daemon,
    configuration: String,
}

impl Bird {
    /// Starts BIRD with a configuration, of which some lines have other values: `define NAME = VALUE;` for
    /// each of `values`.
    ///
    /// # Errors
    ///
    /// Fails when BIRD does not accept the configuration, or does not start.
    pub fn start(
        namespace: &Namespace,
        configuration: &str,
        values: &[(&str, &str)],
    ) -> Result<Self> {
        let directory = Daemon::directory("bird")?;
        let configuration = configuration.replace("log syslog all;", "log stderr all;");
        let configuration = with(&configuration, values)?;
        let path = directory.path().join("bird.conf");
        fs::write(&path, &configuration)?;
        process::output(Command::new("bird").arg("-p").arg("-c").arg(&path))?;
        let mut command = namespace.command("bird")?;
        command.arg("-f").arg("-c").arg(&path);
        command.arg("-s").arg(directory.path().join("bird.ctl"));
        // On a router, little else needs the processor: BFD takes a pause of three tenths of a second for the end.
        cpu::prefer(&mut command);
        let mut bird = Self {
            daemon: Daemon::start("bird", command, directory)?,
            configuration,
        };
        let socket = bird.daemon.path().join("bird.ctl");
        bird.daemon.wait_for("BIRD answers", START, || {
            Ok(UnixStream::connect(&socket).ok())
        })?;
        Ok(bird)
    }

    /// Runs a command of `birdc`, and returns its output.
    ///
    /// # Errors
    ///
    /// Fails when BIRD does not answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(self.daemon.path().join("bird.ctl"));
        process::output(birdc.args(command.split(' ')))
    }

    /// Gives some lines other values, as in [`Self::start`], and makes BIRD use them.
    ///
    /// # Errors
    ///
    /// Fails when BIRD does not accept the configuration.
    pub fn configure(&self, values: &[(&str, &str)]) -> Result<()> {
        self.replace(&with(&self.configuration, values)?)
    }

    /// Adds lines to the configuration, and makes BIRD use them.
    ///
    /// # Errors
    ///
    /// Fails when BIRD does not accept the configuration.
    pub fn extend(&mut self, lines: &str) -> Result<()> {
        self.configuration += lines;
        self.replace(&self.configuration)
    }

    fn replace(&self, configuration: &str) -> Result<()> {
        fs::write(self.daemon.path().join("bird.conf"), configuration)?;
        let answer = self.ask("configure")?;
        ensure!(answer.contains("Reconfigured"), "birdc: {answer}");
        Ok(())
    }
}

/// Gives lines of a configuration other values.
fn with(configuration: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut lines: Vec<_> = configuration.lines().map(str::to_owned).collect();
    for (name, value) in values {
        let start = format!("define {name} = ");
        let mut found = lines.iter_mut();
        let line = found.find(|line| line.starts_with(&start));
        *line.with_context(|| format!("the configuration defines {name}"))? =
            format!("{start}{value};");
    }
    Ok(lines.join("\n") + "\n")
}
