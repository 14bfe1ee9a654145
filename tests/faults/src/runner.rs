//! Random sequences of faults under load.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;
use teredo_lab::wait_until;

use crate::{
    fault::{self, Fault, Takes},
    load::Rates,
    metrics::{self, Numbers},
    site::{STEADY, Site, Who},
};

/// The time within which the daemon reports a condition, and has none after the fault.
const SOON: Duration = Duration::from_secs(5);
/// The time under load before a fault, and after it.
const AROUND: Duration = Duration::from_secs(1);

/// What a fault did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcome {
    /// Time from the beginning of the fault to its end.
    pub held: Duration,
    /// Time from the end of the fault until all traffic flowed, half a second of which is the proof.
    pub recovery: Duration,
    /// Packets of trusted peers that were lost from the fault until then.
    pub lost: u64,
}

/// Injects a fault under load, holds it for some time, ends it, and checks what the daemon promises.
///
/// # Errors
///
/// Fails when the daemon has ended, when it does not report the condition or does not recover in
/// time, and when the fault took more than it may.
pub fn play(site: &mut Site, fault: &mut dyn Fault, hold: Duration) -> Result<Outcome> {
    let name = fault.name();
    let before = site.load.tally().next_phase();
    thread::sleep(AROUND);
    let first = site.load.tally().next_phase();
    let lost = |site: &Site, phases: std::ops::RangeInclusive<u32>| -> u64 {
        let tally = site.load.tally();
        STEADY
            .iter()
            .map(|&class| tally.during(class, phases.clone()).missing())
            .sum()
    };
    let have_arrived = |site: &Site, phase: u32| {
        let arrived = wait_until("all have arrived", SOON, || {
            Ok(lost(site, phase..=phase) == 0)
        });
        arrived.with_context(|| {
            let lost = lost(site, phase..=phase);
            format!("{name}: {lost} packets were lost outside of the fault")
        })
    };
    have_arrived(site, before)?;
    let numbers = relay_numbers(site)?;
    let start = Instant::now();
    fault
        .inject(site)
        .with_context(|| format!("{name}: inject"))?;
    if let Some(kind) = fault.condition() {
        wait_until("the condition is reported", SOON, || {
            site.relay.has_condition(kind)
        })
        .with_context(|| format!("{name}: {}", site.relay.daemon.log()))?;
    }
    thread::sleep(hold);
    let held = start.elapsed();
    fault.heal(site).with_context(|| format!("{name}: heal"))?;
    let recovery = site
        .recovers(fault.bound())
        .with_context(|| format!("{name}: {}", site.relay.daemon.log()))?;
    site.is_well(SOON).with_context(|| name.to_owned())?;
    let after = site.load.tally().next_phase();
    thread::sleep(AROUND);
    site.load.tally().next_phase();
    have_arrived(site, after)?;
    site.load.check()?;
    let taken = lost(site, first..=after);
    ensure!(
        fault.takes() == Takes::Anything || taken == 0,
        "{name}: {taken} packets of trusted peers were lost in {:?}, of which {held:?} in the fault: {:?}; counters that \
         rose: {:?}",
        start.elapsed(),
        STEADY.map(|class| (class.name(), site.load.tally().during(class, first..=after))),
        risen(&numbers, &relay_numbers(site)?),
    );
    Ok(Outcome {
        held,
        recovery,
        lost: taken,
    })
}

/// Returns the counters of the relay and of its host.
fn relay_numbers(site: &Site) -> Result<Numbers> {
    let mut numbers = site.metrics(Who::Relay)?;
    numbers.extend(metrics::of_kernel(&site.scene.relay)?);
    Ok(numbers)
}

/// Returns the counters that are greater, or new, and by how much.
fn risen(before: &Numbers, after: &Numbers) -> Numbers {
    let rises = after.iter().map(|(name, now)| {
        let rise = now.saturating_sub(before.get(name).copied().unwrap_or(0));
        (name.clone(), rise)
    });
    rises.filter(|(_, rise)| *rise > 0).collect()
}

/// Plays random faults until the time is over.
///
/// # Errors
///
/// Fails as [`play`].
pub fn run(seed: u64, duration: Duration) -> Result<()> {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::new(Rates::default())?;
    site.recovers(SOON * 2)?;
    let mut faults = fault::all();
    let start = Instant::now();
    while start.elapsed() < duration {
        let index = random.random_range(0..faults.len());
        let hold = Duration::from_millis(random.random_range(0..3000));
        let fault = faults[index].as_mut();
        let outcome = play(&mut site, fault, hold).with_context(|| format!("seed {seed}"))?;
        println!(
            "{:6.0} s  {:30} for {:.1} s: recovered in {:.1} s, {} packets of trusted peers lost",
            start.elapsed().as_secs_f64(),
            fault.name(),
            hold.as_secs_f64(),
            outcome.recovery.as_secs_f64(),
            outcome.lost
        );
    }
    Ok(())
}
