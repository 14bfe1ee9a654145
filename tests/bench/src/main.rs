//! The benchmark's command line; `cargo xtask bench --help` prints it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use teredo_bench::{
    cases::Selection,
    duration, guard,
    report::{Report, compare, document},
    run::{Extent, run},
    throughput::LONGEST,
};

/// Seconds of each measurement, and rounds: of a first impression, and of figures to publish.
const QUICK: (f64, usize) = (0.2, 3);
const WHOLE: (f64, usize) = (0.5, 7);

/// Measures relay, server and client against the bare XDP redirect, the kernel's forwarding and Miredo
///
/// All variants are measured in turn, in rounds, so that they share what else happens on the machine; ratios
/// are taken within a round. Traffic stays in network namespaces. Needs root and two cores. Results are
/// printed, and written as JSON and SVG.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
#[command(after_help = "\
Examples:
  cargo xtask bench --quick                           a first impression, in about a minute
  cargo xtask bench --only peers,decap                the curve over peers, from clients
  cargo xtask bench --only throughput,xdp,bare,64     some variants and sizes
  cargo xtask bench --compare target/bench/a.json     everything, compared with an earlier run
  cargo xtask bench --from target/bench/latest.json --write
  cargo xtask bench --guard                           instructions of the XDP program for each packet")]
struct Arguments {
    /// Measure fewer cases, in fewer and shorter rounds: a first impression in about a minute
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement, from 0.01 to 15 [default: 0.5; with --quick 0.2]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Number of rounds; every variant runs once in each [default: 7; with --quick 3]
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// What to measure, separated by commas; of each kind all if none is named.
    /// Parts: peers, hosts, throughput, routes, sizes, orders, both-ways, cores, generic, serve, vlan, loss,
    /// test-run, churn, solicitations, client, memory.
    /// Variants: none, bare, kernel, xdp, userspace, threads, calls, miredo. Directions: encap, decap.
    /// Octets of packets: 64, 128, 256, 512, 1024, 1280.
    /// Clients or hosts: 1, 1000, 10000, 65536, 100000, 262144, 1000000
    #[arg(
        long,
        default_value = "",
        value_name = "WORDS",
        hide_default_value = true
    )]
    only: Selection,
    /// Measure a relay outside this machine, between two of its interfaces, instead of those here: the first
    /// leads to the IPv4 side of the relay, the second to the IPv6 side. They are in a namespace meanwhile
    #[arg(long, value_name = "A,B", value_parser = interfaces)]
    interface: Option<[String; 2]>,
    /// Print the expected duration and end
    #[arg(long)]
    plan: bool,
    /// Directory for the results
    #[arg(
        long,
        default_value = "target/bench",
        overrides_with = "output",
        value_name = "DIRECTORY"
    )]
    output: PathBuf,
    /// Take the results of an earlier run instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "quick", "plan", "interface"])]
    from: Option<PathBuf>,
    /// Print each figure beside that of an earlier run
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Write the tables and curves of docs/performance.md that the results have figures for
    #[arg(long)]
    write: bool,
    /// Count the instructions, look-ups and helper calls of the XDP program for a fixed set of packets
    /// instead, measure its time relative to a reference program, and hold all against the record
    #[arg(long, conflicts_with_all = ["only", "quick", "from", "compare", "write", "plan", "interface"])]
    guard: bool,
    /// Write the counted figures into the source tree as the new record
    #[arg(long, requires = "guard")]
    record: bool,
    /// List the lines of the source that take the instructions of this packet
    #[arg(long, requires = "guard", value_name = "PACKET")]
    explain: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.guard {
        true => stand_guard(&arguments),
        false => report(arguments).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn report(mut arguments: Arguments) -> Result<()> {
    let earlier = arguments.compare.as_deref().map(Report::read).transpose()?;
    let report = match &arguments.from {
        Some(path) => {
            let report = Report::read(path)?;
            print!("{}", report.text());
            report
        }
        None => {
            arguments.only.is_quick = arguments.quick;
            arguments.only.device = arguments.interface.take();
            let extent = extent(&arguments)?;
            println!("{}", duration::announcement(&arguments.only, extent));
            if arguments.plan {
                return Ok(());
            }
            let report = run(&arguments.only, extent)?;
            println!("{}", report.save(&arguments.output)?.display());
            report
        }
    };
    if let Some(earlier) = &earlier {
        print!("{}", compare::table(earlier, &report));
    }
    if arguments.write {
        let tables = document::write(&report)?;
        println!("docs/performance.md: {}", tables.join(", "));
    }
    Ok(())
}

/// Parses the names of two interfaces.
fn interfaces(text: &str) -> Result<[String; 2]> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains([' ', '/']);
    match <[String; 2]>::try_from(names) {
        Ok([a, b]) if is_name(&a) && is_name(&b) && a != b => Ok([a, b]),
        _ => bail!("it must be the names of two interfaces with a comma between them"),
    }
}

fn extent(arguments: &Arguments) -> Result<Extent> {
    let (seconds, rounds) = if arguments.quick { QUICK } else { WHOLE };
    let seconds = arguments.seconds.unwrap_or(seconds);
    let rounds = arguments.rounds.unwrap_or(rounds);
    let time = Duration::try_from_secs_f64(seconds)
        .with_context(|| format!("--seconds {seconds} is no duration"))?;
    ensure!(
        (Duration::from_millis(10)..=LONGEST).contains(&time),
        "--seconds {seconds}: a measurement takes from 0.01 to {} seconds",
        LONGEST.as_secs()
    );
    ensure!(
        (1..=1000).contains(&rounds),
        "--rounds {rounds}: it must be from 1 to 1000"
    );
    Ok(Extent { time, rounds })
}

/// Returns whether everything is within its margins.
fn stand_guard(arguments: &Arguments) -> Result<bool> {
    let reports = guard::measure()?;
    print!("{}", guard::table(&reports));
    if let Some(packet) = &arguments.explain {
        print!("{}", guard::explain(&reports, packet)?);
    }
    let times = guard::time::measure()?;
    print!("{}", guard::times_table(&times));
    print!("{}", guard::rare_table(&guard::rare::measure()?));
    if arguments.record {
        println!("\n{}", guard::record::write(&reports, &times)?.display());
        return Ok(true);
    }
    let mut faults = guard::record::check(&reports)?;
    faults.extend(guard::record::check_times(&times)?);
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(faults.is_empty())
}
