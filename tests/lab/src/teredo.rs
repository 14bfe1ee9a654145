//! Our own daemon.

use std::{
    env, fs,
    net::Ipv6Addr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
pub use teredo::api::types::{Directions, Paths, Peer, PeerState, Status};
use toml::{Table, Value};

use super::{
    miredo::INTERFACE,
    namespace::Namespace,
    process::{Daemon, output},
};

/// Longest time that a start may take.
const START: Duration = Duration::from_secs(15);
/// Longest time that a client may take to qualify.
const QUALIFICATION: Duration = Duration::from_secs(20);

/// Path of the `teredo` binary: `TEREDO_BIN`, else beside this program or, for a test, in the
/// directory above it.
///
/// # Errors
///
/// Fails when the binary has not been built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TEREDO_BIN") {
        return Ok(path.into());
    }
    let program = env::current_exe()?;
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("teredo"))
        .find(|path| path.is_file())
        .context("the daemon was not built: `cargo xtask build`")
}

/// A configuration file of the daemon, with dotted keys.
#[derive(Clone, Debug, Default)]
pub struct Config(Table);

impl Config {
    /// An empty configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value, as `.set("relay.xdp.mode", "off")`. A section appears with its first key.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let mut parts = key.split('.').collect::<Vec<_>>();
        let last = parts.pop().unwrap_or_default();
        let mut table = &mut self.0;
        for part in parts {
            table = table
                .entry(part)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .expect("a section is no value");
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// Adds the sections of another configuration, which must not have any of these.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn has(&self, section: &str, key: &str) -> bool {
        let section = self.0.get(section);
        section.is_some_and(|section| section.get(key).is_some())
    }
}

/// The text of the file.
impl std::fmt::Display for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A running `teredo run`.
#[derive(Debug)]
pub struct Teredo {
    /// The daemon's process.
    pub daemon: Daemon,
    file: PathBuf,
}

impl Teredo {
    /// Waits until the API answers.
    ///
    /// # Errors
    ///
    /// Fails when the daemon ends or does not answer in time, with the end of its log.
    pub fn ready(&mut self) -> Result<()> {
        let file = self.file.clone();
        self.daemon.wait_for("its API answers", START, || {
            Ok(ask::<Status>(&file, "status").ok())
        })?;
        Ok(())
    }

    /// Starts the daemon and waits until its API answers. The configuration's `node.name` is
    /// unique and `node.api` a socket of its own unless they are set.
    ///
    /// # Errors
    ///
    /// Fails when the daemon ends or does not answer in time, with the end of its log.
    pub fn start(namespace: &Namespace, config: &Config) -> Result<Self> {
        let mut teredo = Self::start_unready(namespace, config)?;
        teredo.ready()?;
        Ok(teredo)
    }

    /// Starts the daemon without waiting.
    ///
    /// # Errors
    ///
    /// Fails when the daemon cannot be started.
    pub fn start_unready(namespace: &Namespace, config: &Config) -> Result<Self> {
        Self::start_prepared(namespace, config, |_| Ok(()))
    }

    /// Starts the daemon without waiting, with a command that `prepare` may change.
    ///
    /// # Errors
    ///
    /// Fails when the daemon cannot be started, and as `prepare`.
    pub fn start_prepared(
        namespace: &Namespace,
        config: &Config,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let directory = Daemon::directory("daemon")?;
        let file = directory.path().join("teredo.toml");
        fs::write(&file, complete(config, namespace, &directory).to_string())?;
        let mut command = run(namespace, &file, &[])?;
        prepare(&mut command)?;
        let daemon = Daemon::start("teredo", command, directory)?;
        Ok(Self { daemon, file })
    }

    /// Waits until the client is qualified and returns its address.
    ///
    /// # Errors
    ///
    /// Fails when qualification takes too long, with the end of the daemon's log.
    pub fn qualified(&mut self, namespace: &Namespace) -> Result<Ipv6Addr> {
        self.daemon.wait_for("it is qualified", QUALIFICATION, || {
            Ok(client_address(namespace))
        })
    }

    /// Starts a daemon with the same configuration after this one has ended in any way, and waits
    /// until its API answers.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::start`].
    pub fn start_again(&mut self, namespace: &Namespace) -> Result<()> {
        self.start_again_under(namespace, &[])
    }

    /// Starts the daemon as [`Self::start_again`] does, through the command that `prefix` begins.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::start`].
    pub fn start_again_under(&mut self, namespace: &Namespace, prefix: &[&str]) -> Result<()> {
        if self.daemon.status()?.is_none() {
            bail!("the daemon still runs");
        }
        let directory = Daemon::directory("daemon")?;
        let text = fs::read_to_string(&self.file)?;
        let old = self.daemon.path().to_string_lossy().into_owned();
        let file = directory.path().join("teredo.toml");
        fs::write(
            &file,
            text.replace(&old, &directory.path().to_string_lossy()),
        )?;
        self.daemon = Daemon::start("teredo", run(namespace, &file, prefix)?, directory)?;
        self.file = file;
        self.ready()
    }

