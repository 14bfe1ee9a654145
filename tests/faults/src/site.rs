//! A scene with our relay, server and client under load.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use teredo::api::types::Verdict;
use teredo_lab::{
    Scene, Teredo, Topology,
    scene::{Client, Maker},
    wait_until,
};

use crate::{
    load::{Load, Rates, tally::Class},
    metrics::{self, Numbers},
};

/// Longest time for a start.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time without losses after which traffic flows again.
const TRIAL: Duration = Duration::from_millis(500);
/// The time that packets may take.
const UNDER_WAY: Duration = Duration::from_millis(150);
/// The classes that are sent all the time and arrive.
pub const STEADY: [Class; 4] = [Class::Down, Class::Up, Class::ClientDown, Class::ClientUp];

/// A daemon of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The relay.
    Relay,
    /// The server.
    Server,
    /// The client.
    Client,
}

impl Who {
    /// All daemons.
    pub const ALL: [Self; 3] = [Self::Relay, Self::Server, Self::Client];

    /// Returns the name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// The site. Its parts end in the order of the fields.
#[derive(Debug)]
pub struct Site {
    /// The load.
    pub load: Load,
    client: Client,
    /// The relay.
    pub relay: Teredo,
    /// The server.
    pub server: Teredo,
    /// The network.
    pub scene: Scene,
}

impl Site {
    /// Builds the scene, starts the daemons and the load, and waits until all steady traffic flows.
    ///
    /// # Errors
    ///
    /// Fails without root, or when a daemon does not come up.
    pub fn new(rates: Rates) -> Result<Self> {
        let scene = Scene::new(Topology {
            server: None,
            ..Topology::default()
        })?;
        let server = scene.start_server(&scene.server_config())?;
        let relay = scene.start_relay(&scene.relay_config())?;
        let client = scene.start_client_of(Maker::Teredo, scene.site())?;
        let load = Load::start(&scene, Some(client.address()), rates)?;
        let site = Self {
            load,
            client,
            relay,
            server,
            scene,
        };
        site.flows()?;
        Ok(site)
    }

    /// Waits until packets of every steady class arrive.
    ///
    /// # Errors
    ///
    /// Fails when they do not.
    pub fn flows(&self) -> Result<()> {
        let phase = self.load.tally().next_phase();
        for class in STEADY {
            wait_until(class.name(), PATIENCE, || {
                let count = self.load.tally().during(class, phase..=phase);
                Ok(count.delivered > 20)
            })?;
        }
        Ok(())
    }

    /// Waits until no packet of the steady classes is lost for half a second.
    ///
    /// # Errors
    ///
    /// Fails when packets are still lost after `bound`, with their numbers.
    pub fn recovers(&self, bound: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let tally = self.load.tally();
            let phase = tally.next_phase();
            thread::sleep(TRIAL);
            tally.next_phase();
            thread::sleep(UNDER_WAY);
            let counts = STEADY.map(|class| (class.name(), tally.during(class, phase..=phase)));
            if counts
                .iter()
                .all(|(_, count)| count.sent > 0 && count.missing() == 0)
            {
                return Ok(start.elapsed());
            }
            ensure!(
                start.elapsed() < bound,
                "packets are still lost after {bound:?}: {counts:?}"
            );
        }
    }

    /// Waits until no daemon reports a condition.
    ///
    /// # Errors
    ///
    /// Fails when one still does after `bound`.
    pub fn is_well(&self, bound: Duration) -> Result<()> {
        for who in Who::ALL {
            let daemon = self.daemon(who);
            let waited = wait_until("no condition is left", bound, || {
                let status = daemon.status()?;
                Ok(status.verdict == Verdict::Ok && status.conditions.is_empty())
            });
            waited.with_context(|| {
                let conditions = daemon.status().map(|status| status.conditions);
                format!(
                    "the {}: {conditions:?}\n{}",
                    who.name(),
                    daemon.daemon.log()
                )
            })?;
        }
        Ok(())
    }

    /// Returns one of the daemons.
    ///
    /// # Panics
    ///
    /// Never: the client is ours.
    #[must_use]
    pub fn daemon(&self, who: Who) -> &Teredo {
        match who {
            Who::Relay => &self.relay,
            Who::Server => &self.server,
            Who::Client => self.client.teredo().expect("the client is ours"),
        }
    }

    /// Returns the metrics of a daemon.
    ///
    /// # Errors
    ///
    /// Fails when it does not answer.
    pub fn metrics(&self, who: Who) -> Result<Numbers> {
        let socket: PathBuf = self.daemon(who).daemon.path().join("api");
        metrics::of_daemon(&socket).with_context(|| format!("the {}", who.name()))
    }

    /// Ends the relay with SIGTERM and starts it again.
    ///
    /// # Errors
    ///
    /// Fails when it does not come up.
    pub fn restart_relay(&mut self) -> Result<()> {
        self.relay.restart(&self.scene.relay)
    }

    /// Ends the relay with SIGKILL and starts it again.
    ///
    /// # Errors
    ///
    /// Fails when it does not come up.
    pub fn kill_relay(&mut self) -> Result<()> {
        self.relay.daemon.kill()?;
        self.relay.start_again(&self.scene.relay)
    }

    /// Ends the server with SIGTERM and starts it again.
    ///
    /// # Errors
    ///
    /// Fails when it does not come up.
    pub fn restart_server(&mut self) -> Result<()> {
        self.server.restart(self.scene.server_namespace())
    }
}
