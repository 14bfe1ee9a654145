//! The routing daemons of FRR, with the configuration that the project ships.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::{Group, User, chown};

use super::{
    namespace::Namespace,
    process::{self, Daemon},
};

/// Longest time that a start may take.
const START: Duration = Duration::from_secs(15);
/// The user and group that the daemons run as.
const OWNER: &str = "frr";
/// The directory of the daemons.
const PROGRAMS: &str = "/usr/lib/frr";

/// The configuration for a relay host.
pub const RELAY: &str = include_str!("../../../packaging/frr/frr.conf");

/// A running FRR. Its parts are in the order in which they have to end.
#[derive(Debug)]
pub struct Frr {
    _others: Vec<Daemon>,
    zebra: Daemon,
}

impl Frr {
    /// Starts FRR with a configuration in which some words stand for others.
    ///
    /// # Errors
    ///
    /// Fails when FRR does not accept the configuration, or does not start.
    pub fn start(
        namespace: &Namespace,
        configuration: &str,
        values: &[(&str, &str)],
    ) -> Result<Self> {
        let directory = Daemon::directory(OWNER)?;
        let path = directory.path().to_owned();
        let (user, group) = (User::from_name(OWNER)?, Group::from_name(OWNER)?);
        let (user, group) = user.zip(group).context("no user frr")?;
        chown(&path, Some(user.uid), Some(group.gid))?;
        fs::write(path.join("frr.conf"), with(configuration, values))?;
        // vtysh looks for it.
        fs::write(path.join("vtysh.conf"), "")?;
        let start = |name: &str, directory| {
            let mut command = namespace.command(format!("{PROGRAMS}/{name}"))?;
            command.args(["-P", "0", "-u", OWNER, "-g", OWNER, "--log", "stdout"]);
            command.arg("-z").arg(path.join("zserv.api"));
            command.arg("--vty_socket").arg(&path);
            command.arg("-i").arg(path.join(format!("{name}.pid")));
            if name == "bfdd" {
                command.arg("--bfdctl").arg(path.join("bfdd.sock"));
            }
            let mut daemon = Daemon::start(name, command, directory)?;
            let socket = path.join(format!("{name}.vty"));
            daemon.wait_for("it answers", START, || Ok(socket.exists().then_some(())))?;
            anyhow::Ok(daemon)
        };
        let zebra = start("zebra", directory)?;
        let others = ["staticd", "bfdd", "bgpd"].map(|name| start(name, Daemon::directory(name)?));
        let frr = Self {
            _others: others.into_iter().collect::<Result<_>>()?,
            zebra,
        };
        process::output(frr.vtysh().arg("-b"))?;
        Ok(frr)
    }

    /// Runs commands of `vtysh`, one in the mode of the one before, and returns their output.
    ///
    /// # Errors
    ///
    /// Fails when FRR does not answer, or does not know a command.
    pub fn ask(&self, commands: &[&str]) -> Result<String> {
        let mut vtysh = self.vtysh();
        for command in commands {
            vtysh.args(["-c", command]);
        }
        process::output(&mut vtysh)
    }

    fn vtysh(&self) -> Command {
        let path: PathBuf = self.zebra.path().to_owned();
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&path);
        vtysh.arg("--config_dir").arg(&path);
        vtysh
    }
}

/// Replaces whole words.
fn with(configuration: &str, values: &[(&str, &str)]) -> String {
    let lines = configuration.lines().map(|line| {
        let words = line.split(' ').map(|word| {
            let mut values = values.iter();
            values
                .find(|(name, _)| *name == word)
                .map_or(word, |(_, value)| value)
        });
        words.collect::<Vec<_>>().join(" ") + "\n"
    });
    lines.collect()
}
