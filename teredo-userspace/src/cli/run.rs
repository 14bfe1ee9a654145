//! `teredo run`: the daemon, in the foreground.

use std::{future::pending, process, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::libc::{SIGHUP, SIGINT, SIGTERM};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    Start,
    check::{first_required, first_trouble},
    log, start_runtime,
};
use crate::{
    api::{self, ApiThread, Handle, Listeners, listener},
    check::{self, Purpose},
    config::{
        Config,
        secrets::{self, Secrets},
    },
    node::{Node, Patience},
    privileges::{self, UserChange},
};

/// The exit code that shells report for a process ended by a signal, less the signal's number.
const SIGNALLED: i32 = 128;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    start: Start,
    /// Fail if the host lacks something that a role needs, instead of waiting for it
    #[arg(long)]
    no_wait: bool,
}

/// Runs the daemon until a signal arrives. A failed start leaves nothing behind.
pub fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.start.file.load()?;
    log::start(&config.node)?;
    // Read the keys before dropping privileges.
    let secrets = secrets::load(&config);
    privileges::raise_file_limit();
    let user = privileges::plan_user_change(&config)?;
    // While the process may still write in directories of root.
    let owner = user.as_ref().map(UserChange::owner);
    let listeners = api::listen(&config.node.api, owner);
    privileges::prepare(&config, owner);
    // Before there is a second thread.
    privileges::give_up(&config, arguments.start.file.path(), user)?;
    let runtime = start_runtime()?;
    let result = runtime.block_on(daemon(config, secrets, listeners, arguments));
    // A slow client of the API must not delay the end.
    runtime.shutdown_background();
    result
}

async fn daemon(
    config: Config,
    secrets: Result<Secrets, secrets::Error>,
    listeners: Result<Listeners, listener::Error>,
    arguments: &Arguments,
) -> Result<()> {
    // From here on no signal ends the process before it has cleaned up.
    let mut signals = Signals::new()?;
    let purpose = Purpose {
        after_sunset: arguments.start.after_sunset,
        loads_program: false,
        has_api: listeners.is_ok(),
    };
    let report = check::examine(&config, secrets.as_ref(), purpose).await;
    first_trouble(&report)?;
    if arguments.no_wait {
        first_required(&report, &config)?;
    }
    // The node reports conditions itself.
    for defect in report.defects().filter(|defect| defect.condition.is_none()) {
        warn!("{}", defect.text);
    }
    let patience = if arguments.no_wait {
        Patience::Fail
    } else {
        Patience::Wait
    };
    let listeners = listeners?;
    let name = config.node.name.clone();
    let node = Node::start(config, secrets?, patience).await?;
    let handle = node.handle();
    let api = ApiThread::start(listeners, handle.clone()).context("cannot start the API")?;
    let watchdog = tokio::spawn(feed_watchdog(handle));
    notify(&[NotifyState::Ready]);
    info!("{name} is running");
    let result = node
        .run(async {
            signals.next().await;
            info!("{name} is stopping");
            notify(&[NotifyState::Stopping]);
            tokio::spawn(exit_at_second_signal(signals));
        })
        .await;
    watchdog.abort();
    if let Err(error) = api.stop() {
        error!("the API has failed: {error}");
    }
    result
}

/// The signals that end the daemon.
struct Signals([(Signal, i32); 3]);

impl Signals {
    fn new() -> Result<Self> {
        let on = |number| Ok::<_, std::io::Error>((signal(SignalKind::from_raw(number))?, number));
        let signals = [on(SIGTERM), on(SIGINT), on(SIGHUP)];
        let [terminate, interrupt, hangup] = signals;
        let context = "cannot wait for signals";
        Ok(Self([
            terminate.context(context)?,
            interrupt.context(context)?,
            hangup.context(context)?,
        ]))
    }

    /// Waits for a signal and returns its number.
    async fn next(&mut self) -> i32 {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.0.recv() => terminate.1,
            _ = interrupt.0.recv() => interrupt.1,
            _ = hangup.0.recv() => hangup.1,
        }
    }
}

/// Exits immediately at a second signal.
async fn exit_at_second_signal(mut signals: Signals) {
    let number = signals.next().await;
    process::exit(SIGNALLED + number);
}

/// Notifies systemd's watchdog, if there is one, as long as the node answers.
async fn feed_watchdog(handle: Handle) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    let period = (limit / 2).max(Duration::from_millis(1));
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        if matches!(timeout(period, handle.snapshot()).await, Ok(Ok(_))) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Running without systemd is no error.
    if let Err(error) = sd_notify::notify(state) {
        debug!("cannot notify systemd: {error}");
    }
}
