//! `teredo run`: the daemon, in the foreground.

use std::{future::pending, process, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures_util::FutureExt as _;
use nix::libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    Start,
    check::{first_required, first_trouble},
    log, sentence, start_runtime,
};
use crate::{
    api::{self, ApiThread, Handle, Listeners, listener},
    check::{self, Purpose},
    config::{
        self, Config,
        access::user_name,
        secrets::{self, Secrets},
    },
    handover::{
        Inheritance, Store, store,
        successor::{Invocation, Predecessor, Successor},
    },
    node::{End, Estate, Node, Patience},
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

/// Runs the daemon until a signal arrives, or another process has taken over. A failed start leaves nothing
/// behind.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut predecessor = Predecessor::of_this_process();
    let is_first = predecessor.is_none();
    let result = start(arguments, &mut predecessor);
    if let Err(error) = &result {
        if let Some(predecessor) = predecessor {
            predecessor.refuse(&refusal(error));
        } else if is_first && let Err(error) = Store::withdraw_relay() {
            warn!("the relay's route stays: {error}");
        }
    }
    result
}

/// Returns the reason why this process does not take over. It reads files with the rights of the process before,
/// which may be fewer than those that the first process had.
fn refusal(error: &anyhow::Error) -> String {
    let reason = sentence(error);
    let of_configuration = error.downcast_ref::<config::Error>();
    let of_secret = error.downcast_ref::<secrets::Error>();
    let is_forbidden = of_configuration.is_some_and(config::Error::is_forbidden)
        || of_secret.is_some_and(secrets::Error::is_forbidden);
    match is_forbidden {
        true => format!(
            "this needs a restart, or files that user {} may read, since the running daemon has given up the \
             rights that it started with: {reason}",
            user_name()
        ),
        false => reason,
    }
}

fn start(arguments: &Arguments, predecessor: &mut Option<Predecessor>) -> Result<()> {
    let config = arguments.start.file.load()?;
    log::start(&config.node)?;
    // Before the file of the program is replaced.
    let invocation = Invocation::of_this_process().ok();
    // Read the keys before dropping privileges.
    let mut secrets = secrets::load(&config);
    let user = privileges::plan_user_change(&config)?;
    privileges::raise_file_limit();
    let mut inheritance = match predecessor {
        Some(predecessor) => {
            // The predecessor goes on without a pause if this one cannot run.
            if config.node.name != predecessor.instance() {
                bail!(
                    "node.name = \"{}\" needs a restart: the running daemon is {}",
                    config.node.name,
                    predecessor.instance()
                );
            }
            secrets = Ok(secrets?);
            let descriptors = predecessor.inherit();
            Inheritance::of(descriptors.context("the process before has ended")?)
        }
        None => Inheritance::of_service(),
    };
    // While the process may still write in directories of root.
    let owner = user.as_ref().map(UserChange::owner);
    let listeners = api::listen(&config.node.api, owner, &mut inheritance);
    privileges::prepare(&config, owner);
    // Before there is a second thread.
    privileges::give_up(&config, arguments.start.file.path(), user)?;
    let runtime = start_runtime()?;
    let estate = Estate {
        inheritance,
        store: Store::of_service(),
        listeners: Vec::new(),
        invocation,
    };
    let daemon = daemon(config, secrets, listeners, estate, arguments, predecessor);
    let result = runtime.block_on(daemon);
    // A slow client of the API must not delay the end.
    runtime.shutdown_background();
    result
}

