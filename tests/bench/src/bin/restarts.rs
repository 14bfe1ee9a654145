//! The command line of the measurement of restarts; `cargo xtask restarts --help` prints it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use teredo_bench::{
    cases::{Direction, Variant},
    relay::Relay,
    restarts::{self, Way},
};

/// Counts the packets that are lost while the relay's process is replaced under load
#[derive(Debug, Parser)]
#[command(name = "cargo xtask restarts")]
struct Arguments {
    /// Packets per second
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// Clients that send and receive them
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// How often each way of replacing the process is tried
    #[arg(long, default_value_t = 10)]
    times: u32,
    /// The ways of replacing it that are measured, all by default
    #[arg(long, value_delimiter = ',', value_name = "WAY,...")]
    ways: Vec<Way>,
    /// Not used: the table goes to standard output
    #[arg(long, hide = true, overrides_with = "output")]
    output: Option<PathBuf>,
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
    let ways = match arguments.ways.is_empty() {
        true => Way::ALL.to_vec(),
        false => arguments.ways.clone(),
    };
    let rate = f64::from(arguments.rate);
    let most = restarts::packets(rate, arguments.times);
    println!(
        "| data path | direction | end | times | until ready, at most | packets | lost | repeated | overtaken |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for variant in [Variant::Xdp, Variant::Userspace] {
        let mut relay = Relay::serviced(variant, most)?;
        for direction in [Direction::Encap, Direction::Decap] {
            for way in &ways {
                let loss = restarts::measure(
                    &mut relay,
                    *way,
                    direction,
                    arguments.clients,
                    rate,
                    arguments.times,
                )?;
                println!("{}", restarts::line(variant, direction, *way, &loss));
            }
        }
    }
    Ok(())
}
