//! Numbered datagrams and TCP connections between network namespaces while a command runs.
//!
//! For each stream it prints a line: `loss`, the stream's name, and the numbers of datagrams sent, lost,
//! repeated and overtaken, and the longest time between two arrivals in milliseconds; and one for all
//! connections: `connections` and their number.

use std::{
    net::IpAddr,
    process::{Command, ExitCode},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use teredo_lab::{
    Namespace,
    traffic::{Tcp, UdpReport, UdpStream},
    wait_until,
};

/// Longest time until datagrams arrive, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Datagrams that arrive before the command starts, and after it has ended.
const MARGIN: u64 = 100;
/// Octets of one connection, each way.
const CONNECTION: u64 = 1 << 20;
/// The pause after every 64 KiB of them.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends numbered datagrams between network namespaces while a command runs
#[derive(Debug, Parser)]
struct Arguments {
    /// A stream: its name, the namespaces of its sender and its receiver, the receiver's address
    #[arg(long = "stream", value_name = "NAME,FROM,TO,ADDRESS", required = true)]
    streams: Vec<Path>,
    /// TCP connections, one after the other, all of whose octets are compared
    #[arg(long, value_name = "NAME,FROM,TO,ADDRESS")]
    tcp: Option<Path>,
    /// Datagrams of each stream in a second
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Octets of a datagram's content
    #[arg(long, value_name = "OCTETS", default_value_t = 200)]
    size: usize,
    /// The command with its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// A way through the network.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    name: String,
    from: String,
    to: String,
    address: IpAddr,
}

impl FromStr for Path {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let [name, from, to, address] = text.split(',').collect::<Vec<_>>()[..] else {
            bail!("it is not NAME,FROM,TO,ADDRESS");
        };
        Ok(Self {
            name: name.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            address: address
                .parse()
                .with_context(|| format!("{address} is no address"))?,
        })
    }
}

impl Path {
    fn ends(&self) -> Result<(Namespace, Namespace)> {
        Ok((Namespace::open(&self.from)?, Namespace::open(&self.to)?))
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the command succeeded.
fn run(arguments: &Arguments) -> Result<bool> {
    let interval = Duration::from_secs(1) / arguments.rate;
    let streams = (arguments.streams.iter())
        .map(|path| {
            let (from, to) = path.ends()?;
            UdpStream::start(&from, &to, path.address, arguments.size, interval)
        })
        .collect::<Result<Vec<_>>>()?;
    flow(&streams)?;
    let connections = (arguments.tcp.clone())
        .map(Connections::start)
        .transpose()?;
    let [program, words @ ..] = &arguments.command[..] else {
        bail!("there is no command");
    };
    let status = Command::new(program)
        .args(words)
        .status()
        .with_context(|| format!("{program} cannot be started"))?;
    flow(&streams)?;
    if let Some(connections) = connections {
        println!("connections {}", connections.stop()?);
    }
    for (path, stream) in arguments.streams.iter().zip(streams) {
        println!("{}", line(&path.name, &stream.stop()?));
    }
    Ok(status.success())
}

/// Waits until all streams have gone on.
fn flow(streams: &[UdpStream]) -> Result<()> {
    let before: Vec<_> = streams.iter().map(UdpStream::received).collect();
    wait_until("all streams flow", PATIENCE, || {
        let mut pairs = streams.iter().zip(&before);
        Ok(pairs.all(|(stream, before)| stream.received() >= before + MARGIN))
    })
}

fn line(name: &str, report: &UdpReport) -> String {
    format!(
        "loss {name} {} {} {} {} {}",
        report.sent,
        report.sent.saturating_sub(report.received),
        report.repeated,
        report.overtaken,
        report.longest_gap.as_millis()
    )
}

/// TCP connections, one after the other, in the background.
struct Connections {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Connections {
    fn start(path: Path) -> Result<Self> {
        let (from, to) = path.ends()?;
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut number = 0;
            // The first one is whole, too.
            while number == 0 || !should_stop.load(Ordering::Acquire) {
                Tcp::to(path.address)
                    .upload(CONNECTION)
                    .download(CONNECTION)
                    .pause(PAUSE)
                    .idle(PATIENCE)
                    .between(&from, &to)?;
                number += 1;
            }
            Ok(number)
        });
        Ok(Self { stop, thread })
    }

    /// Waits for the end of the last connection, and returns their number.
    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the thread does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_two_ends_and_an_address() {
        let path: Path = "down,host,client,2001:db8::1".parse().unwrap();
        assert_eq!((&*path.from, &*path.to), ("host", "client"));
        for text in [
            "down,host,client",
            "down,host,client,x",
            "down,host,client,::1,",
        ] {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_line_counts_what_did_not_arrive() {
        let report = UdpReport {
            sent: 1000,
            received: 990,
            repeated: 1,
            overtaken: 2,
            longest_gap: Duration::from_millis(345),
            ..UdpReport::default()
        };
        assert_eq!(line("down", &report), "loss down 1000 10 1 2 345");
    }
}