async fn daemon(
    config: Config,
    secrets: Result<Secrets, secrets::Error>,
    listeners: Result<Listeners, listener::Error>,
    mut estate: Estate,
    arguments: &Arguments,
    predecessor: &mut Option<Predecessor>,
) -> Result<()> {
    // From here on no signal ends the process before it has cleaned up.
    let mut signals = Signals::new()?;
    let purpose = Purpose {
        after_sunset: arguments.start.after_sunset,
        is_thorough: false,
        access: None,
        has_api: listeners.is_ok(),
        inherits: !estate.inheritance.is_empty(),
        program: estate.inheritance.program(),
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
    let copies = listeners.copies(&config.node.api);
    estate.listeners = copies.context("the sockets of the API cannot be kept")?;
    let name = config.node.name.clone();
    let mut secrets = secrets?;
    let token = secrets.api_token.take();
    let mut node = Node::start(config, secrets, patience, estate).await?;
    let handle = node.handle();
    let api = ApiThread::start(listeners, handle.clone(), token).context("cannot start the API")?;
    let watchdog = tokio::spawn(feed_watchdog(handle.clone()));
    if let Some(predecessor) = predecessor.take() {
        predecessor
            .replace()
            .context("the process before has ended")?;
    }
    notify(&[NotifyState::Ready]);
    info!("{name} is running");
    // The next process goes on; the service manager calls `teredo withdraw` if there is none.
    let is_kept = node.is_kept();
    let end = node
        .run(async {
            signals.stop(&handle).await;
            info!("{name} is stopping");
            notify(&[NotifyState::Stopping]);
            if !is_kept {
                tokio::select! {
                    // A node that has ended has withdrawn everything.
                    _ = handle.withdraw() => {}
                    () = signals.exit_at_second() => {}
                }
            }
        })
        .await;
    watchdog.abort();
    match end {
        End::Stop if node.is_kept() => {
            tokio::spawn(async move { signals.exit_at_second().await });
            let left = node.leave();
            api.leave();
            left.context("the service manager does not keep the state")
        }
        End::Stop => {
            tokio::spawn(async move { signals.exit_at_second().await });
            let result = node.stop().await;
            if let Err(error) = api.stop() {
                error!("the API has failed: {error}");
            }
            result
        }
        End::Replaced => {
            let successor = node.take_successor();
            if let Some(successor) = &successor {
                notify(&[NotifyState::MainPid(successor.process())]);
            }
            drop(node);
            api.leave();
            if let Some(successor) = successor {
                signals.pass_on(&successor).await;
            }
            Ok(())
        }
    }
}

/// The signals that the daemon handles.
struct Signals {
    /// Those that end it, with their numbers.
    ends: [(Signal, i32); 2],
    /// Those that start a new process in its place.
    replacements: [(Signal, i32); 2],
    /// One of these that the node has not been told of yet.
    untold: Option<i32>,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |number| {
            let signal = signal(SignalKind::from_raw(number));
            Ok::<_, anyhow::Error>((signal.context("cannot wait for signals")?, number))
        };
        Ok(Self {
            ends: [on(SIGTERM)?, on(SIGINT)?],
            replacements: [on(SIGHUP)?, on(SIGUSR2)?],
            untold: None,
        })
    }

    /// Waits for a signal that ends the daemon. Another makes the node of this handle start a new process.
    async fn stop(&mut self, node: &Handle) {
        loop {
            let number = tokio::select! {
                _ = first(&mut self.ends) => return,
                number = first(&mut self.replacements) => number,
            };
            match number {
                SIGHUP => info!("a new process reads the configuration"),
                _ => info!("a new process starts"),
            }
            self.untold = Some(number);
            // A node that has ended has handed over. It logs the outcome.
            if node.begin_replacement().await.is_ok() {
                self.untold = None;
            }
        }
    }

    /// Sends the process that has taken over the signals that have come and had no effect.
    async fn pass_on(&mut self, successor: &Successor) {
        // Until then the service manager may send them to this process.
        if let Err(error) = store::barrier() {
            debug!("the service manager does not answer: {error}");
        }
        // The runtime takes note of what has come.
        tokio::task::yield_now().await;
        if let Some(number) = self.untold.take() {
            successor.pass_on(number);
        }
        for (signal, number) in self.replacements.iter_mut().chain(&mut self.ends) {
            if signal.recv().now_or_never().is_some() {
                successor.pass_on(*number);
            }
        }
    }

    /// Exits immediately at the next signal that ends the daemon.
    async fn exit_at_second(&mut self) {
        let number = first(&mut self.ends).await;
        process::exit(SIGNALLED + number);
    }
}

/// Waits for one of these signals and returns its number.
async fn first([one, other]: &mut [(Signal, i32); 2]) -> i32 {
    tokio::select! {
        _ = one.0.recv() => one.1,
        _ = other.0.recv() => other.1,
    }
}

/// Notifies systemd's watchdog, if there is one, as long as the node answers.
async fn feed_watchdog(handle: Handle) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return pending().await;
    };
    let period = (limit / 2).max(Duration::from_millis(1));
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if matches!(timeout(period, handle.snapshot()).await, Ok(Ok(_))) {
            // A service manager that reads nothing must not hold up packets.
            let told = spawn_blocking(|| notify(&[NotifyState::Watchdog]));
            let _ = told.await;
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // Running without systemd is no error.
    if let Err(error) = sd_notify::notify(state) {
        debug!("cannot notify systemd: {error}");
    }
}
