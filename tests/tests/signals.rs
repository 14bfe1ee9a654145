//! A process that is stopped and goes on while the kernel's verifier looks at its programs, which interrupts that.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use teredo::datapath::xdp::capture::Capture;
use teredo_common::capture::Filter;
use teredo_lab::{
    fixture::{Fixture, Setup},
    wait_for, wait_until,
};

/// The variable that makes a process the one that is stopped.
const VARIABLE: &str = "TEREDO_TEST_IS_STOPPED";
/// Time for which it is stopped again and again: more than it takes to come to the next program.
const STOPS: Duration = Duration::from_secs(2);
/// Time between two stops: less than the verifier takes.
const PAUSE: Duration = Duration::from_millis(4);
/// Time for steps without a promise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line of the process that is stopped, once the kernel has said what it is able to do: that is asked only once.
const READY: &str = "ready";

/// Loads all programs of the fast path, until standard input is closed.
fn load() -> Result<()> {
    Fixture::new(&Setup::default())?;
    let told = thread::spawn(|| io::stdin().read_to_end(&mut Vec::new()));
    println!("\n{READY}");
    loop {
        let fixture = Fixture::new(&Setup::default())?;
        let shared = fixture.program.shared()?;
        Capture::load(&shared, &Filter::zeroed())?;
        if told.is_finished() {
            return Ok(());
        }
    }
}

/// A process that ends with the value, also when it is stopped.
struct Ended(Child);

impl Ended {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// Stops the process, and lets it go on.
    fn stop(&mut self) -> Result<()> {
        kill(self.pid(), Signal::SIGSTOP)?;
        let file = format!("/proc/{}/stat", self.pid());
        wait_until("the process stands still", PATIENCE, || {
            let stat = fs::read_to_string(&file)?;
            let (_, rest) = stat.rsplit_once(") ").context("no state")?;
            ensure!(!rest.starts_with('Z'), "the process has ended");
            Ok(rest.starts_with('T'))
        })?;
        kill(self.pid(), Signal::SIGCONT)?;
        Ok(())
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_that_is_stopped_again_and_again_loads_its_programs() -> Result<()> {
    if env::var_os(VARIABLE).is_some() {
        return load();
    }
    let name = "a_process_that_is_stopped_again_and_again_loads_its_programs";
    let child = Command::new(env::current_exe()?)
        .args(["--exact", name, "--nocapture"])
        .env(VARIABLE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut child = Ended(child);
    let mut lines = BufReader::new(child.0.stdout.take().context("its output")?).lines();
    ensure!(
        lines.any(|line| line.is_ok_and(|line| line == READY)),
        "the process has ended"
    );
    let start = Instant::now();
    while start.elapsed() < STOPS {
        child.stop()?;
        thread::sleep(PAUSE);
    }
    drop(child.0.stdin.take());
    let status = wait_for("the process has loaded its programs", PATIENCE, || {
        Ok(child.0.try_wait()?)
    })?;
    ensure!(status.success(), "{status}");
    Ok(())
}
