//! The command line of the attack; `cargo xtask attack --help` prints it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use teredo_bench::{
    attack::{
        flood::{Attack, Packets, Sources},
        honest::Honest,
        measure,
        report::{Curve, Report, heading},
        target::{Defence, Target},
    },
    machine::Machine,
};
use teredo_lab::cpu;

/// Measures the share of honest traffic that gets through while relay and server are flooded
#[derive(Debug, Parser)]
#[command(name = "cargo xtask attack")]
struct Arguments {
    /// Measure fewer rates with fewer new peers
    #[arg(long)]
    quick: bool,
    /// Attacks, separated by commas: garbage, solicitations, authentication, bubbles, native,
    /// fragments, everything
    #[arg(long, value_delimiter = ',')]
    packets: Vec<Packets>,
    /// Sources of the attacks, separated by commas: one, subnet, site, provider, all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    sources: Vec<Sources>,
    /// Packets per second, separated by commas
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u32>,
    /// Number of new peers in each measurement
    #[arg(long)]
    newcomers: Option<u32>,
    /// Whether the fast path limits what it passes, separated by commas: on, off
    #[arg(long, value_delimiter = ',', default_value = "on,off")]
    defence: Vec<Defence>,
    /// Directory for the results as JSON and SVG
    #[arg(long, default_value = "target/attack", overrides_with = "output")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (rates, newcomers) = match arguments.quick {
        true => (vec![0, 500_000], 20),
        false => (
            vec![0, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000],
            40,
        ),
    };
    let rates = match arguments.rates.as_slice() {
        [] => &rates,
        rates => rates,
    };
    let newcomers = arguments.newcomers.unwrap_or(newcomers);
    ensure!(newcomers > 0, "--newcomers 0 would measure nothing");
    let packets = match arguments.packets.as_slice() {
        [] => &Packets::ALL,
        packets => packets,
    };
    let mut report = Report {
        machine: Machine::this()?,
        curves: Vec::new(),
    };
    for &defence in &arguments.defence {
        println!("\n{}\n{}", defence.label(), heading());
        let mut points = Vec::new();
        for &packets in packets {
            for &sources in &arguments.sources {
                let target = Target::start(defence.keys())?;
                cpu::pin(cpu::RELAY)?;
                let mut honest = Honest::new(&target.site)?;
                let attack = Attack { packets, sources };
                for &rate in rates {
                    let point = measure(&target, &mut honest, attack, rate, newcomers)
                        .with_context(|| format!("{} at {rate}/s", packets.word()))?;
                    println!("{point}");
                    points.push(point);
                }
            }
        }
        report.curves.push(Curve {
            label: defence.label().to_owned(),
            points,
        });
    }
    report.machine.conclude()?;
    println!("{}", report.save(&arguments.output)?.display());
    Ok(())
}
