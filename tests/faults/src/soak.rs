//! The soak run: mixed traffic with churn, expiry, restarts and faults, in stretches between which
//! nothing moves and all accounts have to balance.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    ledger::{Account, Ledger},
    load::{Rates, tally::Class},
    report::{Epoch, Report},
    samples,
    site::{Site, Who},
};

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long it lasts.
    pub duration: Duration,
    /// Time under load between two quiet moments.
    pub stretch: Duration,
    /// The seed of the sequence of events.
    pub seed: u64,
    /// The load.
    pub rates: Rates,
    /// The file of the report.
    pub output: PathBuf,
}

/// The interval between samples.
const SAMPLE: Duration = Duration::from_secs(10);
/// Longest time until nothing moves.
const SETTLE: Duration = Duration::from_secs(40);
/// The time for which nothing may move.
const QUIET: Duration = Duration::from_millis(1500);

/// What happens during a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Nothing,
    /// The relay is restarted while nothing moves.
    QuietRestart,
    /// The relay is restarted under load.
    Restart,
    /// The relay is killed and started again under load.
    Kill,
    /// The server is restarted under load.
    ServerRestart,
}

impl Event {
    const ALL: [Self; 5] = [
        Self::Nothing,
        Self::QuietRestart,
        Self::Restart,
        Self::Kill,
        Self::ServerRestart,
    ];

    /// Whether packets may be lost without a counter: those that a process had in its hands.
    const fn takes(self) -> bool {
        matches!(self, Self::Restart | Self::Kill | Self::ServerRestart)
    }
}

/// Runs and returns the report.
///
/// # Errors
///
/// Fails when an account does not balance, with the account.
pub fn run(plan: &Plan) -> Result<Report> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut site = Site::new(plan.rates)?;
    let mut ledger = Ledger::default();
    let mut report = Report {
        seed: plan.seed,
        ..Report::default()
    };
    settle(&mut site, &mut ledger)?;
    let beginning = ledger.accounts(&site);
    let mut before = beginning.clone();
    let start = Instant::now();
    let mut failures = Vec::new();
    while start.elapsed() < plan.duration {
        let number = report.epochs.len();
        let event = match number {
            // At first the run shows itself without events.
            0 => Event::Nothing,
            _ => Event::ALL[random.random_range(0..Event::ALL.len())],
        };
        let phases = stretch(&mut site, &mut ledger, plan, event, start, &mut report)?;
        settle(&mut site, &mut ledger)?;
        let after = ledger.accounts(&site);
        let accounts: Vec<_> = after
            .iter()
            .zip(&before)
            .map(|(later, earlier)| later.since(earlier))
            .collect();
        before = after;
        let taken: i64 = accounts.iter().map(Account::missing).sum();
        for account in &accounts {
            let missing = account.missing();
            if missing != 0 && !event.takes() {
                failures.push(format!(
                    "stretch {number} ({event:?}): {missing} of {}: {}",
                    account.name,
                    serde_json::to_string_pretty(account)?
                ));
            }
        }
        for class in [Class::Down, Class::Up] {
            for phase in phases.clone() {
                let count = site.load.tally().during(class, phase..=phase);
                let is_event = event.takes() && phase == phases.start() + 1;
                if event == Event::Kill || !is_event {
                    if count.missing() != 0 {
                        failures.push(format!(
                            "stretch {number} ({event:?}), part {}: {} {} were lost",
                            phase - phases.start(),
                            count.missing(),
                            class.name()
                        ));
                    }
                }
            }
        }
        println!(
            "{:6.0} s  {number:3}  {event:?}: missing {:?}",
            start.elapsed().as_secs_f64(),
            accounts
                .iter()
                .map(|account| (account.name, account.missing()))
                .collect::<Vec<_>>()
        );
        report.epochs.push(Epoch {
            number,
            event: format!("{event:?}"),
            takes: event.takes(),
            accounts,
            taken,
        });
        report.total = before
            .iter()
            .zip(&beginning)
            .map(|(later, earlier)| later.since(earlier))
            .collect();
        report.write(&plan.output)?;
        for failure in failures.drain(..) {
            println!("{failure}");
            report.failures.push(failure);
        }
    }
    report.write(&plan.output)?;
    let failed = report.failures.len();
    ensure!(failed == 0, "{failed} accounts do not balance");
    Ok(report)
}

/// Runs the load for a stretch, with the event in the middle, and returns the phases: before, during
/// and after the event.
fn stretch(
    site: &mut Site,
    ledger: &mut Ledger,
    plan: &Plan,
    event: Event,
    start: Instant,
    report: &mut Report,
) -> Result<std::ops::RangeInclusive<u32>> {
    if event == Event::QuietRestart {
        ledger.read(site)?;
        site.restart_relay()?;
        ledger.restarted(Who::Relay, false);
    }
    site.load.pause(false);
    if event == Event::QuietRestart {
        // Peers have to be found anew.
        site.flows()?;
    }
    let first = site.load.tally().next_phase();
    watch(site, plan.stretch / 2, start, report)?;
    site.load.tally().next_phase();
    match event {
        Event::Nothing | Event::QuietRestart => {}
        Event::Restart | Event::Kill => {
            ledger.read_daemon(site, Who::Relay)?;
            let is_crash = event == Event::Kill;
            match is_crash {
                true => site.kill_relay()?,
                false => site.restart_relay()?,
            }
            ledger.restarted(Who::Relay, is_crash);
        }
        Event::ServerRestart => {
            ledger.read_daemon(site, Who::Server)?;
            site.restart_server()?;
            ledger.restarted(Who::Server, false);
        }
    }
    if event.takes() {
        site.flows()?;
    }
    let last = site.load.tally().next_phase();
    watch(site, plan.stretch / 2, start, report)?;
    Ok(first..=last)
}

/// Takes samples for some time.
fn watch(site: &mut Site, time: Duration, start: Instant, report: &mut Report) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        site.load.check()?;
        let sample = samples::take(site, start.elapsed().as_secs_f64())?;
        report.samples.push(sample);
        thread::sleep(SAMPLE.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Stops the load, waits until nothing moves, and reads all counters.
///
/// # Errors
///
/// Fails when packets still move after 40 seconds, or when a daemon does not answer.
pub fn settle(site: &mut Site, ledger: &mut Ledger) -> Result<()> {
    site.load.pause(true);
    let deadline = Instant::now() + SETTLE;
    let mut last = Vec::new();
    loop {
        thread::sleep(QUIET);
        ledger.read(site)?;
        let now: Vec<_> = ledger
            .accounts(site)
            .into_iter()
            .flat_map(|account| [account.sent, account.found])
            .collect();
        let waits = ledger.gauge("relay: teredo_queue_packets{role=\"relay\"}");
        if now == last && waits == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "packets move without load: {waits} wait"
        );
        last = now;
    }
}
