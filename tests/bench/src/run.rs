//! The complete run.

use std::time::{Duration, Instant};

use anyhow::Result;
use teredo_lab_ebpf::SIZES;

use super::{
    cases::{CLIENTS, Part, Selection, Solicitations, Stream, Terms, Tunnel, Variant, Workload},
    churn,
    client::Client,
    loss::{self, LossReport},
    memory,
    relay::Relay,
    report::{CaseReport, Report, Series, TestRunReport},
    server::Server,
    stream::Connection,
    test_run,
    throughput::{Measurement, Subject},
};

/// The extent of the measurements.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The duration of each measurement.
    pub time: Duration,
    /// The number of rounds; every variant is measured once in each.
    pub rounds: usize,
}

/// Measures the selected cases and prints each result when it is known.
///
/// # Errors
///
/// Fails without root, or when a relay does not work.
pub fn run(selection: &Selection, extent: Extent) -> Result<Report> {
    let mut report = Report::new(extent.time, extent.rounds)?;
    print!("{}", report.machine.text());
    for (part, word) in Part::ALL {
        if !selection.part(part) {
            continue;
        }
        let start = Instant::now();
        measure_part(part, selection, extent, &mut report)?;
        println!("  {word}: {:.0} s", start.elapsed().as_secs_f64());
    }
    report.conclude()?;
    print!("{}", report.conclusion());
    Ok(report)
}

fn measure_part(
    part: Part,
    selection: &Selection,
    extent: Extent,
    report: &mut Report,
) -> Result<()> {
    match part {
        Part::TestRun => test_runs(selection, extent.rounds, report),
        Part::Churn => churn(extent.rounds, report),
        Part::Loss => losses(selection, extent, report),
        Part::Solicitations => solicitations(selection, extent, report),
        Part::Client => {
            clients(selection, extent, report)?;
            streams(selection, extent, report)
        }
        Part::Memory => {
            for variant in selection.variants() {
                if matches!(
                    variant,
                    Variant::Xdp | Variant::Userspace | Variant::Threads | Variant::Miredo
                ) {
                    report.memory.push(memory::measure(variant)?);
                }
            }
            Ok(())
        }
        part => relays(part, selection, extent, report),
    }
}

fn test_runs(selection: &Selection, rounds: usize, report: &mut Report) -> Result<()> {
    let mut relay = Relay::start(Variant::Xdp, Terms::Usual)?;
    for direction in selection.directions() {
        for clients in CLIENTS {
            let costs = (0..rounds)
                .map(|_| test_run::measure(&mut relay, direction, clients))
                .collect::<Result<Vec<_>>>()?;
            if let Some(test_run) = TestRunReport::of(&costs) {
                println!("{}", test_run.line());
                report.test_runs.push(test_run);
            }
        }
    }
    Ok(())
}

/// Measures all rates in each round, so that they share what else happens on the machine.
fn churn(rounds: usize, report: &mut Report) -> Result<()> {
    let mut relay = Relay::start(Variant::Xdp, Terms::Usual)?;
    for _ in 0..rounds {
        for kind in churn::Kind::ALL {
            for rate in churn::RATES {
                report.churn.push(churn::measure(&mut relay, kind, rate)?);
            }
        }
    }
    for line in report.churn_lines() {
        println!("{line}");
    }
    Ok(())
}