    /// Ends the daemon with SIGTERM and starts it again.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not end or does not come up again.
    pub fn restart(&mut self, namespace: &Namespace) -> Result<()> {
        self.daemon.terminate()?;
        self.start_again(namespace)
    }

    /// Makes the daemon do something: `teredo drain`, for example.
    ///
    /// # Errors
    ///
    /// Fails when the command does.
    pub fn tell(&self, command: &str) -> Result<()> {
        let mut teredo = Command::new(binary()?);
        output(teredo.args([command, "--config"]).arg(self.file())).map(drop)
    }

    /// The daemon's configuration file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The output of `teredo status --json`.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer, or answers in another form.
    pub fn status(&self) -> Result<Status> {
        ask(&self.file, "status")
    }

    /// Whether the daemon has a condition of this kind.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::status`].
    pub fn has_condition(&self, kind: &str) -> Result<bool> {
        let conditions = self.status()?.conditions;
        Ok(conditions.iter().any(|condition| condition.kind == kind))
    }

    /// The output of `teredo peers --json`.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer, or answers in another form.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        ask(&self.file, "peers")
    }

    /// The peer with this address, if the relay knows it.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::peers`].
    pub fn peer(&self, address: Ipv6Addr) -> Result<Option<Peer>> {
        let peers = self.peers()?;
        Ok(peers.into_iter().find(|peer| peer.address == address))
    }

    /// Number of packets of a kind that the server served with this result, such as `solicitation`
    /// and `advertised`.
    ///
    /// # Errors
    ///
    /// Fails when the daemon does not answer, or has no server.
    pub fn served(&self, kind: &str, result: &str) -> Result<Paths> {
        let server = self.status()?.server.context("the daemon has no server")?;
        let results = server.requests.get(kind);
        Ok(results
            .and_then(|results| results.get(result))
            .copied()
            .unwrap_or_default())
    }

    /// Number of solicitations without a key that the server answered.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::served`].
    pub fn advertised(&self) -> Result<Paths> {
        self.served("solicitation", "advertised")
    }

    /// The packets that were forwarded while `work` ran.
    ///
    /// # Errors
    ///
    /// Those of `work`, and as [`Self::status`].
    pub fn packets_during(&self, work: impl FnOnce() -> Result<()>) -> Result<Directions> {
        let before = self.status()?.packets;
        work()?;
        Ok(between(before, self.status()?.packets))
    }
}

pub(crate) fn complete(config: &Config, namespace: &Namespace, directory: &TempDir) -> Config {
    let mut config = config.clone();
    if !config.has("node", "name") {
        config = config.set("node.name", namespace.name());
    }
    if !config.has("node", "api") {
        let socket = directory.path().join("api");
        config = config.set("node.api", format!("unix:{}", socket.display()));
    }
    config
}

/// The command that runs the daemon, as arguments of the command that `prefix` begins.
fn run(namespace: &Namespace, file: &Path, prefix: &[&str]) -> Result<Command> {
    let program = binary()?;
    let mut command = if let [first, rest @ ..] = prefix {
        let mut command = namespace.command(first)?;
        command.args(rest).arg(program);
        command
    } else {
        let mut command = namespace.command(program)?;
        command.arg0("teredo");
        command
    };
    command.args(["run", "--config"]).arg(file);
    Ok(command)
}

pub(crate) fn ask<T: DeserializeOwned>(file: &Path, what: &str) -> Result<T> {
    let mut command = Command::new(binary()?);
    let text = output(command.args([what, "--json", "--config"]).arg(file))?;
    serde_json::from_str(&text).with_context(|| format!("teredo {what} --json printed {text}"))
}

/// The difference between two statuses.
#[must_use]
pub fn between(earlier: Directions, later: Directions) -> Directions {
    let paths = |earlier: Paths, later: Paths| Paths {
        xdp: later.xdp.saturating_sub(earlier.xdp),
        userspace: later.userspace.saturating_sub(earlier.userspace),
    };
    Directions {
        encap: paths(earlier.encap, later.encap),
        decap: paths(earlier.decap, later.decap),
    }
}

/// The share of the fast path, from 0 to 1; 0 if no packet was forwarded.
#[must_use]
pub fn fast_share(paths: Paths) -> f64 {
    paths.xdp as f64 / (paths.xdp + paths.userspace).max(1) as f64
}

/// Whether packets to the peer need no bubble.
#[must_use]
pub fn is_trusted(peer: &Peer) -> bool {
    peer.state == PeerState::Trusted
}

/// The Teredo address of a client's interface, whichever implementation made it, once the default
/// route leads through it.
#[must_use]
pub fn client_address(namespace: &Namespace) -> Option<Ipv6Addr> {
    // The interface does not exist yet when `ip` fails.
    let show = |what: &str| namespace.ip(what).unwrap_or_default();
    // Miredo sets the route after the address.
    if show(&format!("-6 route show default dev {INTERFACE}")).is_empty() {
        return None;
    }
    show(&format!("-6 -o addr show dev {INTERFACE} scope global"))
        .split_whitespace()
        .filter_map(|word| word.split_once('/')?.0.parse::<Ipv6Addr>().ok())
        .find(|address| address.segments()[..2] == [0x2001, 0])
}
