//! The soak run: mixed traffic with churn, expiry, restarts and faults, in stretches between which
//! nothing moves and all accounts have to balance.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    fault::{self, Fault, Takes},
    ledger::Ledger,
    load::Rates,
    report::{Epoch, Report},
    runner::{Outcome, play},
    samples,
    site::{STEADY, Site, Who},
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
/// Longest time from the end of an event until all traffic flows.
const RECOVERY: Duration = Duration::from_secs(20);
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
    /// The server is restarted under load.
    ServerRestart,
    /// The fault of this index.
    Fault(usize),
}

impl Event {
    /// Events besides faults.
    const OTHERS: [Self; 4] = [
        Self::Nothing,
        Self::QuietRestart,
        Self::Restart,
        Self::ServerRestart,
    ];
}

/// The events of a run in a random order, in which each comes once before any comes again.
struct Events {
    random: StdRng,
    faults: Vec<Box<dyn Fault>>,
    left: Vec<Event>,
}

impl Events {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            faults: fault::all(),
            // At first the run shows itself without events.
            left: vec![Event::Nothing],
        }
    }

    fn next(&mut self) -> Event {
        if self.left.is_empty() {
            let faults = (0..self.faults.len()).map(Event::Fault);
            self.left = Event::OTHERS.into_iter().chain(faults).collect();
            self.left.shuffle(&mut self.random);
        }
        self.left.pop().unwrap_or(Event::Nothing)
    }

    fn name(&self, event: Event) -> &'static str {
        match event {
            Event::Nothing => "load alone",
            Event::QuietRestart => "restart without load",
            Event::Restart => "restart",
            Event::ServerRestart => "restart of the server",
            Event::Fault(index) => self.faults[index].name(),
        }
    }

    /// Whether packets may be lost without a counter: those that a process or an interface took with it.
    fn takes(&self, event: Event) -> bool {
        match event {
            Event::Nothing | Event::QuietRestart => false,
            Event::Restart | Event::ServerRestart => true,
            Event::Fault(index) => {
                let fault = &self.faults[index];
                fault.restarts() || fault.takes() == Takes::Anything
            }
        }
    }
}

/// Runs and returns the report.
///
/// # Errors
///
/// Fails when an account does not balance, with the account.
pub fn run(plan: &Plan) -> Result<Report> {
    let mut events = Events::new(plan.seed);
    let mut site = Site::new(plan.rates)?;
    let mut ledger = Ledger::default();
    let mut report = Report {
        seed: plan.seed,
        ..Report::default()
    };
    settle(&mut site, &mut ledger)?;
    let mut before = ledger.accounts(&site);
    let start = Instant::now();
    while start.elapsed() < plan.duration {
        let number = report.epochs.len();
        let event = events.next();
        let name = events.name(event);
        let outcome = stretch(
            &mut site,
            &mut ledger,
            plan,
            (&mut events, event),
            start,
            &mut report,
        )
        .with_context(|| format!("stretch {number}, {name}"))?;
        settle(&mut site, &mut ledger)?;
        let after = ledger.accounts(&site);
        let pairs = after.iter().zip(&before);
        let accounts = pairs.map(|(later, earlier)| later.since(earlier)).collect();
        let epoch = Epoch {
            number,
            event: name.to_owned(),
            takes: events.takes(event),
            outcome,
            accounts,
        };
        epoch.print(start.elapsed());
        if !epoch.takes {
            report.failures.extend(epoch.failures()?);
        }
        report.add(epoch);
        report.write(&plan.output)?;
        before = after;
    }
    let failed = report.failures.len();
    ensure!(failed == 0, "{failed} failures: {:#?}", report.failures);
    Ok(report)
}

/// Runs the load for a stretch, with the event in the middle, and returns what a fault did.
fn stretch(
    site: &mut Site,
    ledger: &mut Ledger,
    plan: &Plan,
    (events, event): (&mut Events, Event),
    start: Instant,
    report: &mut Report,
) -> Result<Option<Outcome>> {
    let mut outcome = None;
    if event == Event::QuietRestart {
        ledger.read(site)?;
        site.restart_relay()?;
        ledger.restarted(Who::Relay, false);
    }
    site.load.pause(false);
    // After a restart peers have to be found anew.
    site.recovers(RECOVERY)?;
    let first = site.load.tally().next_phase();
    watch(site, plan.stretch / 2, start, report)?;
    site.load.tally().next_phase();
    match event {
        Event::Nothing | Event::QuietRestart => {}
        Event::Restart => {
            ledger.read_daemon(site, Who::Relay)?;
            site.restart_relay()?;
            ledger.restarted(Who::Relay, false);
        }
        Event::ServerRestart => {
            ledger.read_daemon(site, Who::Server)?;
            site.restart_server()?;
            ledger.restarted(Who::Server, false);
        }
        Event::Fault(index) => {
            ledger.read_daemon(site, Who::Relay)?;
            let hold = Duration::from_millis(events.random.random_range(0..3000));
            let fault = events.faults[index].as_mut();
            match play(site, fault, hold) {
                Ok(played) => outcome = Some(played),
                Err(error) => report.failures.push(format!("{error:#}")),
            }
            if fault.restarts() {
                ledger.restarted(Who::Relay, fault.takes() == Takes::Daemon);
            }
        }
    }
    site.recovers(RECOVERY)?;
    let last = site.load.tally().next_phase();
    watch(site, plan.stretch / 2, start, report)?;
    site.load.tally().next_phase();
    thread::sleep(QUIET);
    for phase in [first, last] {
        for class in STEADY {
            let count = site.load.tally().during(class, phase..=phase);
            if count.missing() != 0 || count.repeated != 0 {
                let name = class.name();
                report
                    .failures
                    .push(format!("beside the event, {name}: {count:?}"));
            }
        }
    }
    Ok(outcome)
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