/// Measures the throughput of relays.
fn relays(part: Part, selection: &Selection, extent: Extent, report: &mut Report) -> Result<()> {
    let mut relays = match start_relays(part, selection) {
        Ok(relays) => relays,
        // A kernel without VLANs.
        Err(error) if part == Part::Vlan => {
            let reason = format!("{}: {error:#}", part.word());
            println!("\n{reason}");
            report.skipped.push(reason);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for case in selection.cases(part) {
        let relays = relays.iter_mut().filter(|relay| relay.has(case));
        match measure(part, relays, case, extent) {
            Ok(measured) => report.cases.push(measured),
            // The results of half an hour are not lost because of one case.
            Err(error) => {
                let reason = format!("{}: {case}: {error:#}", part.word());
                println!("\n{reason}");
                report.skipped.push(reason);
            }
        }
    }
    Ok(())
}

fn start_relays(part: Part, selection: &Selection) -> Result<Vec<Relay>> {
    if let Some(interfaces) = &selection.device {
        return Ok(vec![Relay::elsewhere(interfaces)?]);
    }
    let variants = selection.relays(part).into_iter();
    variants
        .map(|variant| Relay::start(variant, part.terms()))
        .collect()
}

/// Measures what relays forward without loss.
fn losses(selection: &Selection, extent: Extent, report: &mut Report) -> Result<()> {
    /// Each round has many trials.
    const ROUNDS: usize = 3;
    let mut relays = start_relays(Part::Loss, selection)?;
    println!("{}", LossReport::heading());
    for case in selection.cases(Part::Loss) {
        let rounds = extent.rounds.min(ROUNDS);
        for loss in loss::measure(&mut relays, case, extent.time, rounds)? {
            println!("{}", loss.line());
            report.losses.push(loss);
        }
    }
    Ok(())
}

fn solicitations(selection: &Selection, extent: Extent, report: &mut Report) -> Result<()> {
    let mut servers = selection
        .servers()
        .map(Server::start)
        .collect::<Result<Vec<_>>>()?;
    let places: &[bool] = match selection.is_first_impression() {
        true => &[false],
        false => &[false, true],
    };
    for &are_scattered in places {
        let case = Solicitations {
            clients: CLIENTS[1],
            are_scattered,
        };
        let measured = measure(Part::Solicitations, servers.iter_mut(), case, extent)?;
        report.solicitations.push(measured);
    }
    Ok(())
}

fn clients(selection: &Selection, extent: Extent, report: &mut Report) -> Result<()> {
    let mut clients = selection
        .client_variants()
        .map(Client::start)
        .collect::<Result<Vec<_>>>()?;
    for direction in selection.directions() {
        let case = Tunnel {
            direction,
            size: SIZES[0],
        };
        let measured = measure(Part::Client, clients.iter_mut(), case, extent)?;
        report.tunnels.push(measured);
    }
    Ok(())
}

fn streams(selection: &Selection, extent: Extent, report: &mut Report) -> Result<()> {
    let mut connections = selection
        .client_variants()
        .map(Connection::start)
        .collect::<Result<Vec<_>>>()?;
    for direction in selection.directions() {
        let case = Stream { direction };
        let mut series = no_samples(connections.iter().map(|connection| connection.variant));
        for _ in 0..extent.rounds {
            for (connection, series) in connections.iter_mut().zip(&mut series) {
                series.samples.push(connection.measure(case, extent.time)?);
            }
        }
        report.streams.push(reported(Part::Client, case, series));
    }
    Ok(())
}

/// Measures every subject once in every round. The order is reversed in every other one, so that what a
/// subject leaves in the caches does not always meet the same one.
fn measure<'a, S: Subject + 'a>(
    part: Part,
    subjects: impl Iterator<Item = &'a mut S>,
    case: S::Case,
    extent: Extent,
) -> Result<CaseReport<S::Case>> {
    let mut measurements = subjects
        .map(|subject| Measurement::prepare(subject, case))
        .collect::<Result<Vec<_>>>()?;
    let mut series = no_samples(measurements.iter().map(Measurement::variant));
    for round in 0..extent.rounds {
        let mut pairs: Vec<_> = measurements.iter_mut().zip(&mut series).collect();
        if round % 2 == 1 {
            pairs.reverse();
        }
        for (measurement, series) in pairs {
            series.samples.push(measurement.measure(extent.time)?);
        }
    }
    Ok(reported(part, case, series))
}

fn no_samples(variants: impl Iterator<Item = Variant>) -> Vec<Series> {
    let series = variants.map(|variant| Series {
        variant,
        samples: Vec::new(),
    });
    series.collect()
}

fn reported<W: Workload>(part: Part, case: W, series: Vec<Series>) -> CaseReport<W> {
    let report = CaseReport::new(part, case, series);
    print!("{}", report.table());
    report
}
