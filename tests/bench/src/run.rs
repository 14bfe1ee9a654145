//! The complete run.

use std::time::Duration;

use anyhow::Result;
use teredo_lab_ebpf::SIZES;

use super::{
    cases::{CLIENTS, Part, Selection, Solicitations, Stream, Tunnel, Variant, Workload},
    churn,
    client::Client,
    memory,
    relay::Relay,
    report::{CaseReport, Report, Series, TestRunReport},
    server::Server,
    stream::Connection,
    test_run,
    throughput::{Measurement, Subject},
};

/// Measures the selected cases and prints each result when it is known. Every round measures each
/// variant for `time`.
///
/// # Errors
///
/// Fails without root, or when a relay does not work.
pub fn run(selection: &Selection, time: Duration, rounds: usize) -> Result<Report> {
    let mut report = Report::new(time, rounds)?;
    if selection.part(Part::TestRun) {
        test_runs(selection, rounds, &mut report)?;
    }
    if selection.part(Part::Churn) {
        churn(rounds, &mut report)?;
    }
    if selection.part(Part::Throughput) {
        throughput(selection, time, rounds, &mut report)?;
    }
    if selection.part(Part::Peers) {
        peers(selection, time, rounds, &mut report)?;
    }
    if selection.part(Part::Hosts) {
        hosts(selection, time, rounds, &mut report)?;
    }
    if selection.part(Part::Solicitations) {
        solicitations(selection, time, rounds, &mut report)?;
    }
    if selection.part(Part::Client) {
        clients(selection, time, rounds, &mut report)?;
        streams(selection, time, rounds, &mut report)?;
    }
    if selection.part(Part::Memory) {
        for variant in selection.variants() {
            if matches!(variant, Variant::Xdp | Variant::Userspace | Variant::Miredo) {
                report.memory.push(memory::measure(variant)?);
            }
        }
    }
    report.conclude()?;
    print!("{}", report.conclusion());
    Ok(report)
}

fn test_runs(selection: &Selection, rounds: usize, report: &mut Report) -> Result<()> {
    let mut relay = Relay::start(Variant::Xdp)?;
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
    let mut relay = Relay::start(Variant::Xdp)?;
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

fn throughput(
    selection: &Selection,
    time: Duration,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let mut relays = selection
        .variants()
        .map(Relay::start)
        .collect::<Result<Vec<_>>>()?;
    for case in selection.cases() {
        report.cases.push(measure(&mut relays, case, time, rounds)?);
    }
    Ok(())
}

fn peers(selection: &Selection, time: Duration, rounds: usize, report: &mut Report) -> Result<()> {
    let mut relays = selection
        .host_variants()
        .map(Relay::start_large)
        .collect::<Result<Vec<_>>>()?;
    for case in selection.peer_cases() {
        report.cases.push(measure(&mut relays, case, time, rounds)?);
    }
    Ok(())
}

fn hosts(selection: &Selection, time: Duration, rounds: usize, report: &mut Report) -> Result<()> {
    let mut relays = selection
        .host_variants()
        .map(Relay::start)
        .collect::<Result<Vec<_>>>()?;
    for case in selection.host_cases() {
        report.cases.push(measure(&mut relays, case, time, rounds)?);
    }
    Ok(())
}

fn solicitations(
    selection: &Selection,
    time: Duration,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let mut servers = selection
        .variants()
        .map(Server::start)
        .collect::<Result<Vec<_>>>()?;
    let case = Solicitations {
        clients: CLIENTS[1],
    };
    let measured = measure(&mut servers, case, time, rounds)?;
    report.solicitations.push(measured);
    Ok(())
}

fn clients(
    selection: &Selection,
    time: Duration,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let mut clients = selection
        .client_variants()
        .map(Client::start)
        .collect::<Result<Vec<_>>>()?;
    for direction in selection.directions() {
        let case = Tunnel {
            direction,
            size: SIZES[0],
        };
        let measured = measure(&mut clients, case, time, rounds)?;
        report.tunnels.push(measured);
    }
    Ok(())
}

fn streams(
    selection: &Selection,
    time: Duration,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let mut connections = selection
        .client_variants()
        .map(Connection::start)
        .collect::<Result<Vec<_>>>()?;
    for direction in selection.directions() {
        let case = Stream { direction };
        let mut series = no_samples(connections.iter().map(|connection| connection.variant));
        for _ in 0..rounds {
            for (connection, series) in connections.iter_mut().zip(&mut series) {
                series.samples.push(connection.measure(case, time)?);
            }
        }
        report.streams.push(reported(case, series));
    }
    Ok(())
}

/// Measures every subject once in every round.
fn measure<S: Subject>(
    subjects: &mut [S],
    case: S::Case,
    time: Duration,
    rounds: usize,
) -> Result<CaseReport<S::Case>> {
    let mut measurements = subjects
        .iter_mut()
        .map(|subject| Measurement::prepare(subject, case))
        .collect::<Result<Vec<_>>>()?;
    let mut series = no_samples(measurements.iter().map(Measurement::variant));
    for _ in 0..rounds {
        for (measurement, series) in measurements.iter_mut().zip(&mut series) {
            series.samples.push(measurement.measure(time)?);
        }
    }
    Ok(reported(case, series))
}

fn no_samples(variants: impl Iterator<Item = Variant>) -> Vec<Series> {
    let series = variants.map(|variant| Series {
        variant,
        samples: Vec::new(),
    });
    series.collect()
}

fn reported<W: Workload>(case: W, series: Vec<Series>) -> CaseReport<W> {
    let report = CaseReport::new(case, series);
    print!("{}", report.table());
    report
}
