//! The XDP program while the kernel's routes change, as they do on a router with the full table of the
//! internet.

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
use serde::Serialize;
use teredo_lab::{Namespace, cpu};

use super::{
    cases::{CLIENTS, Direction},
    relay::Relay,
    test_run,
};

/// Changes of routes per second.
pub const RATES: [u32; 4] = [0, 100, 1_000, 10_000];
/// The interval at which changes are given to the kernel.
const STEP: Duration = Duration::from_millis(10);
/// Runs in each measurement: more than a second, in which the daemon can invalidate hops ten times.
const RUNS: u32 = 8_000_000;
/// Time for which routes change before the measurement.
const LEAD: Duration = Duration::from_millis(300);

/// The cost of the program while routes change, measured once.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Changes of routes per second, as wanted.
    pub rate: u32,
    /// Changes of routes per second, as they were.
    pub changes: f64,
    /// Nanoseconds per packet, without the cost of preparing the frame.
    pub nanoseconds: f64,
}

/// Measures the program of our relay, from native hosts to clients, while routes of other networks than the
/// clients' change at this rate.
///
/// # Errors
///
/// Fails when the relay is not ours, does not forward every packet, or the routes cannot be changed.
pub fn measure(relay: &mut Relay, rate: u32) -> Result<Cost> {
    let changes = Changes::start(&relay.site.near, rate)?;
    thread::sleep(LEAD);
    let before = changes.made();
    let start = Instant::now();
    let cost = test_run::measure_runs(relay, Direction::Encap, CLIENTS[1], RUNS)?;
    let made = changes.made() - before;
    let seconds = start.elapsed().as_secs_f64();
    changes.stop()?;
    Ok(Cost {
        rate,
        changes: made as f64 / seconds,
        nanoseconds: cost.nanoseconds,
    })
}

/// Changes of routes that go on.
struct Changes {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Changes {
    fn start(namespace: &Namespace, rate: u32) -> Result<Self> {
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
                    lines += &change(next);
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
        ended.map_err(|_| anyhow::anyhow!("the changes of routes have ended in a panic"))?
    }
}

/// Returns a line of a batch for ip: a route comes, and goes with the next change. No client is in one of
/// the networks.
fn change(number: u64) -> String {
    let verb = if number.is_multiple_of(2) {
        "add"
    } else {
        "del"
    };
    // Spread as the routes of the internet are.
    let mixed = (number / 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let [_, a, b, c] = (mixed as u32).to_be_bytes();
    format!("route {verb} blackhole {}.{b}.{c}.0/24\n", 64 + a % 128)
}
