//! `teredo run`: the daemon, in the foreground.

use std::{future::pending, io::IsTerminal as _, process, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::libc::{SIGHUP, SIGINT, SIGTERM};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, timeout},
};
use tracing::{debug, error, info};
use tracing_subscriber::EnvFilter;

use super::{Start, check::first_trouble, start_runtime};
use crate::{
    api::{self, Handle},
    check::{self, Purpose},
    config::{
        Config,
        secrets::{self, Secrets},
    },
    node::Node,
    privileges,
};

/// The exit code of a process that a signal ended, as shells tell it, less the signal's number.
const SIGNALLED: i32 = 128;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    start: Start,
}

/// Runs until a signal comes. Trouble before the start leaves nothing behind.
pub fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.start.file.load()?;
    start_log(&config.node.log)?;
    // Before somebody else runs this who may not read them.
    let secrets = secrets::load(&config);
    // Before there is a second thread, see `Plan::carry_out`.
    if let Some(plan) = privileges::plan(&config)? {
        plan.carry_out(&config)?;
    }
    let runtime = start_runtime()?;
    let result = runtime.block_on(daemon(config, secrets, arguments.start.after_sunset));
    // Nothing that still waits for a slow reader of the API holds up the end.
    runtime.shutdown_background();
    result
}

fn start_log(filter: &str) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).context("node.log")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // systemd's journal writes the time itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
    Ok(())
}

async fn daemon(
    config: Config,
    secrets: Result<Secrets, secrets::Error>,
    after_sunset: bool,
) -> Result<()> {
    // From here on no signal ends the process halfway.
    let mut signals = Signals::new()?;
    let purpose = Purpose {
        after_sunset,
        loads_program: false,
    };
    let report = check::examine(&config, secrets.as_ref(), purpose).await;
    first_trouble(&report)?;
    let listeners = api::listen(&config.node.api)?;
    let name = config.node.name.clone();
    let node = Node::start(config, secrets?).await?;
    let handle = node.handle();
    let server = tokio::spawn(api::serve(listeners, handle.clone()));
    let watchdog = tokio::spawn(feed_watchdog(handle));
    notify(&[NotifyState::Ready]);
    info!("{name} is running");
    let result = node
        .run(async {
            signals.next().await;
            info!("{name} is stopping");
            notify(&[NotifyState::Stopping]);
            tokio::spawn(end_at_once(signals));
        })
        .await;
    watchdog.abort();
    server.abort();
    // Aborted or failed: its sockets' files are gone when it has ended.
    match server.await {
        Ok(Err(error)) => error!("the API has failed: {error}"),
        Ok(Ok(())) | Err(_) => debug!("the API has ended"),
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

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.0.recv() => terminate.1,
            _ = interrupt.0.recv() => interrupt.1,
            _ = hangup.0.recv() => hangup.1,
        }
    }
}

/// Who signals a second time does not want to wait.
async fn end_at_once(mut signals: Signals) {
    let number = signals.next().await;
    process::exit(SIGNALLED + number);
}

/// Tells systemd that the node is alive, if it asked to be told. Says nothing once the node does
/// not answer any more.
async fn feed_watchdog(handle: Handle) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    let period = (patience / 2).max(Duration::from_millis(1));
    let mut ticks = interval(period);
    loop {
        ticks.tick().await;
        if matches!(timeout(period, handle.numbers()).await, Ok(Ok(_))) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(state) {
        debug!("systemd does not listen: {error}");
    }
}
