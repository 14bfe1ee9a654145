//! The XDP program while the kernel's routes change, as they do on a router with the full table of the
//! internet, or while neighbours fail, as they do when somebody scans a network.

use std::{
    io::Write as _,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use teredo_lab::{Namespace, cpu};

use super::{
    cases::{CLIENTS, Direction},
    relay::Relay,
    site::NEAR,
    test_run,
};

/// Changes per second.
pub const RATES: [u32; 4] = [0, 100, 1_000, 10_000];

/// Changes that concern none of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Routes of IPv4 come and go, while packets go to clients.
    Ipv4Routes,
    /// Routes of IPv6 come and go, while packets go to native hosts.
    Ipv6Routes,
    /// Neighbours fail next to the native host that packets go to.
    Neighbours,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Ipv4Routes, Self::Ipv6Routes, Self::Neighbours];

    /// The name in the table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Ipv4Routes => "encap, changes of IPv4 routes",
            Self::Ipv6Routes => "decap, changes of IPv6 routes",
            Self::Neighbours => "decap, failures of neighbours",
        }
    }

    /// The direction of the packets.
    const fn direction(self) -> Direction {
        match self {
            Self::Ipv4Routes => Direction::Encap,
            Self::Ipv6Routes | Self::Neighbours => Direction::Decap,
        }
    }

    /// Returns a line of a batch for ip: something comes, and goes with the next change. No client and no
    /// native host is concerned.
    fn change(self, number: u64) -> String {
        let is_added = number.is_multiple_of(2);
        let verb = if is_added { "add" } else { "del" };
        // Spread as the routes of the internet are.
        let mixed = (number / 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let [_, a, b, c] = (mixed as u32).to_be_bytes();
        match self {
            Self::Ipv4Routes => {
                format!("route {verb} blackhole {}.{b}.{c}.0/24\n", 64 + a % 128)
            }
            Self::Ipv6Routes => {
                format!("route {verb} blackhole 2a{a:02x}:{b:02x}{c:02x}:1::/48\n")
            }
            Self::Neighbours => {
                let (address, interface) = (format!("2001:db8:6::{a:x}:{b:02x}{c:02x}"), NEAR[1]);
                match is_added {
                    // One that was left by an earlier series is no error.
                    true => format!("neigh replace {address} dev {interface} nud failed\n"),
                    false => format!("neigh del {address} dev {interface}\n"),
                }
            }
        }
    }
}
/// The interval at which changes are given to the kernel.
const STEP: Duration = Duration::from_millis(10);
/// Runs in each measurement: more than a second, in which the daemon can invalidate hops ten times.
const RUNS: u32 = 8_000_000;
/// Time for which routes change before the measurement.
const LEAD: Duration = Duration::from_millis(300);

/// The cost of the program during changes, measured once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// The changes.
    pub kind: Kind,
    /// Changes per second, as wanted.
    pub rate: u32,
    /// Changes per second, as they were.
    pub changes: f64,
    /// Nanoseconds per packet, without the cost of preparing the frame.
    pub nanoseconds: f64,
}

/// Measures the program of our relay during changes at this rate.
///
/// # Errors
///
/// Fails when the relay is not ours, does not forward every packet, or nothing can be changed.
pub fn measure(relay: &mut Relay, kind: Kind, rate: u32) -> Result<Cost> {
    let changes = Changes::start(&relay.site.near, kind, rate)?;
    thread::sleep(LEAD);
    let before = changes.made();
    let start = Instant::now();
    let cost = test_run::measure_runs(relay, kind.direction(), CLIENTS[1], RUNS)?;
    let made = changes.made() - before;
    let seconds = start.elapsed().as_secs_f64();
    changes.stop()?;
    Ok(Cost {
        kind,
        rate,
        changes: made as f64 / seconds,
        nanoseconds: cost.nanoseconds,
    })
}

/// Changes that go on.
struct Changes {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Changes {
    fn start(namespace: &Namespace, kind: Kind, rate: u32) -> Result<Self> {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut ip = namespace.command("ip")?;
        ip.args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null());
        let mut ip = cpu::on_core(cpu::RELAY, || Ok(ip.spawn()?))?;
        let (is_over, count) = (Arc::clone(&stop), Arc::<AtomicU64>::clone(&made));
        let thread = thread::spawn(move || {
            let mut input = ip.stdin.take().context("the input of ip")?;
            let start = Instant::now();
            let mut next = 0_u64;
            while !is_over.load(Relaxed) {
                let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                let mut lines = String::new();
                while next < due {
                    lines += &kind.change(next);
                    next += 1;
                }
                input.write_all(lines.as_bytes())?;
                count.store(next, Relaxed);
                thread::sleep(STEP);
            }
            drop(input);
            ip.wait()?;
            Ok(())
        });
        Ok(Self { stop, made, thread })
    }

    fn made(&self) -> u64 {
        self.made.load(Relaxed)
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the changes have ended in a panic"))?
    }
}
